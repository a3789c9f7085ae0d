"""Pooled learning: one model on the images of all seen centers in one place, as no federation has.

It is the oracle beside federated methods.  The one client has the training images of all seen
centers, each on its own canonical input, and learns as a center does by itself (`local_only`), in
as many steps a round as the centers take together.  With one center it is local-only learning to
the bit.  Centers are scored one by one, with their own batch statistics as in every method.

The server meets the images themselves, so no sum can serve it (`sum_only`), and in rounds nothing
is sent.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, next_round
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import Local, init_model, init_statistics, mean_of_steps, weigh

POOLS = True  # `feed` gives the images of all seen centers to one client


def defaults() -> ConfigDict:
    return ConfigDict()


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if c.privacy.clip and not c.privacy.unit:
        raise ValueError(f"algorithm='pooled' with privacy.clip={c.privacy.clip}: there is no "
                         'change of a center to clip: 0')
    return pooled(local._replace(steps=local.steps * num_clients))


def pooled(local: Local) -> Algorithm:
    """The server's model is what its one client learned; of several, the mean."""

    def init(key):
        return State({
            'theta': init_model(local, key), 'round': jnp.int32(0), **init_statistics(local, key)
        }, ())

    def init_private(state, client_id):
        return {}

    def begin(shared, private, data, key):
        def end(done):
            real = (data.weight.sum() > 0).astype(jnp.float32)
            learned = {'theta': done.params}
            if local.keeps_statistics:
                learned['statistics'] = mean_of_steps(done.aux_T)
            contribution = {'weight': real, 'learned': weigh(real, learned)}
            return contribution, private, metrics_of(loss=done.loss)

        return Learning(local, shared['theta'], local.schedule(shared['round'])), end

    def server_update(state: State, sent_C):
        weight = sent_C['weight'].sum()

        def mean(x_C, old):
            return jnp.where(weight > 0, x_C.sum(0) / jnp.maximum(weight, 1), old)

        old = {k: state.shared[k] for k in sent_C['learned']}
        learned = jax.tree.map(mean, sent_C['learned'], old)
        return next_round(state._replace(shared={**state.shared, **learned}))

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        statistics = shared.get('statistics')
        return finish(local, shared['theta'], unlabelled, labelled, key, statistics)

    return Algorithm(
        init, init_private, Update(begin), server_update, None, personalize,
        title='Pooled', keeps=False, server_model=True, sizes={'base': 'theta'}, sum_only=False,
    )
