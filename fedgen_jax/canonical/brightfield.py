"""Bright-field microscopy of stained cells: background, density of the stain, magnification.

An image's optical density is taken relative to its own background, the brightest of its pixels.
The nuclei are the darkest of three classes of pixels, by Otsu's thresholds of an index that tells
azure from hemoglobin.  Their density says how strong the stain is, their area the magnification.
All of it is measured in one image by itself, so that it adds over images.

References:
    Otsu 1979, A threshold selection method from gray-level histograms, eq. 12 and section V (two
    thresholds).
"""

import jax
import jax.numpy as jnp

from fedgen_jax.canonical.base import Canonical

DARKEST = 1 / 255  # light below this is not measured
BLACK = 8 / 255  # bars and stamps around an image: no part of it
BINS = 32
# What moments are divided by, to lie in [-1, 1]; there are nine of them.
BACKGROUND, DENSITY, AREA = 6.0, 4.0, 8.0
NORM = 3.0
CONTRAST = 0.1  # optical density by which nuclei stand out, at least
GAIN = 3.0  # the most that a channel's density is stretched or shrunk by


def brightfield(area: float = 0.0) -> Canonical:
    """A background, a gain of optical density for each channel, and a magnification.

    area: the share of the image that a center's nuclei fill afterwards, in the geometric mean; 0:
        as much as the reference's do.
    """
    return Canonical(_moments, lambda own, reference: _solve(own, reference, area), _apply)


def _density(light):
    return -jnp.log(jnp.maximum(light, DARKEST))


def _moments(image_HxWx3):
    light_Px3 = image_HxWx3.reshape(-1, 3)
    real_P = 1 - _near_black(image_HxWx3).reshape(-1)
    back_3 = _background(light_Px3, real_P)
    density_Px3 = _density(light_Px3) - back_3[None]
    index_P = density_Px3[:, 0] + density_Px3[:, 1] - density_Px3[:, 2]
    nucleus_P = real_P * _darkest_class(index_P, real_P)

    pixels, dark = real_P.sum(), nucleus_P.sum()
    area = dark / len(real_P)
    inside_3 = (nucleus_P[:, None] * density_Px3).sum(0) / jnp.maximum(dark, 1)
    seen = pixels > 0.25 * len(real_P)
    found = seen & (inside_3[:2].mean() > CONTRAST) & (dark >= 4)
    seen, found = (x.astype(jnp.float32) for x in (seen, found))
    log_3 = jnp.log(jnp.clip(inside_3, 0.02, 10.0))
    of_nuclei = jnp.concatenate([log_3 / DENSITY, jnp.log(jnp.maximum(area, 1e-3))[None] / AREA])
    values = [seen[None], seen * back_3 / BACKGROUND, found[None], found * of_nuclei]
    return jnp.concatenate(values) / NORM


def _near_black(image_HxWx3):
    """1 at black pixels and beside them, where resizing mixed them with others."""
    black_HxW = (image_HxWx3.max(-1) <= BLACK).astype(jnp.float32)
    return jax.lax.reduce_window(black_HxW, 0.0, jax.lax.max, (3, 3), (1, 1), 'SAME')


def _background(light_Px3, real_P):
    """Optical density [3] of the brightest fifth of an image's pixels, without its extremes."""
    mean_P = jnp.where(real_P > 0, light_Px3.mean(-1), -1.0)
    count = real_P.sum()
    sorted_P = jnp.sort(mean_P)[::-1]
    high, low = (sorted_P[(share * count).astype(jnp.int32)] for share in (0.03, 0.2))
    use_P = jnp.where((mean_P <= high) & (mean_P >= low), real_P, 0)
    return (use_P[:, None] * _density(light_Px3)).sum(0) / jnp.maximum(use_P.sum(), 1)


def _darkest_class(value_P, real_P):
    """1 where a pixel lies above the higher of Otsu's two thresholds."""
    low = jnp.where(real_P > 0, value_P, jnp.inf).min()
    high = jnp.where(real_P > 0, value_P, -jnp.inf).max()
    place_P = (value_P - low) / jnp.maximum(high - low, 1e-6) * (BINS - 0.01)
    bin_P = jnp.clip(place_P.astype(jnp.int32), 0, BINS - 1)
    share_Q = (jax.nn.one_hot(bin_P, BINS) * real_P[:, None]).sum(0) / jnp.maximum(real_P.sum(), 1)
    at_Q = jnp.arange(BINS, dtype=jnp.float32)
    weight_Q, mean_Q = jnp.cumsum(share_Q), jnp.cumsum(share_Q * at_Q)

    def between(weight, mean):
        return jnp.where(weight > 1e-4, mean**2 / jnp.maximum(weight, 1e-4), 0)

    below = between(weight_Q, mean_Q)[:, None]
    middle = between(weight_Q[None] - weight_Q[:, None], mean_Q[None] - mean_Q[:, None])
    above = between(1 - weight_Q, mean_Q[-1] - mean_Q)[None]
    ordered = at_Q[:, None] < at_Q[None]
    best = jnp.argmax(jnp.where(ordered, below + middle + above, -1.0)) % BINS
    return (bin_P > best).astype(jnp.float32)


def _solve(mean_M, reference_M, area):
    own, other = NORM * mean_M, NORM * reference_M
    seen, found = (jnp.minimum(own[i], other[i]) > 0 for i in (0, 4))

    def mean(m_M, count, part):
        return m_M[part] / jnp.maximum(m_M[count], 1e-6)

    back, back_too = (BACKGROUND * mean(m, 0, slice(1, 4)) for m in (own, other))
    dense, dense_too = (mean(m, 4, slice(5, 9)) for m in (own, other))
    ratio = dense_too - dense
    log_gain_3 = jnp.where(found, DENSITY * ratio[:3], 0.0)
    gain_3 = jnp.exp(jnp.clip(log_gain_3, -jnp.log(GAIN), jnp.log(GAIN)))
    goal = jnp.log(area) / AREA if area else dense_too[3]
    log_zoom = jnp.where(found, 0.5 * AREA * (goal - dense[3]), 0.0)
    shift_3 = jnp.where(seen, back_too, back)
    return {'from': back, 'gain': gain_3, 'to': shift_3}, log_zoom


def _apply(colors, image_HxWx3):
    """exp(-(gain * density against the background + the reference's background)); black stays."""
    density = _density(image_HxWx3) - colors['from'][None, None]
    moved = jnp.exp(-(colors['gain'][None, None] * density + colors['to'][None, None]))
    return jnp.where(image_HxWx3.max(-1, keepdims=True) > BLACK, moved, image_HxWx3)
