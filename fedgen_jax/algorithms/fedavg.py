"""FedAvg and its server optimizers: what FedGen is measured against.

References:
    McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized
    data; Reddi et al. 2021, Adaptive federated optimization (FedAvgM and FedAdam are the
    server optimizers `optax.sgd(lr, momentum)` and `optax.adam(lr)`).
"""

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.algorithms.base import Algorithm, State, server_step
from fedgen_jax.algorithms.local import Local, client_weight, finish, init_model, learn, weigh
from fedgen_jax.random import stream


def fedavg(local: Local, server: optax.GradientTransformation) -> Algorithm:
    """theta <- server step along sum_c w_c (theta_c - theta) / sum_c w_c."""

    def init(key):
        theta = init_model(local, key)
        return State({'theta': theta, 'round': jnp.int32(0)}, server.init({'theta': theta}))

    def init_private(state, client_id):
        return {'id': client_id}

    def client_update(shared, private, data, key):
        factor = local.schedule(shared['round'])
        theta, loss = learn(local, shared['theta'], data, stream(key, 'learn'), factor)
        weight = client_weight(local, data)
        delta = {'theta': jax.tree.map(jnp.subtract, theta, shared['theta'])}
        contribution = {'weight': weight, 'delta': weigh(weight, delta)}
        return contribution, private, {'loss': loss}

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        return finish(local, shared['theta'], unlabelled, labelled, key)

    def server_update(state, total):
        return server_step(server, state, total)

    return Algorithm(init, init_private, client_update, server_update, None, personalize)
