"""From a configuration to compiled functions.

A `Program` is everything of a run except its data and seed: runs that differ only in these, or in
which centers are held out, share one program and its compilations.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.algorithms import ALGORITHMS, follows_rounds
from fedgen_jax.algorithms.adaptation import ROLES, WHAT, weights_adapted
from fedgen_jax.algorithms.averaging import averaged
from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.finish import alone, fitted
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer, own_steps, schedule
from fedgen_jax.canonical import PRESETS as canonical_presets
from fedgen_jax.canonical import Input, carried_back, make_input
from fedgen_jax.config import complete
from fedgen_jax.data.examples import Examples
from fedgen_jax.data.targets import target_of
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.engine.cohorts import Mix, mix_of
from fedgen_jax.engine.rounds import client_mesh, suitable_devices
from fedgen_jax.engine.secured import Halves, rounds_of
from fedgen_jax.engine.sums import Secure, secure_of
from fedgen_jax.files import expand
from fedgen_jax.models import FITTING, MODELS
from fedgen_jax.models.start import flat, read_weights, start_of
from fedgen_jax.privacy import Protection, clip
from fedgen_jax.privacy import chain as chain_protections
from fedgen_jax.privacy.clients import client_level, silent
from fedgen_jax.privacy.dpsgd import Private, trainable_of
from fedgen_jax.privacy.robust import check_robust, robust_of
from fedgen_jax.privacy.units import cap_of
from fedgen_jax.public import with_drawn_statistics
from fedgen_jax.registry import choose, look_up
from fedgen_jax.shifts import plain, virtual_centers
from fedgen_jax.shifts.geometry import check_zoom
from fedgen_jax.tasks import TASKS, Task
from fedgen_jax.tasks.prior import reweighted

# What may differ between runs that share a program.
_RUN_FIELDS = (
    'method', 'trial', 'seed', 'eval_every', 'checkpoint_every', 'score_on', 'cohort',
    'max_left_out', 'data', 'tracker',
)


# Of `privacy`, which decide noise and what stands before the rounds, but no compiled function.
_OF_BUDGET = (
    'epsilon', 'delta', 'images_per_patient', 'public', 'public_centers', 'public_rounds',
    'public_lr', 'descriptor_radius', 'descriptor_noise', 'moments_radius', 'moments_noise',
    'updates', 'secrets', 'seed',
)

# `statistics`, and that of `Local`: those of drawn smears are made here, and stay.
STATISTICS = {
    'own': 'own', 'running': 'running', 'last': 'last', 'frozen': 'frozen', 'drawn': 'frozen',
    'drawn+own': 'frozen+own',
}
OF_SMEARS = ('drawn', 'drawn+own')


class Program(NamedTuple):
    """Compiled functions of a method; `rounds` as `engine.secured.rounds_of` returns it.

    input:       the canonical input of its centers; None: images as they are.
    describe:    (shared, image uint8 [N, H, W, 3]) -> [N, E] on the host; None as in `Algorithm`.
    answer:      (variables, image uint8 [N, H, W, 3]) -> predictions, to be called within a larger
                 function.  Where the variables have 'canonical', a `Change`, the images go through
                 it first, and what is predicted is carried back to their own places.  Where they
                 have 'prior', a `tasks.prior.log_ratio`, the probabilities are those under the
                 center's class mix.
    predict:     the same of any number of images, on the host.
    personalize: `Algorithm.personalize`.
    secure:      how sums are taken under masks; None: in the clear.
    base:        the same data and tasks with the algorithm that is refined (`Algorithm.base`): it
                 serves the same state.  None: there is none.
    alone:       (unlabelled, labelled, key) -> variables of a model that a center learns alone.
    fitted:      `algorithms.local.fitted`, (params, unlabelled, labelled, key, roles).
    adapt:       (shared, unlabelled, key, m_E or None, steps) -> what `adaptation.descent` returns,
                 of a stranger's model and what `adapt.what` names; None: the task has no
                 probabilities to be sure of, or a stranger no model, or more than one's weights.
    """

    task: Task
    algorithm: Algorithm
    mesh: jax.sharding.Mesh
    protection: Protection
    rounds: jax.stages.Wrapped | Halves
    input: Input | None
    describe: Callable | None
    answer: Callable
    predict: Callable
    personalize: Callable
    alone: Callable
    fitted: Callable
    adapt: Callable | None = None
    secure: Secure | None = None
    base: 'Program | None' = None


def build(config: ConfigDict, classes: Sequence[str], num_clients: int) -> Program:
    """The program of a configuration; the same object for runs that can share it."""
    shared = config.to_dict()
    image_size = seen_size(config)
    mix = mix_of_run(config, num_clients)
    a_round = mix.size if mix else num_clients
    shared['devices'] = config.devices or suitable_devices(a_round, padded=mix is None)
    for field in _RUN_FIELDS:
        shared.pop(field, None)  # a run that is older than the field lacks it
    privacy = shared.get('privacy', {})
    shared['privacy'] = {k: x for k, x in privacy.items() if k not in _OF_BUDGET}
    needs_rounds = (
        'local_only' in config.finetune.choose or config.server.average
        or follows_rounds(config.algorithm)
    )
    if config.client.schedule == 'constant' and not needs_rounds:
        del shared['rounds']  # a longer run shares the program
    check_robust(config, a_round)
    secure, text = secure_of(config, num_clients, mix), json.dumps(shared, sort_keys=True)
    return _build(text, image_size, tuple(classes), num_clients, secure)


def seen_size(c: ConfigDict) -> int:
    """Pixels, square, of the images that the network sees."""
    size, given = c.input.size, c.data.image_size
    if not size:
        return given
    if size < 1 or given % size:
        raise ValueError(f'input.size={size}: a divisor of data.image_size={given}, or 0')
    return size


def mix_of_run(c: ConfigDict, num_seen: int) -> Mix | None:
    """`engine.cohorts.mix_of` a configuration; room for a Poisson cohort where it draws those."""
    if c.privacy.unit == 'client':
        return Mix(cap_of(num_seen + c.data.virtual, c.privacy.rate), None)
    return mix_of(c.cohort, c.data.virtual_share, num_seen, c.data.virtual)


@functools.lru_cache(maxsize=4)
def _build(
    shared: str, image_size: int, classes: tuple[str, ...], num_clients: int, secure: Secure | None
) -> Program:
    c = ConfigDict(json.loads(shared))
    algorithm, local = make_algorithm(c, image_size, classes, num_clients)
    check_apply(c, algorithm)
    protection = make_protection(c)
    mesh = client_mesh(c.devices)
    canonical = make_canonical(c, target_of(local.task.target).edge, protection)

    outputs_of = algorithm.apply or functools.partial(local.model.apply, train=False)

    @jax.jit
    def answer(variables, image_BxHxWx3):
        variables = dict(variables)
        change, prior = (variables.pop(k, None) for k in ('canonical', 'prior'))
        if change is not None:
            examples = Examples(image_BxHxWx3, {}, jnp.ones(image_BxHxWx3.shape[0]))
            image_BxHxWx3 = canonical.move(change, examples).image
        found = local.task.predict(outputs_of(variables, images_of(image_BxHxWx3)))
        if prior is not None:
            found = {**found, 'probability': reweighted(found['probability'], prior)}
        if change is None:
            return found
        return carried_back(change, found, image_BxHxWx3.shape[1:3], canonical.edge)

    describe = algorithm.describe and functools.partial(in_chunks, jax.jit(algorithm.describe))
    program = Program(
        local.task,
        algorithm,
        mesh,
        protection,
        rounds_of(c, algorithm, mesh, protection, secure),
        canonical,
        describe,
        answer,
        functools.partial(in_chunks, answer),
        jax.jit(algorithm.personalize),
        jax.jit(functools.partial(alone, local)),
        jax.jit(functools.partial(fitted, local), static_argnames='roles'),
        make_adapt(c, algorithm, local),
        secure,
    )
    if not algorithm.base:
        return program
    personalize = jax.jit(algorithm.base.personalize)
    return program._replace(
        base=program._replace(
            algorithm=algorithm.base, describe=None, personalize=personalize,
            adapt=make_adapt(c, algorithm.base, local),
        )
    )


def check_apply(c: ConfigDict, algorithm: Algorithm) -> None:
    """Raises ValueError where steps on the model's weights would not be of what answers."""
    if not algorithm.apply:
        return
    for field in ('oracle.steps', 'adapt.steps'):
        group, name = field.split('.')
        if c[group][name]:
            raise ValueError(
                f'{field}={c[group][name]}: moves weights of the model, and {algorithm.title} '
                'answers by more than these: 0'
            )


