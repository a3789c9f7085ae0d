"""SCAFFOLD: FedAvg with control variates against the drift of clients.

References:
    Karimireddy et al. 2020, SCAFFOLD: Stochastic controlled averaging for federated learning,
    ICML (algorithm 1; option II renews a variate by c_i <- c_i - c + (x - y_i) / (K eta)).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.learning import Learning, Update
from fedgen_jax.algorithms.local import Local, contribution_of, task_gradient, weigh
from fedgen_jax.algorithms.optimizers import optimizer


def defaults() -> ConfigDict:
    return ConfigDict()


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if c.client.optimizer != 'sgd':
        raise ValueError("algorithm='scaffold': its variates are gradients: client.optimizer='sgd'")
    reach = c.client.lr * steps_with(c.client.momentum, c.local_steps)
    return scaffold(local, optimizer('server', c.server), reach, num_clients)


def steps_with(momentum: float, steps: int) -> float:
    """How many plain steps along one gradient go as far as `steps` with momentum."""
    return sum((1 - momentum**t) / (1 - momentum) for t in range(1, steps + 1))


def scaffold(
    local: Local, server: optax.GradientTransformation, reach: float, num_clients: int
) -> Algorithm:
    """A client's step goes along its gradient - c_i + c; c is the mean of all clients' c_i.

    reach: how far a client's steps go along a gradient of norm 1: K eta of the paper, and more with
        momentum.  A variate is the mean gradient of the steps as they were taken, after clipping.
    num_clients: of the federation, of which a round may have a part.

    The paper's clients weigh alike.  Where models are summed by their numbers of examples
    (`weighting`), c is the mean of the c_i by these too: else the steps' fixed point would be that
    of the clients' plain mean.  A round moves it by its clients' mean change times their share of
    all clients.
    """
    base = fedavg(local, server)

    def init(key):
        state = base.init(key)
        zeros = jax.tree.map(jnp.zeros_like, state.shared['theta'])
        return state._replace(shared={**state.shared, 'variate': zeros})

    def init_private(state, client_id):
        return {'id': client_id, 'variate': state.shared['variate']}

    def begin(shared, private, data, key):
        own, mean, old = private['variate'], shared['variate'], shared['theta']
        factor = local.schedule(shared['round'])

        def gradient(params, batch, tau, key):
            value, grads = task_gradient(local)(params, batch, tau, key)
            return value, jax.tree.map(lambda g, i, c: g + (c - i), grads, own, mean)

        def end(done):
            new, moved = done.params, jnp.maximum(reach * factor, 1e-12)
            renewed = jax.tree.map(lambda i, c, x, y: i - c + (x - y) / moved, own, mean, old, new)
            real = (data.weight.sum() > 0).astype(jnp.float32)
            renewed = jax.tree.map(lambda a, b: jnp.where(real > 0, a, b), renewed, own)
            change = jax.tree.map(jnp.subtract, renewed, own)
            sent = contribution_of(local, data, {'theta': new}, {'theta': old}, done.aux_T)
            contribution = {
                **sent, 'variate': weigh(sent['weight'], change), 'clients': real,
            }
            return contribution, {**private, 'variate': renewed}, {'loss': done.loss}

        return Learning(local, old, factor, gradient), end

    def server_update(state: State, total):
        part = total['clients'] / num_clients / jnp.maximum(total['weight'], 1e-9)
        variate = jax.tree.map(
            lambda c, change: c + part * change, state.shared['variate'], total['variate']
        )
        of_base = {k: v for k, v in total.items() if k not in ('variate', 'clients')}
        state = base.server_update(state, of_base)
        return state._replace(shared={**state.shared, 'variate': variate})

    return base._replace(
        features=True,
        init=init, init_private=init_private, client_update=Update(begin),
        server_update=server_update, title='SCAFFOLD', keeps=True,
        sizes={'base': 'theta', 'variate': 'variate'},
    )
