"""FedAvg and its server optimizers, and local-only learning: what FedGen is measured against.

References:
    McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized
    data; Reddi et al. 2021, Adaptive federated optimization (FedAvgM and FedAdam are the
    server optimizers `optax.sgd(lr, momentum)` and `optax.adam(lr)`).
"""

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.algorithms.base import (
    Algorithm,
    Local,
    State,
    client_weight,
    finish,
    init_model,
    learn,
    weigh,
)
from fedgen_jax.engine.random import stream


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


def server_step(server: optax.GradientTransformation, state: State, total) -> State:
    """One step of the server's optimizer, the mean change being the negative gradient."""
    weight = jnp.maximum(total['weight'], 1e-9)
    learned = {k: state.shared[k] for k in total['delta']}
    gradient = jax.tree.map(lambda d: -d / weight, total['delta'])
    updates, optimizer = server.update(gradient, state.optimizer, learned)
    return next_round(State({**state.shared, **optax.apply_updates(learned, updates)}, optimizer))


def next_round(state: State, total=None) -> State:
    """The state with its round counted."""
    return state._replace(shared={**state.shared, 'round': state.shared['round'] + 1})


def local_only(local: Local) -> Algorithm:
    """Every client learns alone, from the same first weights; nothing is sent.

    An unseen client has no model of its own: it borrows a seen client's (`private`).
    """

    def init(key):
        return State({'first': init_model(local, key), 'round': jnp.int32(0)}, ())

    def init_private(state, client_id):
        return {'id': client_id, 'theta': state.shared['first']}

    def client_update(shared, private, data, key):
        factor = local.schedule(shared['round'])
        theta, loss = learn(local, private['theta'], data, stream(key, 'learn'), factor)
        return {}, {**private, 'theta': theta}, {'loss': loss}

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        return finish(local, private['theta'], unlabelled, labelled, key)

    return Algorithm(init, init_private, client_update, next_round, None, personalize)
