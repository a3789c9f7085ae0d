"""MixStyle: FedAvg whose clients mix the channel statistics of their images' early maps.

References:
    Zhou et al. 2021, Domain generalization with MixStyle, ICLR (eq. 3 to 6): with mu and sigma an
    image's mean and standard deviation of a channel, mu~ and sigma~ those of another image of the
    batch, and l from Beta(alpha, alpha), an image each,

        x <- (l sigma + (1 - l) sigma~) (x - mu) / sigma + l mu + (1 - l) mu~,

    with probability p for a whole batch, in training alone; no gradient goes through statistics.

An unseen center uses nothing of its own beyond what FedAvg does.

What was chosen: the maps are those behind the first `layers` normalizations, where the paper has
the ends of a ResNet's first stages.  The other image is any of the batch (the paper's variant
without domain labels), which is one client's.
"""

import jax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.styles import (
    changed_gradient,
    moments,
    sometimes,
    widths_of,
    with_moments,
)
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.p = 0.5  # chance that a batch's maps are mixed at a place
    c.alpha = 0.1  # of the Beta distribution of mixing weights
    c.layers = 2  # normalizations, from the first, behind which maps are mixed
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.mixstyle
    widths_of('mixstyle', local, h.p, h.layers)
    if h.alpha <= 0:
        raise ValueError(f'mixstyle.alpha={h.alpha}: above 0')

    def change(x, place, key):
        mixed = mix(x, h.alpha, stream(key, 'mix'))
        return sometimes(h.p, stream(key, 'whether'), mixed, x), {}

    def gradient(params, batch, tau, key):
        value, grads = changed_gradient(local, h.layers, change)(
            params, batch, tau, stream(key, 'mixstyle')
        )
        return (value[0], value[1][0]), grads

    base = fedavg(local, optimizer('server', c.server), lambda shared: gradient)
    return base._replace(title='MixStyle')


def mix(x_BxHxWxI: jax.Array, alpha: float, key: jax.Array) -> jax.Array:
    """The map with each image's moments mixed with another's."""
    own = jax.tree.map(jax.lax.stop_gradient, moments(x_BxHxWxI))
    num = len(x_BxHxWxI)
    share = jax.random.beta(stream(key, 'share'), alpha, alpha, (num, 1, 1, 1))
    other_B = jax.random.permutation(stream(key, 'other'), num)
    to = jax.tree.map(lambda m: share * m + (1 - share) * m[other_B], own)
    return with_moments(x_BxHxWxI, own, to)
