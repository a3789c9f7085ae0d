"""Local-only learning: every center for itself."""

import jax.numpy as jnp

from fedgen_jax.algorithms.base import Algorithm, State, next_round
from fedgen_jax.algorithms.local import Local, finish, init_model, learn
from fedgen_jax.random import stream


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
