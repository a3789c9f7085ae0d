"""DSU: FedAvg whose clients draw the channel statistics of their images' maps.

References:
    Li et al. 2022, Uncertainty modeling for out-of-distribution generalization, ICLR (eq. 3 to 8):
    with mu and sigma an image's mean and standard deviation of a channel, and S_mu^2 and S_sigma^2
    their variances over the batch,

        x <- gamma (x - mu) / sigma + beta,   beta ~ N(mu, S_mu^2),  gamma ~ N(sigma, S_sigma^2),

    with probability p for a whole batch, in training alone; gradients go through all statistics.

An unseen center uses nothing of its own beyond what FedAvg does.

What was chosen: the maps are those behind the first `layers` normalizations, where the paper has
the ends of a ResNet's stem and stages.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.styles import (
    EPSILON,
    changed_gradient,
    moments,
    sometimes,
    widths_of,
    with_moments,
)
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.p = 0.5  # chance that a batch's statistics are drawn at a place
    c.layers = 6  # normalizations, from the first, behind which they are
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.dsu
    widths_of('dsu', local, h.p, h.layers)

    def change(x, place, key):
        new = drawn(x, stream(key, 'draw'))
        return sometimes(h.p, stream(key, 'whether'), new, x), {}

    def gradient(params, batch, tau, key):
        value, grads = changed_gradient(local, h.layers, change)(
            params, batch, tau, stream(key, 'dsu')
        )
        return (value[0], value[1][0]), grads

    base = fedavg(local, optimizer('server', c.server), lambda shared: gradient)
    return base._replace(title='DSU')


def drawn(
    x_BxHxWxI: jax.Array, key: jax.Array, wider: tuple[jax.Array, jax.Array] | None = None
) -> jax.Array:
    """The map with each image's moments drawn around its own.

    wider: factors [I] of the two variances over the batch; None: 1.
    """
    own = moments(x_BxHxWxI)

    def draw(m, name, factor):
        variance = m.var(0, ddof=1, keepdims=True) if len(m) > 1 else jnp.zeros_like(m)
        spread = jnp.sqrt(factor * (variance + EPSILON))
        return m + spread * jax.random.normal(stream(key, name), m.shape)

    one = jnp.ones(x_BxHxWxI.shape[-1])
    by = [factor[None, None, None] for factor in wider or (one, one)]
    return with_moments(x_BxHxWxI, own, (draw(own[0], 'mean', by[0]), draw(own[1], 'std', by[1])))
