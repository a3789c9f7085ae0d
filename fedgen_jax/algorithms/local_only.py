"""Local-only learning: every center for itself."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, next_round
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import (
    Local,
    init_model,
    init_statistics,
    learn,
    mean_of_steps,
    metrics_of,
)
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    return ConfigDict()


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    return local_only(local)


def local_only(local: Local) -> Algorithm:
    """Every client learns alone, from the same first weights; nothing is sent.

    An unseen client has no model of its own: it borrows a seen client's (`private`).
    """

    def init(key):
        first = {'first': init_model(local, key), **init_statistics(local, key)}
        return State({**first, 'round': jnp.int32(0)}, ())

    def init_private(state, client_id):
        own = {k: v for k, v in state.shared.items() if k == 'statistics'}
        return {'id': client_id, 'theta': state.shared['first'], **own}

    def client_update(shared, private, data, key):
        factor = local.schedule(shared['round'])
        theta, loss, statistics_T = learn(
            local, private['theta'], data, stream(key, 'learn'), factor
        )
        own = {}
        if local.keeps_statistics:
            own['statistics'] = mean_of_steps(statistics_T)
        return {}, {**private, 'theta': theta, **own}, metrics_of(loss=loss)

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        statistics = private.get('statistics')
        return finish(local, private['theta'], unlabelled, labelled, key, statistics)

    return Algorithm(
        init, init_private, client_update, next_round, None, personalize,
        title='Local only', keeps=True, server_model=False, sizes={'base': 'first'},
    )