def make_adapt(c: ConfigDict, algorithm: Algorithm, local: Local) -> Callable | None:
    """`Program.adapt`."""
    what = choose('adapt.what', c.adapt.what, WHAT)
    if not (local.task.probability and algorithm.server_model) or algorithm.apply:
        return None
    move: Callable = functools.partial(weights_adapted, algorithm, local, ROLES[what])
    if what == 'code' and algorithm.adapt:
        move = algorithm.adapt
    return jax.jit(functools.partial(move, reach=c.adapt.reach), static_argnames='steps')


def make_algorithm(
    c: ConfigDict, image_size: int, classes: Sequence[str], num_clients: int
) -> tuple[Algorithm, Local]:
    """The algorithm that a configuration names, and the local learning it is built on."""
    task = make_task(c.task, classes)
    if c.loss.prior == 'logits' and task.target != 'label':
        raise ValueError(f'loss.prior=logits: task={task.name!r} has no class mix: '
                         'pass --config.loss.prior=none')
    model = make_model(c, task)
    local = Local(
        model=model,
        task=task,
        image_size=image_size,
        plain=plain(c.shifts.flips, c.shifts.turns),
        shift=virtual_centers(c.shifts, target_of(task.target).edge),
        optimizer=optimizer('client', c.client),
        schedule=schedule(c),
        steps=c.local_steps,
        batch=c.batch_size,
        decay=c.client.decay,
        prevalence=c.prevalence,
        weighting=c.weighting,
        finetune=own_steps(c, c.finetune.steps, c.finetune.lr),
        oracle=own_steps(c, c.oracle.steps, c.oracle.lr),
        alone=own_steps(c, c.get('rounds', 0) * c.local_steps, c.client.lr),
        statistics=choose('statistics', c.statistics, STATISTICS),
        mix=mix_of_statistics(c, task),
        prior=choose('loss.prior', c.loss.prior, ('none', 'logits')) == 'logits',
        start=start_variables(c, model, classes, image_size),
        private=make_private(c, model),
    )
    algorithm = look_up('algorithm', c.algorithm, ALGORITHMS).build(c, local, num_clients)
    if c.privacy.unit == 'client':
        algorithm = algorithm._replace(client_update=silent(algorithm.client_update))
    return averaged(algorithm, c.server.average, c.get('rounds', 0)), local


