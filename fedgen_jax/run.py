"""A run before and after its rounds: its data, its program, and its folder on disk."""

import pathlib
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.algorithms import pools
from fedgen_jax.canonical import mean_moments
from fedgen_jax.config import complete
from fedgen_jax.data.check import say, tell
from fedgen_jax.data.examples import Center, Examples, Source, of_split
from fedgen_jax.data.smears import smears
from fedgen_jax.data.source import draw, load
from fedgen_jax.data.synthetic import CLASSES_OF
from fedgen_jax.data.virtual import SPREAD, Drawing, drawing_for, without_class
from fedgen_jax.engine.cohorts import Mix
from fedgen_jax.engine.processes import is_first, to_host
from fedgen_jax.engine.rounds import shapes_of_run, shard_clients
from fedgen_jax.federation import federation_of, other_data, other_names
from fedgen_jax.files import expand, read_json, write_json
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.named import make_task
from fedgen_jax.privacy.settings import check_private
from fedgen_jax.program import Program, build, mix_of_run
from fedgen_jax.registry import choose
from fedgen_jax.resolution import SIZES
from fedgen_jax.settings import check_numbers
from fedgen_jax.start import check_content

# What a seen center's own model may be (`own.own_model`).
CHOICES = ('refined', 'finetuned', 'local_only')


class Run(NamedTuple):
    """A configured run, before or after training.

    reference: the seen centers' mean moments [M], of the canonical input; None without one.
    mix:     how many clients a round has; None: all seen centers, which stay on the devices.
    drawing: how virtual centers are drawn; None: there are none.
    guard:   what keeps it private (`guard.Guard`), once its folder is known; None: nothing.
    parties: who signs in its sums under masks (`engine.sums.Parties`), once its folder is
             known; None: nobody.
    """

    config: ConfigDict
    classes: tuple[str, ...]
    program: Program
    seen: tuple[Center, ...]
    unseen: tuple[Center, ...]
    length: int
    key: jax.Array
    mix: Mix | None = None
    drawing: Drawing | None = None
    reference: np.ndarray | None = None
    guard: Any = None
    parties: Any = None


class Trained(NamedTuple):
    """A federation after training.

    private_C: the seen centers' private states, on the host.
    length:    what a center's images are padded to where a compiled function takes them whole.
    reference: as of `Run`.
    released:  each seen center's statistic, of a private run, which has no other.
    moments:   each seen center's mean moments [M] as it released them, of a private run with
               canonical input: what its images are brought to the reference by.
    own_size:  whether masks are scored at their own size, as their files have them (`resolution`).
    """

    program: Program
    shared: Any
    private_C: Any
    seen: tuple[Center, ...]
    unseen: tuple[Center, ...]
    length: int
    key: jax.Array
    reference: np.ndarray | None = None
    released: Mapping[str, Statistic] | None = None
    moments: Mapping[str, np.ndarray] | None = None
    own_size: bool = False


def load_source(config: ConfigDict, classes: Sequence[str] | None = None) -> Source:
    """The data set that a configuration names; classes: as in `data.source.load`."""
    d = config.data
    choose('data.source', d.source, ('folder', 'synthetic'))
    choose('data.images', d.images, ('memory', 'disk'))
    target, cache = make_task(config.task, ()).target, d.cache or None
    if d.source == 'synthetic':
        if target not in CLASSES_OF:
            raise ValueError(
                f'task={config.task!r}: drawn centers have {", ".join(CLASSES_OF)}, and no '
                f'{target}: train on a folder of your own'
            )
        return draw(
            d.centers, d.examples, d.image_size, config.seed, d.spread, target, cache=cache,
            images=d.images,
        )
    if not d.root:
        raise ValueError('data.root is empty: pass --config.data.root=FOLDER')
    return load(
        expand(d.root), d.image_size, config.seed, cache, classes, target=target,
        unseen=candidates(d.held_out), images=d.images, columns=d.columns, cut=d.cut,
        window=d.window,
    )


