"""FedAvg and its server optimizers.

References:
    McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized
    data; Reddi et al. 2021, Adaptive federated optimization (FedAvgM and FedAdam are the
    server optimizers `optax.sgd(lr, momentum)` and `optimizers.fedadam(lr)`).
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree, server_step
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import (
    Gradient,
    Local,
    contribution_of,
    init_model,
    init_statistics,
)
from fedgen_jax.algorithms.optimizers import optimizer


def defaults() -> ConfigDict:
    return ConfigDict()


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    name = 'FedAdam' if c.server.optimizer == 'fedadam' else 'FedAvg'
    if c.server.optimizer == 'sgd' and c.server.momentum:
        name = 'FedAvgM'
    return fedavg(local, optimizer('server', c.server))._replace(title=name, features=True)


def fedavg(
    local: Local,
    server: optax.GradientTransformation,
    gradient_at: Callable[[Tree], Gradient] | None = None,
) -> Algorithm:
    """theta <- server step along sum_c w_c (theta_c - theta) / sum_c w_c.

    gradient_at: shared -> the gradient of a client's steps; default: the task's.
    """

    def init(key):
        theta = init_model(local, key)
        shared = {'theta': theta, 'round': jnp.int32(0), **init_statistics(local, key)}
        return State(shared, server.init({'theta': theta}))

    def init_private(state, client_id):
        return {'id': client_id}

    def begin(shared, private, data, key):
        gradient = gradient_at and gradient_at(shared)
        theta, factor = shared['theta'], local.schedule(shared['round'])

        def end(done):
            new, old = {'theta': done.params}, {'theta': theta}
            contribution = contribution_of(local, data, new, old, done.aux_T)
            return contribution, private, metrics_of(loss=done.loss)

        return Learning(local, theta, factor, gradient), end

    def server_update(state, total):
        return server_step(server, state, total)

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        statistics = shared.get('statistics')
        return finish(local, shared['theta'], unlabelled, labelled, key, statistics)

    return Algorithm(
        init, init_private, Update(begin), server_update, None, personalize,
        title='FedAvg', keeps=False, server_model=True, sizes={'base': 'theta'},
    )
