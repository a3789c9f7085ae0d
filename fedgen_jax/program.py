"""From a configuration to compiled functions.

A `Program` is everything of a run except its data and seed: runs that differ only in these, or in
which centers are held out, share one program and its compilations.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms import ALGORITHMS, follows_rounds
from fedgen_jax.algorithms.adaptation import ROLES, WHAT, weights_adapted
from fedgen_jax.algorithms.averaging import averaged
from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.finish import alone, fitted
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer, own_steps, schedule
from fedgen_jax.canonical import Input, carried_back
from fedgen_jax.data.examples import Examples
from fedgen_jax.data.targets import target_of
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.engine.clients import client_map_of
from fedgen_jax.engine.cohorts import Mix, mix_of
from fedgen_jax.engine.rounds import client_mesh, suitable_devices
from fedgen_jax.engine.secured import Halves, rounds_of
from fedgen_jax.engine.sums import Secure, secure_of
from fedgen_jax.frozen import Frozen, frozen_below, predicted
from fedgen_jax.models.roles import roles_of
from fedgen_jax.named import (
    make_canonical,
    make_model,
    make_private,
    make_protection,
    make_task,
)
from fedgen_jax.privacy import Protection
from fedgen_jax.privacy.clients import silent
from fedgen_jax.privacy.robust import check_robust
from fedgen_jax.privacy.units import cap_of
from fedgen_jax.registry import choose, look_up
from fedgen_jax.shifts import plain, virtual_centers
from fedgen_jax.start import content_of, start_variables
from fedgen_jax.tasks import Task
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


class Program(NamedTuple):
    """Compiled functions of a method; `rounds` as `engine.secured.rounds_of` returns it.

    input:       the canonical input of its centers; None: images as they are.
    describe:    (shared, image uint8 [N, H, W, 3]) -> [N, E] on the host; None as in `Algorithm`.
    answer:      (variables, image uint8 [N, H, W, 3], or features [N, F] of the frozen layers) ->
                 predictions, to be called within a larger function.  Where the variables have
                 'canonical', a `Change`, the images go through it first, and what is predicted is
                 carried back to their own places.  Where they have 'prior', a
                 `tasks.prior.log_ratio`, the probabilities are those under the center's class mix.
    predict:     the same of any number of images, on the host.
    personalize: `Algorithm.personalize`.
    secure:      how sums are taken under masks; None: in the clear.
    base:        the same data and tasks with the algorithm that is refined (`Algorithm.base`): it
                 serves the same state.  None: there is none.
    alone:       (unlabelled, labelled, key) -> variables of a model that a center learns alone.
    fitted:      `algorithms.finish.fitted`, (params, unlabelled, labelled, key, roles).
    role_of:     a weight's path -> its role (`models.roles`).
    adapt:       (shared, unlabelled, key, m_E or None, steps) -> what `adaptation.descent` returns,
                 of a stranger's model and what `adapt.what` names; None: the task has no
                 probabilities to be sure of, or a stranger no model, or more than one's weights.
    frozen:      the layers that no model of it changes; None: there are none.
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
    role_of: Callable
    adapt: Callable | None = None
    secure: Secure | None = None
    base: 'Program | None' = None
    frozen: Frozen | None = None


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
    start = content_of(config.start.weights)  # a run that was made longer starts another
    return _build(text, image_size, tuple(classes), num_clients, secure, start)


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
    shared: str, image_size: int, classes: tuple[str, ...], num_clients: int,
    secure: Secure | None, start: str,
) -> Program:
    del start  # of the key alone
    c = ConfigDict(json.loads(shared))
    c.client_map = client_map_of(c, image_size)
    algorithm, local = make_algorithm(c, image_size, classes, num_clients)
    check_apply(c, algorithm)
    protection = make_protection(c)
    mesh = client_mesh(c.devices)
    canonical = make_canonical(c, target_of(local.task.target).edge, protection)

    outputs_of = algorithm.apply or functools.partial(local.model.apply, train=False)

    @jax.jit
    def answer(variables, image):
        variables = dict(variables)
        change, prior = (variables.pop(k, None) for k in ('canonical', 'prior'))
        if change is not None:
            examples = Examples(image, {}, jnp.ones(image.shape[0]))
            image = canonical.move(change, examples).image
        x = images_of(image) if image.ndim == 4 else image
        found = local.task.predict(outputs_of(variables, x))
        if prior is not None:
            found = {**found, 'probability': reweighted(found['probability'], prior)}
        if change is None:
            return found
        return carried_back(change, found, image.shape[1:3], canonical.edge)

    frozen = frozen_below(local)
    through = None if algorithm.apply else frozen

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
        functools.partial(predicted, answer, canonical, through),
        jax.jit(algorithm.personalize),
        jax.jit(functools.partial(alone, local)),
        jax.jit(functools.partial(fitted, local), static_argnames='roles'),
        roles_of(local.model),
        make_adapt(c, algorithm, local),
        secure,
        frozen=frozen,
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
    if c.loss.prior == 'logits' and c.prevalence != 'natural':
        raise ValueError(
            f'loss.prior=logits: batches of prevalence={c.prevalence!r} are not of the class mix '
            'that it takes out: pass --config.prevalence=natural, or --config.loss.prior=none'
        )
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
    family = look_up('algorithm', c.algorithm, ALGORITHMS)
    own = c.algorithm.rpartition(':')[2]
    if ':' in c.algorithm and len(family.defaults()) and own not in c:
        raise ValueError(
            f'algorithm={c.algorithm!r}: has fields of its own, config.{own}: write '
            f'c.{own} = {own}.defaults() into a configuration file, and name that by --config'
        )
    algorithm = family.build(c, local, num_clients)
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


def num_bytes(tree: Any) -> int:
    """Bytes of a pytree of arrays or shapes."""
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
