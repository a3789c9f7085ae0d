"""A run before and after its rounds: its data, its program, and its folder on disk."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.config import complete
from fedgen_jax.data.check import tell
from fedgen_jax.data.examples import Center, Source
from fedgen_jax.data.source import draw, load
from fedgen_jax.engine.processes import is_first, to_host
from fedgen_jax.engine.rounds import init_run, shard_clients
from fedgen_jax.program import Program, build, make_task
from fedgen_jax.registry import choose


class Run(NamedTuple):
    """A configured run, before or after training."""

    config: ConfigDict
    classes: tuple[str, ...]
    program: Program
    seen: tuple[Center, ...]
    unseen: tuple[Center, ...]
    length: int
    key: jax.Array


class Trained(NamedTuple):
    """A federation after training.

    private_C: the seen centers' private states, on the host.
    length:    what a center's images are padded to where a compiled function takes them whole.
    """

    program: Program
    shared: Any
    private_C: Any
    seen: tuple[Center, ...]
    unseen: tuple[Center, ...]
    length: int
    key: jax.Array


def load_source(config: ConfigDict, classes: Sequence[str] | None = None) -> Source:
    """The data set that a configuration names; classes: as in `data.source.load`."""
    d = config.data
    choose('data.source', d.source, ('folder', 'synthetic'))
    choose('data.images', d.images, ('memory', 'disk'))
    target, cache = make_task(config.task, ()).target, d.cache or None
    if d.source == 'synthetic':
        return draw(
            d.centers, d.examples, d.image_size, config.seed, d.spread, target, cache=cache,
            images=d.images,
        )  # fmt: skip
    if not d.root:
        raise ValueError('data.root is empty: pass --config.data.root=FOLDER')
    unseen = d.held_out.split(',')
    return load(
        d.root, d.image_size, config.seed, cache, classes, target=target, unseen=unseen,
        images=d.images,
    )  # fmt: skip


def prepare(config: ConfigDict, classes: Sequence[str] | None = None) -> Run:
    """Loads the data, sets the held-out centers apart and builds the program.

    classes: those of a trained model; the folder's own names in another order would be relabelled.
    """
    choose('score_on', config.score_on, ('test', 'val'))
    for field in ('rounds', 'local_steps', 'batch_size', 'eval_every', 'checkpoint_every'):
        if config[field] < 1:
            raise ValueError(f'{field}={config[field]}: at least 1')
    source = load_source(config, classes)
    if config.data.source == 'folder' and is_first():
        tell(source, flips=config.shifts.plain)
    names = [c.name for c in source.centers]
    held_out = [name for name in config.data.held_out.split(',') if name]
    for name in held_out:
        choose('data.held_out', name, names)
    seen = tuple(c for c in source.centers if c.name not in held_out)
    if not seen:
        raise ValueError('data.held_out holds out every center: leave at least one to train')
    unseen = tuple(c for c in source.centers if c.name in held_out)
    program = build(config, source.classes, len(seen))
    check_cohort(config, len(seen), program)
    length = max(len(c.split) for c in source.centers)
    return Run(config, source.classes, program, seen, unseen, length, jax.random.key(config.seed))


def check_cohort(c: ConfigDict, num_seen: int, program: Program) -> None:
    """A cohort is a part of the clients, and divides evenly over the devices."""
    num_clients, num_devices = num_seen + c.data.virtual, program.mesh.size
    if c.cohort and (not 0 < c.cohort <= num_clients or c.cohort % num_devices):
        raise ValueError(
            f'cohort={c.cohort}: 0 for all, or a multiple of the {num_devices} devices up to the '
            f'{num_clients} clients'
        )
    if c.data.virtual and (c.data.source != 'synthetic' or not c.cohort):
        raise ValueError(
            f"data.virtual={c.data.virtual}: with data.source='synthetic' and a cohort alone"
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


def trained(run: Run, state, private_C) -> Trained:
    """The run after training, ready to be scored."""
    # What many processes hold together, each scores by itself.
    shared = state.shared if jax.process_count() == 1 else to_host(state.shared)
    private_C = to_host(private_C)
    return Trained(run.program, shared, private_C, run.seen, run.unseen, run.length, run.key)


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


def restore(workdir: str | pathlib.Path) -> Restored:
    """The last checkpoint of a run, from its folder alone."""
    workdir = pathlib.Path(workdir)
    for name in ('config.json', 'federation.json'):
        if not (workdir / name).is_file():
            raise ValueError(f'{workdir}/{name}: missing, so this is no run of launch.train')
    config = complete(json.loads((workdir / 'config.json').read_text()))
    config.devices = 1  # whatever it was trained on
    federation = json.loads((workdir / 'federation.json').read_text())
    program = build(config, federation['classes'], len(federation['seen']))
    num_clients = len(federation['seen'])
    id_C = client_ids(num_clients, program)
    state, private_C = init_run(
        program.algorithm, program.mesh, jax.random.key(config.seed), id_C, program.protection
    )
    like = state, own_states(private_C, num_clients)
    round_, (state, private_C) = checkpoint.read(workdir, like)
    if not round_:
        raise ValueError(f'{workdir}/checkpoints: no checkpoint yet: let launch.train reach one')
    names = (tuple(federation[k]) for k in ('classes', 'seen', 'unseen'))
    return Restored(config, *names, program, state, private_C, round_)


def reopen(workdir: str | pathlib.Path, data: str | None = None) -> tuple[Restored, Run]:
    """The last checkpoint of a run, and its images again.

    data: their folder, if it is no longer where the configuration says.

    Raises ValueError where the folder has other centers or classes than the run.
    """
    done = restore(workdir)
    if data:
        done.config.data.root = data
    run = prepare(done.config, done.classes)
    for kind in ('seen', 'unseen'):
        found, was = tuple(c.name for c in getattr(run, kind)), getattr(done, kind)
        if found != was:
            raise ValueError(
                f'{done.config.data.root}: {kind} centers {", ".join(found)}; the run of {workdir} '
                f'has {", ".join(was)}: pass the folder that it was trained on'
            )
    return done, run


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """All that decides a run's result, as JSON.

    The configuration but for where its data lie, and for how clients are spread over devices, which
    only rounds otherwise.
    """
    values = config.to_dict()
    for field in ('devices', 'client_map'):
        values.pop(field, None)
    where = ('root', 'cache', 'images')
    values['data'] = {k: v for k, v in values['data'].items() if k not in where}
    return json.loads(json.dumps(values, default=list))


def differences(made: dict, now: dict, defaults: dict, prefix: str = '') -> list[str]:
    """'client.lr=0.1, now 0.2' for each field in which two `settings_of` differ.

    A field that `made` lacks is younger than the run, which had what is now its default.
    """
    found = []
    for name, value in now.items():
        default = defaults.get(name)
        was = made.get(name, default)
        if isinstance(value, dict):
            found += differences(was, value, default, f'{prefix}{name}.')
        elif was != value:
            found.append(f'{prefix}{name}={was!r}, now {value!r}')
    return found


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all; of many processes, the first alone writes."""
    if not is_first():
        return
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(value, indent=1, default=list) + '\n')
    partial.rename(path)
