"""Noise.  Its level belongs to the virtual center; the draw differs from image to image.

gray: whether the channels of a pixel have one draw, as those of a gray image must.
"""

import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.shifts.base import Shift

_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 1024) for i in range(1024)], np.float32)
_QUANTILES /= _QUANTILES.std()


def gaussian(low: float = 0.0, high: float = 0.06, gray: bool = False) -> Shift:
    """Adds normal noise, its standard deviation uniform in [low, high].  Params: the deviation."""

    def sample(key):
        return jax.random.uniform(key, minval=low, maxval=high)

    def apply(deviation, key, image_HxWx3, target):
        return jnp.clip(image_HxWx3 + deviation * _normal(key, image_HxWx3, gray), 0, 1), target

    return Shift(sample, apply)


def poisson(low: float = 100.0, high: float = 2000.0, gray: bool = False) -> Shift:
    """Shot noise: intensity 1 is this many photons, log-uniform in [low, high].

    The normal approximation, with variance intensity / photons: quick and differentiable,
    and indistinguishable at the counts of a camera.  Params: photons, a scalar.
    """

    def sample(key):
        return jnp.exp(jax.random.uniform(key, minval=math.log(low), maxval=math.log(high)))

    def apply(photons, key, image_HxWx3, target):
        return _add(key, image_HxWx3, image_HxWx3 / photons, gray), target

    return Shift(sample, apply)


def sensor(shot: float = 0.06, readout: float = 0.03, gray: bool = False) -> Shift:
    """Shot and read-out noise in one draw: variance a^2 intensity + b^2 (Foi et al. 2008).

    a is uniform in [0, shot] (1 / sqrt(photons)), b in [0, readout].  Params: (a, b).
    """

    def sample(key):
        unit = jax.random.uniform(key, (2,))
        return shot * unit[0], readout * unit[1]

    def apply(params, key, image_HxWx3, target):
        a, b = params
        return _add(key, image_HxWx3, a**2 * image_HxWx3 + b**2, gray), target

    return Shift(sample, apply)


def rician(low: float = 0.0, high: float = 0.06, gray: bool = False) -> Shift:
    """The magnitude of a complex signal with normal noise, as in MRI (Gudbjartsson & Patz 1995).

    The deviation of each part is uniform in [low, high].  Params: the deviation, a scalar.
    """

    def sample(key):
        return jax.random.uniform(key, minval=low, maxval=high)

    def apply(deviation, key, image_HxWx3, target):
        k1, k2 = jax.random.split(key)
        real = image_HxWx3 + deviation * _normal(k1, image_HxWx3, gray)
        imaginary = deviation * _normal(k2, image_HxWx3, gray)
        # The small number keeps the gradient finite at 0.
        return jnp.clip(jnp.sqrt(real**2 + imaginary**2 + 1e-12), 0, 1), target

    return Shift(sample, apply)


def speckle(low: float = 0.0, high: float = 0.2, gray: bool = False) -> Shift:
    """Multiplies by 1 plus normal noise, its deviation uniform in [low, high].  Params: that."""

    def sample(key):
        return jax.random.uniform(key, minval=low, maxval=high)

    def apply(deviation, key, image_HxWx3, target):
        return _add(key, image_HxWx3, (deviation * image_HxWx3) ** 2, gray), target

    return Shift(sample, apply)


def _add(key, image_HxWx3, variance_HxWx3, gray):
    # The small number keeps the gradient finite at 0.
    noise = jnp.sqrt(variance_HxWx3 + 1e-12) * _normal(key, image_HxWx3, gray)
    return jnp.clip(image_HxWx3 + noise, 0, 1)


def _normal(key, image_HxWx3, gray):
    """Standard normal numbers of the image's shape, each one of 1024 quantiles.

    Random bits and the inverse error function are the most expensive part of any shift on a CPU.
    One word per pixel gives each channel ten bits (finer than an image of 8 bits can show), and a
    table turns them into a normal number: a tenth of the cost.
    """
    word_HxW = jax.random.bits(key, image_HxWx3.shape[:2])
    places = np.array([[[0, 0, 0] if gray else [0, 10, 20]]], np.uint32)
    ten_bits = (word_HxW[..., None] >> places) & np.uint32(1023)
    return jnp.asarray(_QUANTILES)[ten_bits]
