"""The mean of the server's states over the last rounds, for any algorithm.

References:
    Polyak, Juditsky 1992, Acceleration of stochastic approximation by averaging, SIAM J. Control
    Optim.; Izmailov et al. 2018, Averaging weights leads to wider optima and better generalization,
    UAI.
"""

import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.base import Algorithm, State, Tree

# Entries of `shared` that make models.  What steers training, as SCAFFOLD's variate, stays.
SERVED = (
    'theta', 'phi', 'psi', 'embedding', 'pooled', 'normal', 'statistics', 'clusters', 'gaussians',
    'rates', 'context',
)


def averaged(algorithm: Algorithm, share: float, rounds: int) -> Algorithm:
    """The algorithm, which serves its states' mean over the last `share` of its `rounds`.

    With n = max(1, round(share * rounds)), and s_r the state after round r,

        served = (s_(rounds-n+1) + ... + s_rounds) / n.

    The rounds are those of `algorithm` to the bit: the mean is kept beside them, in
    `State.optimizer`, and takes their place when the last one is done.  So such a run cannot be
    made longer.  The generator's descriptor network is averaged with what is normalized by it.

    An algorithm without a model at the server has nothing to average, and is returned as it is; so
    is any at share 0.  Raises ValueError where `share` is no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f'server.average={share}: a share of the rounds, from 0 to 1')
    if not (share and algorithm.server_model):
        return algorithm
    first = rounds - max(1, round(share * rounds))

    def init(key):
        state = algorithm.init(key)
        zeros = jax.tree.map(jnp.zeros_like, served(state))
        return state._replace(optimizer={'own': state.optimizer, 'mean': zeros})

    def server_update(state, total):
        kept = state.optimizer
        state = algorithm.server_update(state._replace(optimizer=kept['own']), total)
        done = state.shared['round']
        # A running mean of equal numbers is that number to the bit, as a divided sum is not.
        weight = jnp.where(done > first, 1 / jnp.maximum(done - first, 1).astype(jnp.float32), 0)
        mean = jax.tree.map(lambda m, x: m + weight * (x - m), kept['mean'], served(state))
        last = jax.tree.map(lambda m, x: jnp.where(done == rounds, m, x), mean, served(state))
        return state._replace(
            shared={**state.shared, **last}, optimizer={'own': state.optimizer, 'mean': mean}
        )

    return algorithm._replace(init=init, server_update=server_update)


def served(state: State) -> Tree:
    """What of a state is averaged."""
    return {k: state.shared[k] for k in SERVED if k in state.shared}
