"""Modalities without a stain: the brightness and contrast of what is not black.

`gray` is for X-ray, MR and CT, `fundus` for photographs of the retina.  What is black, around the
body or the field of view, stays black.  They leave the magnification as it is, whatever the `area`.
"""

import jax.numpy as jnp

from fedgen_jax.canonical.base import Canonical

BLACK = 8 / 255
CONTRAST = 3.0  # the most that contrast is stretched or shrunk by


def gray(area: float = 0.0) -> Canonical:
    """One brightness and one contrast for all three channels."""
    return Canonical(lambda x: _moments(x, together=True), _solve, _apply)


def fundus(area: float = 0.0) -> Canonical:
    """A brightness and a contrast for each channel."""
    return Canonical(lambda x: _moments(x, together=False), _solve, _apply)


def _moments(image_HxWx3, together):
    """[7]: whether there is anything, and the mean and mean square of each channel; norm <= 1."""
    x_Px3 = image_HxWx3.reshape(-1, 3)
    if together:
        x_Px3 = jnp.broadcast_to(x_Px3.mean(-1, keepdims=True), x_Px3.shape)
    real_P = (x_Px3.max(-1) > BLACK).astype(jnp.float32)
    count = jnp.maximum(real_P.sum(), 1)
    first_3, second_3 = ((real_P[:, None] * x).sum(0) / count for x in (x_Px3, x_Px3**2))
    seen = (real_P.sum() > 0.02 * len(real_P)).astype(jnp.float32)
    return jnp.concatenate([seen[None], seen * first_3, seen * second_3]) / 7**0.5


def _solve(mean_M, reference_M):
    there = jnp.minimum(mean_M[0], reference_M[0]) > 0

    def level(m_M):
        m_M = m_M / jnp.maximum(m_M[0], 1e-6)
        return m_M[1:4], jnp.sqrt(jnp.maximum(m_M[4:] - m_M[1:4] ** 2, 1e-6))

    (own, spread), (other, spread_too) = level(mean_M), level(reference_M)
    gain = jnp.clip(spread_too / spread, 1 / CONTRAST, CONTRAST)
    colors = {'gain': gain, 'bias': other - gain * own}
    unchanged = {'gain': jnp.ones(3), 'bias': jnp.zeros(3)}
    return {k: jnp.where(there, colors[k], unchanged[k]) for k in colors}, jnp.float32(0)


def _apply(colors, image_HxWx3):
    black = image_HxWx3.max(-1, keepdims=True) <= BLACK
    moved = colors['gain'][None, None] * image_HxWx3 + colors['bias'][None, None]
    return jnp.where(black, image_HxWx3, jnp.clip(moved, 0, 1))
