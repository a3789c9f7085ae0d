"""From a configuration to compiled functions.

A `Program` is everything of a run but its data, seed and length: runs that differ only in these,
or in which centers are held out, share one program and its compilations.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.fedgen import Hypernet, fedgen
from fedgen_jax.algorithms.local import Local, images_of
from fedgen_jax.algorithms.local_only import local_only
from fedgen_jax.engine.rounds import client_mesh, make_rounds, suitable_devices
from fedgen_jax.hypernet.generator import MODES
from fedgen_jax.models import FITTING, MODELS
from fedgen_jax.registry import choose, look_up
from fedgen_jax.shifts import Shift, acquisition, chain, magnification, plain, sometimes
from fedgen_jax.tasks import TASKS, Task

# Images at a time where a whole center is described or predicted: as many as this, and no more
# than have so many pixels, for a convolution's patches take hundreds of bytes a pixel.
CHUNK, CHUNK_PIXELS = 64, 2**19

# What may differ between runs that share a program.
_RUN_FIELDS = (
    'method', 'seed', 'eval_every', 'checkpoint_every', 'score_on', 'cohort', 'max_left_out',
    'data',
)  # fmt: skip


class Program(NamedTuple):
    """Compiled functions of a method; `rounds` as `engine.rounds.make_rounds` returns it.

    describe:    (shared, image uint8 [N, H, W, 3]) -> [N, E] on the host; None as in `Algorithm`.
    predict:     (variables, image uint8 [N, H, W, 3]) -> predictions on the host.
    personalize: `Algorithm.personalize`.
    """

    task: Task
    algorithm: Algorithm
    mesh: jax.sharding.Mesh
    rounds: Callable
    describe: Callable | None
    predict: Callable
    personalize: Callable


def build(config: ConfigDict, classes: Sequence[str], num_clients: int) -> Program:
    """The program of a configuration; the same object for runs that can share it."""
    shared = config.to_dict()
    image_size = shared['data']['image_size']
    a_round = config.cohort or num_clients
    shared['devices'] = config.devices or suitable_devices(a_round, padded=not config.cohort)
    for field in _RUN_FIELDS:
        shared.pop(field, None)  # a run that is older than the field lacks it
    return _build(json.dumps(shared, sort_keys=True), image_size, tuple(classes), num_clients)


@functools.lru_cache(maxsize=4)
def _build(shared: str, image_size: int, classes: tuple[str, ...], num_clients: int) -> Program:
    c = ConfigDict(json.loads(shared))
    algorithm, local = make_algorithm(c, image_size, classes, num_clients)
    mesh = client_mesh(c.devices)

    @jax.jit
    def predict(variables, image_BxHxWx3):
        outputs = local.model.apply(variables, images_of(image_BxHxWx3), train=False)
        return local.task.predict(outputs)

    describe = algorithm.describe and functools.partial(in_chunks, jax.jit(algorithm.describe))
    return Program(
        local.task,
        algorithm,
        mesh,
        make_rounds(algorithm, mesh, c.client_map),
        describe,
        functools.partial(in_chunks, predict),
        jax.jit(algorithm.personalize),
    )


def in_chunks(fn: Callable, first: Any, image_NxHxWx3: np.ndarray) -> Any:
    """fn(first, images) over N in chunks of one shape, so that it compiles once; on the host."""
    _, height, width, _ = image_NxHxWx3.shape
    chunk = max(1, min(CHUNK, CHUNK_PIXELS // (height * width)))
    outputs = []
    for i in range(0, max(len(image_NxHxWx3), 1), chunk):
        x = image_NxHxWx3[i : i + chunk]
        padded = np.concatenate([x, np.zeros((chunk - len(x), *x.shape[1:]), x.dtype)])
        outputs.append(jax.device_get(fn(first, padded)))
    length = len(image_NxHxWx3)
    return jax.tree.map(lambda *y: np.concatenate(y)[:length], *outputs)


def make_algorithm(
    c: ConfigDict, image_size: int, classes: Sequence[str], num_clients: int
) -> tuple[Algorithm, Local]:
    """The algorithm that a configuration names, and the local learning it is built on."""
    task = make_task(c.task, classes)
    model = look_up('model.name', c.model.name, MODELS)
    if c.model.name in MODELS and c.task in FITTING:
        choose('model.name', c.model.name, FITTING[c.task])
    model = model(
        task.num_outputs,
        widths=tuple(c.model.widths),
        depth=c.model.depth,
        norm=c.model.norm,
        standardize=c.model.standardize,
    )
    local = Local(
        model=model,
        task=task,
        image_size=image_size,
        plain=plain() if c.shifts.plain else chain(),
        shift=virtual_centers(c.shifts, edge_of(task)),
        optimizer=optimizer('client', c.client),
        schedule=schedule(c),
        steps=c.local_steps,
        batch=c.batch_size,
        prevalence=c.prevalence,
        weighting=c.weighting,
        finetune=(c.finetune.steps, c.finetune.lr),
    )
    if c.algorithm == 'local':
        return local_only(local), local
    server = optimizer('server', c.server)
    if c.algorithm == 'fedavg':
        return fedavg(local, server), local
    if c.algorithm != 'fedgen':
        raise ValueError(f'algorithm={c.algorithm!r}: one of local, fedavg, fedgen')
    h = c.hypernet
    hypernet = Hypernet(
        descriptor=h.descriptor,
        modes=tuple(choose('hypernet.modes', mode, MODES) for mode in h.modes),
        options=tuple((k, h[k]) for k in ('code', 'rank', 'bound', 'fade')),
        num_clients=num_clients,
        support=h.support,
        support_prevalence=choose(
            'hypernet.support_prevalence', h.support_prevalence,
            ('same', 'natural', 'balanced', 'mixed'),
        ),
        pooled=h.pooled,
        base=h.base,
        jitter=h.jitter,
        rates=tuple(h.client_rates),
    )
    groups = {
        'theta': server,
        'phi': optax.chain(server, optax.scale(c.server.generator_lr)),
        'psi': optax.chain(server, optax.scale(c.server.descriptor_lr)),
    }
    by_group = optax.partition(groups, lambda weights: {k: k for k in weights})
    return fedgen(local, hypernet, by_group, c.local), local


def make_task(name: str, classes: Sequence[str]) -> Task:
    """The task that a configuration names, of these classes."""
    return look_up('task', name, TASKS)(classes)


def edge_of(task: Task) -> str:
    """What surrounds a shrunk image: objects seen in its reflection would have no boxes."""
    return 'nearest' if task.target == 'box' else 'reflect'


def virtual_centers(c: ConfigDict, edge: str) -> Shift:
    """The acquisition shifts of training; nothing where their strengths are 0 and 1."""
    shifts = []
    if c.zoom != 1:
        shifts.append(sometimes(magnification(1 / c.zoom, c.zoom, edge), 0.5))
    if c.acquisition:
        shifts.append(acquisition(c.acquisition, edge))
    shift = chain(*shifts)
    return sometimes(shift, c.probability) if shifts and c.probability < 1 else shift


def schedule(c: ConfigDict) -> Callable:
    """round -> factor of the clients' learning rate."""
    if c.client.schedule == 'constant':
        return lambda round_: jnp.float32(1)
    if c.client.schedule == 'cosine':
        decay = optax.cosine_decay_schedule(1.0, c.rounds)
        return lambda round_: decay(round_.astype(jnp.float32))  # strict promotion
    raise ValueError(f'client.schedule={c.client.schedule!r}: one of constant, cosine')


def optimizer(field: str, c: ConfigDict) -> optax.GradientTransformation:
    """The optimizer of `client` or `server`."""
    if c.optimizer == 'sgd':
        step = optax.sgd(c.lr, momentum=c.momentum or None)
        return optax.chain(optax.clip_by_global_norm(c.clip), step) if c.get('clip') else step
    if c.optimizer == 'adam':
        return optax.adam(c.lr, b1=0.9, b2=0.99, eps=1e-8 if field == 'client' else 1e-3)
    raise ValueError(f'{field}.optimizer={c.optimizer!r}: one of sgd, adam')


def num_bytes(tree: Any) -> int:
    """Bytes of a pytree of arrays or shapes."""
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
