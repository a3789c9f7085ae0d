"""Resampling along one axis, written as a small matrix.

A zoom, a blur or a loss of resolution of an image is separable and linear: `A_h @ image @ A_w.T`.
Such matrices multiply before they meet an image, and two small matrix products are many times
faster than a gather on every backend.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

EDGES = ('reflect', 'nearest')
MIN_SCALE = 0.25


@functools.partial(jax.jit, static_argnames=('size', 'edge'))  # traced once, for many networks
def resample_matrix(size: int, scale: jax.Array | float, edge: str = 'reflect') -> jax.Array:
    """The matrix that magnifies a signal by `scale` about its center.

    Cubic interpolation (Keys 1981), widened when it shrinks so that it does not alias. It is the
    identity at scale 1, and differentiable in `scale` (also at 1, where the gradient is that of
    the central difference).

    Args:
      size: length of the signal, H; the result has the same.
      scale: above 1 magnifies, below 1 shrinks; at least `MIN_SCALE`. A scalar, may be traced.
      edge: what lies outside the signal: 'reflect' (d c b a | a b c d | d c b a) or
        'nearest' (a a a a | a b c d | d d d d).

    Returns:
      float32 [H, H]; rows sum to 1.
    """
    scale = jnp.asarray(scale, jnp.float32)
    width = jnp.maximum(1.0, 1.0 / scale)
    return _fold(_cubic(_offsets(source_positions(size, scale)) / width), edge)


def gaussian_matrix(size: int, sigma: jax.Array | float, edge: str = 'reflect') -> jax.Array:
    """The matrix that smooths a signal by a Gaussian of `sigma` pixels: float32 [H, H].

    The identity at sigma 0. Arguments as for `resample_matrix`.
    """
    sigma = jnp.maximum(jnp.asarray(sigma, jnp.float32), 1e-3)
    positions = jnp.arange(size, dtype=jnp.float32)
    return _fold(jnp.exp(-0.5 * (_offsets(positions) / sigma) ** 2), edge)


def resize_matrix(size: int, to: int) -> np.ndarray:
    """The matrix that brings a signal of `size` to another: float32 [to, size]; rows sum to 1.

    Linear interpolation, widened when it shrinks so that it does not alias, as
    `jax.image.resize(..., 'linear')`, which cannot be exported to every format.
    """
    step = size / to
    from_T = (np.arange(to) + 0.5) * step - 0.5
    far_TxS = np.abs(from_T[:, None] - np.arange(size)) / max(step, 1.0)
    weight_TxS = np.maximum(0.0, 1.0 - far_TxS)
    return (weight_TxS / weight_TxS.sum(1, keepdims=True)).astype(np.float32)


def apply_separable(rows_HxH, cols_WxW, image_HxWx3):
    """`rows @ image @ cols.T` for each channel."""
    return jnp.einsum(
        'ih,hwc,jw->ijc', rows_HxH, image_HxWx3, cols_WxW, precision=jax.lax.Precision.HIGHEST
    )


def source_positions(size: int, scale: jax.Array) -> jax.Array:
    """Where each pixel of the magnified signal comes from, in pixels of the original: [H]."""
    center = (size - 1) / 2
    return (jnp.arange(size, dtype=jnp.float32) - center) / scale + center


def nearest_index(positions: jax.Array, size: int, edge: str) -> jax.Array:
    """The pixel nearest to each position, edges handled as in `resample_matrix`: int32 [H]."""
    index = jnp.round(positions).astype(jnp.int32)
    if check_edge(edge) == 'nearest':
        return jnp.clip(index, 0, size - 1)
    index = index % (2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)


def check_edge(edge: str) -> str:
    if edge not in EDGES:
        raise ValueError(f'edge {edge!r} is unknown: choose one of {", ".join(EDGES)}')
    return edge


def _offsets(positions_H: jax.Array) -> jax.Array:
    """Distance of each position to each pixel of a signal that is continued on both sides.

    Five copies in a row, the original in the middle: [H, 5, H].
    """
    size = len(positions_H)
    pixels = jnp.arange(-2 * size, 3 * size, dtype=jnp.float32).reshape(1, 5, size)
    return positions_H[:, None, None] - pixels


def _fold(weight_Hx5xH: jax.Array, edge: str) -> jax.Array:
    """Gives the weights that fall outside the signal to the pixels that are seen there."""
    if check_edge(edge) == 'reflect':
        folded = weight_Hx5xH[:, ::2].sum(1) + weight_Hx5xH[:, 1::2, ::-1].sum(1)
    else:
        before, inside, after = weight_Hx5xH[:, :2], weight_Hx5xH[:, 2], weight_Hx5xH[:, 3:]
        folded = inside.at[:, 0].add(before.sum((1, 2))).at[:, -1].add(after.sum((1, 2)))
    return folded / folded.sum(1, keepdims=True)


def _cubic(x):
    """Keys' kernel (a = -1/2): 1 at 0, 0 at the other integers, once differentiable."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))