def names_in(text: str, names: Collection[str]) -> list[str]:
    """The names in a comma-separated text; of names that hold commas, the longest that fits.

    What fits none is cut at each comma, for the caller to refuse.
    """
    parts, found = text.split(','), []
    most = 1 + max((name.count(',') for name in names), default=0)
    while parts:
        starts = [','.join(parts[:n]).strip() for n in range(min(most, len(parts)), 0, -1)]
        name = next((x for x in starts if x in names), starts[-1])
        found.append(name)
        del parts[: 1 + name.count(',')]
    return [name for name in found if name]


def candidates(text: str, commas: int = 8) -> list[str]:
    """All that `names_in` may find in a text, for names that are not known yet."""
    parts = text.split(',')
    ends = range(1, commas + 2)
    return [','.join(parts[i : i + n]).strip() for i in range(len(parts)) for n in ends]


def prepare(config: ConfigDict, classes: Sequence[str] | None = None) -> Run:
    """Loads the data, sets the held-out centers apart and builds the program.

    classes: those of a trained model; the folder's own names in another order would be relabelled.
    """
    check_private(config)
    choose('score_on', config.score_on, ('test', 'val'))
    choose('score_size', config.score_size, SIZES)
    for kind in config.finetune.choose:
        choose('finetune.choose', kind, CHOICES)
    if 'finetuned' in config.finetune.choose and config.finetune.steps < 1:
        raise ValueError("finetune.choose='finetuned': needs finetune.steps of at least 1")
    check_numbers(config)
    source = load_source(config, classes)
    if config.data.source == 'folder' and is_first():
        tell(source, flips=config.shifts.flips)
    seen, unseen = apart(config, source)
    program = build(config, source.classes, len(seen))
    check_cohort(config, len(seen), program)
    length = max(len(c.split) for c in source.centers)
    mix = mix_of_run(config, len(seen))
    drawing = None
    if mix and config.data.virtual and mix.drawn != 0:
        drawing = virtual_of(config, seen[0], source.classes, program)
        if is_first():
            say(note_on_virtual(config, len(seen), mix, drawing))
    key, reference = jax.random.key(config.seed), None
    if program.input:
        reference = mean_moments(program.input, reference_images(config, seen))
    classes = source.classes
    return Run(
        config, classes, program, seen, unseen, length, key, mix, drawing, reference,
    )


def apart(config: ConfigDict, source: Source) -> tuple[tuple[Center, ...], tuple[Center, ...]]:
    """The centers that train, and those that are held out.

    Raises ValueError where one that is held out is none, and where all are.
    """
    names = [c.name for c in source.centers]
    held_out = names_in(config.data.held_out, names)
    for name in held_out:
        choose('data.held_out', name, names)
    seen = tuple(c for c in source.centers if c.name not in held_out)
    if not seen:
        raise ValueError('data.held_out holds out every center: leave at least one to train')
    return seen, tuple(c for c in source.centers if c.name in held_out)


def reference_images(c: ConfigDict, seen: Sequence[Center]) -> Iterable[Examples]:
    """Whose mean moments are the reference: the seen centers' training images, or drawn smears."""
    if choose('input.reference', c.input.reference, ('seen', 'drawn')) == 'drawn':
        return smears(c.data.image_size)
    return (of_split(center, 'train') for center in seen)


def virtual_of(c: ConfigDict, beside: Center, classes: Sequence[str], program: Program) -> Drawing:
    """How the centers of `data.virtual` are drawn: in the arrays of the center `beside`."""
    d, drawn_too = c.data, c.data.source == 'synthetic'
    spread = d.spread if drawn_too else SPREAD
    return drawing_for(
        beside.examples, program.task.target, classes, d.virtual_classes, seed=c.seed,
        first=d.centers if drawn_too else 0,  # the first ones are the source
        num_examples=d.virtual_examples or d.examples,
        spread=spread if d.virtual_spread < 0 else d.virtual_spread,
    )


