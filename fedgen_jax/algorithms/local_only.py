"""Local-only learning: every center for itself."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, next_round
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import (
    Local,
    init_model,
    init_statistics,
    mean_of_steps,
)


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

    def begin(shared, private, data, key):
        def end(done):
            own = {'theta': done.params}
            if local.keeps_statistics:
                own['statistics'] = mean_of_steps(done.aux_T)
            return {}, {**private, **own}, metrics_of(loss=done.loss)

        return Learning(local, private['theta'], local.schedule(shared['round'])), end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        statistics = private.get('statistics')
        return finish(local, private['theta'], unlabelled, labelled, key, statistics)

    return Algorithm(
        init, init_private, Update(begin), next_round, None, personalize,
        title='Local only', keeps=True, server_model=False, sizes={'base': 'first'},
        features=True,
    )