def mix_of_statistics(c: ConfigDict, task: Task) -> str:
    """`Local.mix`: of predicted classes, which a task without a class an image has not."""
    mix = choose('statistics_mix', c.statistics_mix, ('natural', 'balanced'))
    if mix == 'balanced' and task.target == 'labels':
        raise ValueError(f'statistics_mix=balanced: task={task.name!r} has no one class an image: '
                         'pass --config.statistics_mix=natural')
    return mix


def start_variables(
    c: ConfigDict, model: nn.Module, classes: Sequence[str], image_size: int
) -> dict | None:
    """What `start.weights` names: a file, a function, or the folder of a finished run.

    With `statistics` 'drawn' or 'drawn+own' the statistics of the last features are those of drawn
    smears, under these weights; of a run that had them too, that run's.
    """
    start = _named_start(c, model, classes, image_size)
    if c.statistics not in OF_SMEARS:
        return start
    if start is None or getattr(model, 'last', 'none') == 'none':
        raise ValueError(f'statistics={c.statistics!r}: of the last features under start.weights: '
                         'name these, and pass --config.model.last=center')
    folder = expand(c.start.weights)
    if folder.is_dir() and _made_by(folder).statistics in OF_SMEARS:
        return start
    if c.input.size or (c.input.canonical != 'none' and c.input.reference != 'drawn'):
        raise ValueError(f'statistics={c.statistics!r}: pass --config.input.reference=drawn, and '
                         'no input.size, so that they depend on drawn smears alone')
    edge, named = target_of(make_task(c.task, classes).target).edge, json.dumps(c.input.to_dict())
    canonical = make_canonical(c, edge, chain_protections())
    return with_drawn_statistics(model, start, canonical, image_size, named)


