"""Privacy of whole clients: contributions are clipped, and the server's sum gets noise.

    round:  sum over a Poisson cohort of clip_C(contribution) + N(0, sigma^2 C^2),
            every weight and count in it the public constant q n

Whatever a client does inside its round is bounded by the clip, so that any local learning goes.
It is for many clients: with a few dozen the noise drowns the sum.  The server is trusted to add
the noise, which it draws from a secret of its own, and to keep what clients send to itself.

References:
    McMahan et al. 2018, Learning differentially private recurrent language models; Andrew et al.
    2021, Differentially private learning with adaptive clipping (algorithm 1, theorem 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.privacy.base import Protection, clip_contribution
from fedgen_jax.privacy.noise import uniforms
from fedgen_jax.random import stream

Tree = Any
COUNTS = ('weight', 'count')  # entries of a contribution that tell how much a client has
RATE, QUANTILE = 0.2, 0.5  # of the adaptive clip: how fast it follows which share of the norms


def alike(tree: Tree, weight: Any = 1.0) -> Tree:
    """A contribution as if each client weighed 1: divided by its weights, which become 0.

    A part with a 'count' of its own is divided by that.
    """
    if not isinstance(tree, dict):
        return jax.tree.map(lambda x: x / jnp.maximum(weight, 1e-9), tree)
    own = tree.get('count', tree.get('weight', weight))
    return {
        k: jax.tree.map(jnp.zeros_like, v) if k in COUNTS else alike(v, own)
        for k, v in tree.items()
    }


def counted(tree: Tree, number: jax.Array) -> Tree:
    """A sum in which each weight and count is `number`."""
    if not isinstance(tree, dict):
        return tree
    return {
        k: jnp.asarray(number, v.dtype) if k in COUNTS else counted(v, number)
        for k, v in tree.items()
    }


def adapted(limit: jax.Array, share: jax.Array) -> jax.Array:
    """The next clip, given the share of contributions within this one."""
    return limit * jnp.exp(-RATE * (share - QUANTILE))


def deviation_of_share(expected: Any) -> Any:
    """The noise on the number of contributions within the clip: a twentieth of a cohort."""
    return expected / 20


def sigma_beside_share(sigma: Any, expected: Any) -> Any:
    """The noise multiplier of contributions that, with the share's noise, costs as `sigma` alone.

    Their sum and the sum of b - 1/2 are one release (Andrew et al. 2021, theorem 1).
    """
    return (sigma**-2 - (2 * deviation_of_share(expected)) ** -2) ** -0.5


def check_adaptive(sigma: float, expected: float) -> None:
    """Raises ValueError where a cohort is too small to tell how many lie within the clip."""
    if sigma >= 2 * deviation_of_share(expected):
        raise ValueError(
            f'privacy.adaptive: {expected:.3g} clients a round are too few for sigma {sigma:.3g}: '
            'set privacy.clip, or a larger rate'
        )


def poisson_cohort(key: bytes, num_clients: int, rate: float, cap: int) -> np.ndarray:
    """int32 [cap]: the numbers of a round's clients, sorted, then `num_clients` for empty places.

    Each client is in it with probability `rate`, by itself; of more than `cap` a random part.
    """
    u = uniforms(key, num_clients)
    chosen = np.flatnonzero(u < rate)
    chosen = np.sort(chosen[np.argsort(u[chosen])[:cap]])
    return np.concatenate([chosen, np.full(cap - len(chosen), num_clients)]).astype(np.int32)


def client_level(clip: float, adaptive: bool) -> Protection:
    """A part of the chain; its state is filled in before the first round (`begin`)."""

    def init():
        zero = jnp.zeros(())
        return {
            'clip': jnp.float32(clip), 'sigma': zero, 'expected': zero,
            'secret': jnp.zeros(2, jnp.uint32),
        }

    def client(state, message, key, client_id, id_K):
        sent, within = clip_contribution(alike(message.contribution), state['clip'])
        share = within.astype(jnp.float32) - 0.5 if adaptive else jnp.zeros(())
        return message._replace(contribution={'sent': sent, 'within': share})

    def server(state, message, key):
        hidden = jax.random.wrap_key_data(state['secret'])
        for word in jax.random.key_data(key):
            hidden = jax.random.fold_in(hidden, word)
        sigma, expected = state['sigma'], state['expected']
        if adaptive:
            sigma = sigma_beside_share(sigma, expected)
        noisy = with_noise(message.contribution['sent'], sigma * state['clip'], hidden)
        if adaptive:
            noise = jax.random.normal(stream(hidden, 'within'))
            within = message.contribution['within'] + deviation_of_share(expected) * noise
            share = within / expected + 0.5
            state = {**state, 'clip': adapted(state['clip'], share)}
        return message._replace(contribution=counted(noisy, expected)), state

    return Protection(
        init=init,
        client=client,
        server=server,
        statistic=lambda s: s,
        spent=lambda rounds, cohort, num_clients: {},
    )


def begin(state: Tree, sigma: float, expected: float, secret: bytes) -> Tree:
    """The protection's state of a run: its noise, q n clients a round, and the server's secret."""
    return {
        'clip': state['clip'], 'sigma': jnp.float32(sigma), 'expected': jnp.float32(expected),
        'secret': jnp.asarray(np.frombuffer(secret[:8], np.uint32)),
    }


def with_noise(tree: Tree, deviation: jax.Array, key: jax.Array) -> Tree:
    """Normal noise on every number of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    noisy = [
        x + deviation * jax.random.normal(jax.random.fold_in(key, i), x.shape)
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, noisy)


def silent(update: Any) -> Any:
    """A client's update that tells no metrics, which no clip bounds."""
    def of(shared, private, data, key):
        contribution, private, _ = update(shared, private, data, key)
        return contribution, private, {}

    return of