def note_on_virtual(c: ConfigDict, num_seen: int, mix: Mix, drawing: Drawing) -> str:
    """What a person should know of a run with virtual centers, in a line."""
    total = c.data.virtual
    mixed = f'{mix.size} of {num_seen} seen and {total} drawn centers'
    if mix.drawn is not None:
        own = mix.size - mix.drawn
        mixed = f'{own} of {num_seen} seen centers and {mix.drawn} of {total} drawn ones'
    told = [f'a round trains {mixed}, of {drawing.num_examples} images', without_class(drawing)]
    return '; '.join(filter(None, told))


def check_cohort(c: ConfigDict, num_seen: int, program: Program) -> None:
    """A cohort is a part of the clients, and divides evenly over the devices."""
    num_clients, num_devices = num_seen + c.data.virtual, program.mesh.size
    if c.cohort and (not 0 < c.cohort <= num_clients or c.cohort % num_devices):
        raise ValueError(
            f'cohort={c.cohort}: 0 for all, or a multiple of the {num_devices} devices up to the '
            f'{num_clients} clients'
        )
    if c.cohort and not program.algorithm.sum_only:
        raise ValueError(
            f'cohort={c.cohort}: {program.algorithm.title} compares what all clients send in a '
            'round: pass --config.cohort=0'
        )
    mix = mix_of_run(c, num_seen)
    if mix and mix.size % num_devices:
        raise ValueError(
            f'data.virtual_share={c.data.virtual_share}: {mix.size} clients a round do not divide '
            f'over the {num_devices} devices: set another share, or a cohort that does'
        )
    if c.data.virtual and pools(c.algorithm):
        raise ValueError(
            f'data.virtual={c.data.virtual}: algorithm={c.algorithm!r} has the images of the seen '
            'centers alone in one place: pass --config.data.virtual=0'
        )
    if c.data.virtual and program.algorithm.keeps:
        raise ValueError(
            f'data.virtual={c.data.virtual}: centers that are drawn for one round keep nothing of '
            f'their own, as {program.algorithm.title} would have them: use another algorithm'
        )


def client_ids(num_clients: int, program: Program) -> np.ndarray:
    """int32 [C], C padded to the mesh."""
    return np.arange(num_clients + -num_clients % program.mesh.size, dtype=np.int32)


def own_states(private_C: Any, num_clients: int) -> Any:
    """The private states on the host without those of padding: what a checkpoint keeps.

    How many clients are padding depends on the devices, and a run may go on on others.
    """
    return jax.tree.map(lambda x: x[:num_clients], to_host(private_C))


def on_devices(own_C: Any, private_C: Any, program: Program) -> Any:
    """`private_C` with the clients' own states in place of the first, on the mesh."""
    padded = jax.tree.map(
        lambda own, x: np.concatenate([own, x[len(own) :]]), own_C, to_host(private_C)
    )
    return shard_clients(padded, program.mesh)


def after_training(run: Run, state, private_C) -> Trained:
    """The run after training, ready to be scored."""
    # What many processes hold together, each scores by itself.
    shared = state.shared if jax.process_count() == 1 else to_host(state.shared)
    private_C = to_host(private_C)
    return Trained(
        run.program, shared, private_C, run.seen, run.unseen, run.length, run.key, run.reference,
        run.guard and run.guard.released, run.guard and run.guard.moments,
    )


class Restored(NamedTuple):
    """A run as its folder tells it, without its images."""

    config: ConfigDict
    classes: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    program: Program
    state: Any
    private_C: Any
    round: int
    reference: np.ndarray | None = None


def check_is_run(workdir: pathlib.Path) -> None:
    """Raises ValueError where a folder holds no run."""
    for name in ('config.json', 'federation.json'):
        if not (workdir / name).is_file():
            raise ValueError(f'{workdir}/{name}: missing, so this is no run of launch.train')