def _made_by(folder) -> ConfigDict:
    return complete(json.loads((folder / 'config.json').read_text()))


def _named_start(c, model, classes, image_size):
    if not c.start.weights:
        if getattr(model, 'source_norms', False):
            raise ValueError('model.source_norms: keeps the statistics of start.weights: name them')
        return None
    folder = expand(c.start.weights)
    keep = tuple(c.start.keep)
    if not folder.is_dir():
        found = read_weights(c.start.weights)
        return start_of(model, found, keep, c.start.seed, image_size)
    found = checkpoint.server_weights(folder)
    known = json.loads((folder / 'federation.json').read_text())['classes']
    if list(known) != list(classes) and 'params/head' not in keep:
        raise ValueError(
            f'start.weights={c.start.weights!r}: its classes are {", ".join(known)}, here they are '
            f"{', '.join(classes)}: pass --config.start.keep=('params/head',) for a new last layer"
        )
    if not any(name.startswith('batch_stats') for name in found):
        # The run kept none of training, but those it began with may be a part of its model.
        made = _made_by(folder)
        begun = start_variables(made, make_model(made, make_task(made.task, known)), known,
                                image_size)
        if begun:
            found |= {k: np.asarray(x) for k, x in flat(begun).items() if k.startswith('batch')}
        elif c.statistics == 'own':
            keep += ('batch_stats',)  # drawn: never used, for a center takes its own
        elif c.model.get('norm') == 'batch':
            raise ValueError(
                f'start.weights={c.start.weights!r}: kept no batch statistics (statistics=own '
                f'there), and statistics={c.statistics!r} needs them'
            )
    return start_of(model, found, keep, c.start.seed, image_size)


def make_model(c: ConfigDict, task: Task) -> nn.Module:
    """The network that a configuration names, with the fields of `model` as its keywords."""
    model = look_up('model.name', c.model.name, MODELS)
    if c.model.name in MODELS and c.task in FITTING:
        choose('model.name', c.model.name, FITTING[c.task])
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in c.model.to_dict().items()}
    del options['name']
    known = [f.name for f in dataclasses.fields(model) if f.name not in NOT_OPTIONS]
    for field in options:
        if field not in known:
            raise ValueError(
                f'model.{field}: {c.model.name} has no such field, but {", ".join(known)}: '
                'let `model` hold its name and these alone'
            )
    return model(num_outputs=task.num_outputs, **options)


NOT_OPTIONS = ('num_outputs', 'parent', 'name')


def make_canonical(c: ConfigDict, edge: str, protection: Protection) -> Input | None:
    """The canonical input that a configuration names."""
    if c.input.canonical == 'none' and not c.input.size:
        return None
    canonical = look_up('input.canonical', c.input.canonical, canonical_presets)(c.input.area)
    low, high = c.input.zoom
    check_zoom(low, high, edge)
    return make_input(canonical, (low, high), edge, protection.statistic, c.input.size)


def make_protection(c: ConfigDict) -> Protection:
    """What messages pass between clients and the sum."""
    p = c.privacy
    if p.unit == 'client':
        return chain_protections(client_level(p.clip or 1.0, p.adaptive))
    limit = 0.0 if p.unit else p.clip
    # The last part is the first at the server, where a rule meets messages as they were sent.
    return chain_protections(*([clip(limit)] if limit else []), *robust_of(c))


def make_private(c: ConfigDict, model: nn.Module) -> Private | None:
    """How a center's steps are private to its patients or images; None: they are not."""
    p = c.privacy
    if p.unit not in ('patient', 'image'):
        return None
    learns = trainable_of(model, p.trainable)
    # A part of it that divides the sample: on a CPU few at once are as quick as many.
    at_once = 4 if jax.default_backend() == 'cpu' else 60
    return Private(p.clip or 1.0, p.rate, learns, p.multiplicity, at_once)


def make_task(name: str, classes: Sequence[str]) -> Task:
    """The task that a configuration names, of these classes."""
    return look_up('task', name, TASKS)(classes)


def num_bytes(tree: Any) -> int:
    """Bytes of a pytree of arrays or shapes."""
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
