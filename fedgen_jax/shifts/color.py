"""Shifts of color: tone curves, color matrices, stain."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.shifts.base import Shift

# Optical density of hematoxylin, eosin and DAB in red, green and blue, one stain a row
# (Ruifrok & Johnston 2001), each of length 1.
HED = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


def gamma(low: float = 0.7, high: float = 1.5) -> Shift:
    """`image ** g`, g log-uniform in [low, high]; above 1 darkens.  Params: g, a scalar."""

    def sample(key):
        return jnp.exp(jax.random.uniform(key, minval=math.log(low), maxval=math.log(high)))

    def apply(g, key, image_HxWx3, target):
        # exp(g log x) is several times faster than x ** g on a CPU, where g is not constant.
        return jnp.exp(g * jnp.log(jnp.maximum(image_HxWx3, 1e-6))), target

    return Shift(sample, apply)


def brightness(low: float = -0.15, high: float = 0.15) -> Shift:
    """Adds b, uniform in [low, high].  Params: b, a scalar."""

    def sample(key):
        return jax.random.uniform(key, minval=low, maxval=high)

    def apply(b, key, image_HxWx3, target):
        return jnp.clip(image_HxWx3 + b, 0, 1), target

    return Shift(sample, apply)


def contrast(low: float = 0.7, high: float = 1.4) -> Shift:
    """Scales the distance to the image's mean by f, log-uniform in [low, high].  Params: f."""

    def sample(key):
        return jnp.exp(jax.random.uniform(key, minval=math.log(low), maxval=math.log(high)))

    def apply(f, key, image_HxWx3, target):
        mean = image_HxWx3.mean()
        return jnp.clip(mean + f * (image_HxWx3 - mean), 0, 1), target

    return Shift(sample, apply)


def color_matrix(mix: float = 0.06, gain: float = 0.12, bias: float = 0.05) -> Shift:
    """`image @ M + b`: white balance, sensor primaries and black level of a camera.

    M is the identity plus uniform numbers in [-gain, gain] on the diagonal (white balance) and
    in [-mix, mix] off it; b is uniform in [-bias, bias].  Params: (M [3, 3], b [3]).
    """
    spread = jnp.where(jnp.eye(3, dtype=bool), gain, mix)

    def sample(key):
        unit = jax.random.uniform(key, (4, 3), minval=-1, maxval=1)
        return jnp.eye(3) + spread * unit[:3], bias * unit[3]

    def apply(params, key, image_HxWx3, target):
        return jnp.clip(_affine(image_HxWx3, *params), 0, 1), target

    return Shift(sample, apply)


def hed_stain(scale: float = 0.3, bias: float = 0.05, stains=HED) -> Shift:
    """Scales and offsets the amount of each stain (Tellez et al. 2019).

    The image is turned into optical density and that into amounts of the stains; each is
    multiplied by 1 + uniform[-scale, scale] and gets uniform[-bias, bias] added.

    Args:
      scale, bias: ranges; the bias is in units of optical density (natural logarithm).
      stains: [3, 3], the optical density of each stain in red, green and blue, one stain a row.
    Params: (factor [3], offset [3]), one entry a stain.
    """
    stains = np.asarray(stains, np.float32)
    unmix = jnp.asarray(np.linalg.inv(stains))
    stains = jnp.asarray(stains)
    black = 1 / 255  # keeps the density finite, and the shift exact where it changes nothing

    def sample(key):
        unit = jax.random.uniform(key, (2, 3), minval=-1, maxval=1)
        return 1 + scale * unit[0], bias * unit[1]

    def apply(params, key, image_HxWx3, target):
        factor, offset = params
        density = -jnp.log(image_HxWx3 + black)
        density = _affine(density, (unmix * factor[None]) @ stains, offset @ stains)
        return jnp.clip(jnp.exp(-density) - black, 0, 1), target

    return Shift(sample, apply)


def monochrome() -> Shift:
    """The mean of the channels in each: what shifts of gray images end with."""

    def apply(params, key, image_HxWx3, target):
        gray_HxWx1 = (image_HxWx3[..., :1] + image_HxWx3[..., 1:2] + image_HxWx3[..., 2:]) / 3
        return jnp.broadcast_to(gray_HxWx1, image_HxWx3.shape), target

    return Shift(lambda key: (), apply)


def _affine(image_HxWx3, matrix_3x3, bias_3):
    # Spelled out: a dot product over 3 channels is about 40 times slower on a CPU.
    mixed = sum(image_HxWx3[..., c, None] * matrix_3x3[c][None, None] for c in range(3))
    return mixed + bias_3[None, None]