def restore(workdir: str | pathlib.Path) -> Restored:
    """The last checkpoint of a run, from its folder alone."""
    workdir = expand(workdir)
    check_is_run(workdir)
    config = complete(read_json(workdir / 'config.json'))
    config.devices = 1  # whatever it was trained on
    if workdir.name == 'public' and (workdir.parent / 'privacy').is_dir():
        config.privacy.discreet = True  # made before the field was
    check_content(config, workdir)
    federation = read_federation(workdir)
    num_clients = federation.get('clients', len(federation['seen']))  # `deploy.handed` has one
    program = build(config, federation['classes'], num_clients)
    like = shapes_of_run(
        program.algorithm, program.mesh, len(federation['seen']), program.protection
    )
    round_, (state, private_C) = checkpoint.read(workdir, like)
    if not round_:
        if (workdir / 'server').is_dir():
            raise ValueError(
                f'{workdir}: a deployed run of a method whose centers keep private states: their '
                'models lie at the centers, in SITE/model'
            )
        raise ValueError(f'{workdir}/checkpoints: no checkpoint yet: let launch.train reach one')
    classes, seen, unseen = (tuple(federation[k]) for k in ('classes', 'seen', 'unseen'))
    return Restored(
        config, classes, seen, unseen, program, state, private_C, round_, read_reference(workdir)
    )


def reopen(workdir: str | pathlib.Path, data: str | None = None) -> tuple[Restored, Run]:
    """The last checkpoint of a run, and its images again.

    data: their folder, if it is no longer where the configuration says.

    Raises ValueError where the folder has other centers or classes than the run; warns where it has
    other images of them.
    """
    done = restore(workdir)
    if data:
        done.config.data.root = data
    elif not done.config.data.root and (expand(workdir) / 'deployed.json').is_file():
        raise ValueError(
            f'{workdir}: a deployed run, whose images lie at its centers: launch.report shows what '
            'they told, and launch.predict works on SITE/model at a center'
        )
    run = prepare(done.config, done.classes)._replace(reference=done.reference)
    was, now = read_federation(workdir), told_of(done.config, run.classes, run.seen, run.unseen)
    if found := other_names(was, now):
        raise ValueError(
            f'{place_of(run)}: {found} ({workdir}): pass the folder that it was trained on'
        )
    if found := other_data(was, now):
        warnings.warn(
            f'{place_of(run)}: {found} ({workdir}): these are scored; where no column says the '
            'split it is drawn anew, and images that trained may be among them', stacklevel=2,
        )
    return done, run


def write_reference(workdir: pathlib.Path, run: Run) -> None:
    """`reference.json`: what newcomers' images are brought to, of a run with canonical input."""
    if run.reference is not None:
        value = {'canonical': run.config.input.canonical, 'mean': run.reference.tolist()}
        write_json(workdir / 'reference.json', value)


def read_reference(workdir: pathlib.Path) -> np.ndarray | None:
    """The mean moments [M]; None of a run without canonical input."""
    file = workdir / 'reference.json'
    return np.array(read_json(file)['mean'], np.float32) if file.exists() else None


def read_federation(workdir: str | pathlib.Path) -> dict[str, Any]:
    """What data a run was made on, as `federation` has it."""
    return read_json(expand(workdir) / 'federation.json')


def is_discreet(c: ConfigDict) -> bool:
    """Whether a run's folder has nothing exact of the centers' data, as of a private run."""
    return bool(c.privacy.unit) or c.privacy.discreet


def told_of(
    c: ConfigDict, classes: Sequence[str], seen: Sequence[Center], unseen: Sequence[Center]
) -> dict[str, Any]:
    """What data a run is made on, as `federation` has it."""
    found = federation_of(classes, seen, unseen, from_files=c.data.source == 'folder')
    if is_discreet(c):  # how many of a class a center has, and whether an image is its own
        hidden = {'labels': None, 'content': None}
        found['data'] = {name: {**of, **hidden} for name, of in found['data'].items()}
    return found


def place_of(run: Run) -> str:
    """Where a run's data come from, for a message."""
    return run.config.data.root or f'data.source={run.config.data.source}'
