"""FedFA: DSU whose statistics vary more where the clients' differ.

References:
    Zhou, Konukoglu 2023, FedFA: Federated feature augmentation, ICLR (section 3, eq. 5 to 10): at
    each place `dsu` draws an image's statistics of a channel i with the variance

        (gamma_i + 1) S_i^2,   gamma_i = I v_i / sum over channels of v,   v_i = 1 / (1 + 1 / V_i),

    where S^2 is the variance over the batch and V_i that over clients of the channel's mean
    statistic, each client's a running mean (momentum 0.99) of its batches'.

Clients send the change of their running means, and its square, in the sum, each client counting the
same; from these the server has the mean, from which all go on in the next round, and V.  An unseen
center uses nothing of its own beyond what FedAvg does.

What was chosen: the maps are those behind the first `layers` normalizations, where the paper has
the ends of an encoder's stages.  Running means follow every batch, in the authors' code those that
are augmented.  V is of each channel, as in the text; their code has one for all channels of a
place, which makes every gamma 1.  V is 1 at the start, as there.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.learning import Update
from fedgen_jax.algorithms.local import Local, weigh
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.dsu import drawn
from fedgen_jax.baselines.styles import (
    EPSILON,
    changed_gradient,
    moments,
    sometimes,
    widths_of,
)
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.p = 0.5  # chance that a batch's statistics are drawn at a place
    c.layers = 5  # normalizations, from the first, behind which they are
    c.momentum = 0.99  # of a client's running means, a step
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.fedfa
    widths = widths_of('fedfa', local, h.p, h.layers)
    if not 0 <= h.momentum < 1:
        raise ValueError(f'fedfa.momentum={h.momentum}: from 0 to below 1')
    base = fedavg(local, optimizer('server', c.server))

    def init(key):
        state = base.init(key)
        start = {'mean': 0.0, 'std': 1.0}
        running = [{k: jnp.full(width, x) for k, x in start.items()} for width in widths]
        across = jax.tree.map(jnp.ones_like, running)
        return state._replace(shared={**state.shared, 'styles': (running, across)})

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)
        running, across = shared['styles']

        def change(x, place, key):
            factors = tuple(1 + spread(across[place][k]) for k in ('mean', 'std'))
            new = drawn(x, stream(key, 'draw'), factors)
            told = {k: m.mean((0, 1, 2)) for k, m in zip(('mean', 'std'), moments(x))}
            return sometimes(h.p, stream(key, 'whether'), new, x), jax.lax.stop_gradient(told)

        def gradient(params, batch, tau, key):
            of = changed_gradient(local, h.layers, change)
            return of(params, batch, tau, stream(key, 'fedfa'))

        def end(done):
            statistics_T, told_T = done.aux_T
            sent, private, metrics = base_end(done._replace(aux_T=statistics_T))
            own = jax.tree.map(lambda x, t: followed(x, t, h.momentum), running, list(told_T))
            real = (data.weight.sum() > 0).astype(jnp.float32)
            change = weigh(real, jax.tree.map(jnp.subtract, own, running))
            squares = jax.tree.map(jnp.square, change)
            return {**sent, 'styles': (change, squares), 'clients': real}, private, metrics

        return learning._replace(gradient=gradient), end

    def server_update(state: State, total):
        clients, (running, across) = total['clients'], state.shared['styles']
        change, squares = jax.tree.map(lambda x: x / jnp.maximum(clients, 1), total['styles'])
        found = jax.tree.map(lambda d, s: jnp.maximum(s - d**2, 0), change, squares)
        across = jax.tree.map(lambda old, new: jnp.where(clients > 0, new, old), across, found)
        running = jax.tree.map(jnp.add, running, change)
        own = ('styles', 'clients')
        state = base.server_update(state, {k: v for k, v in total.items() if k not in own})
        return state._replace(shared={**state.shared, 'styles': (running, across)})

    return base._replace(
        init=init, client_update=Update(begin), server_update=server_update, title='FedFA',
        sizes={'base': 'theta', 'styles': 'styles'},
    )


def spread(across_I: jax.Array) -> jax.Array:
    """gamma [I], whose mean is 1: a channel's part of the variance over clients."""
    v_I = 1 / (1 + 1 / (across_I + EPSILON))
    return len(v_I) * v_I / v_I.sum()


def followed(start_I: jax.Array, x_TxI: jax.Array, momentum: float) -> jax.Array:
    """A running mean [I] after T steps."""
    weight_T = (1 - momentum) * momentum ** jnp.arange(len(x_TxI) - 1, -1, -1, dtype=jnp.float32)
    return momentum ** len(x_TxI) * start_I + weight_T @ x_TxI
