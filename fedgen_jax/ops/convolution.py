"""How a convolution is lowered: chosen here and nowhere else.

A federation runs clients under `vmap` or `lax.map` and their steps under `lax.scan`: there XLA:CPU
leaves its fast convolution for a naive loop (30 times slower), and `vmap` over a kernel becomes a
grouped convolution.  Slices and matrix products stay fast under all of them.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedgen_jax.ops.depthwise import depthwise


def convolution(x, kernel, strides, padding, *args, **kwargs) -> jax.Array:
    """What every layer calls: `nn.Conv(..., conv_general_dilated=convolution)`."""
    if jax.default_backend() == 'cpu':
        if kwargs.get('feature_group_count', 1) == x.shape[-1] == kernel.shape[-1] > 1:
            refuse_dilation(kwargs)
            return depthwise(x, kernel, strides, padding)
        return conv_as_matmul(x, kernel, strides, padding, *args, **kwargs)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, *args, **kwargs)


MIN_FEATURES = 16  # of `by_tiles`: of fewer, its sums cost more than the products that it saves


def conv_as_matmul(x_BxHxWxI, kernel, strides: Sequence[int], padding, **unused) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC, HWIO and no dilation or groups, by matrix products."""
    kh, kw, in_features, features = kernel.shape
    if x_BxHxWxI.shape[-1] != in_features:
        raise ValueError('grouped convolutions are not supported by conv_as_matmul')
    refuse_dilation(unused)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x_BxHxWxI.shape[1:3], (kh, kw), strides, padding)
    x = jnp.pad(x_BxHxWxI, ((0, 0), *padding, (0, 0)))
    by_tile = (kh, kw, *strides) == (3, 3, 1, 1) and min(in_features, features) >= MIN_FEATURES
    if by_tile and x.dtype == jnp.float32:  # sums of less precise products would cancel
        return by_tiles(x, kernel)
    return by_patches(x, kernel, strides)


def refuse_dilation(options: dict) -> None:
    if any(d != 1 for k in ('lhs_dilation', 'rhs_dilation') for d in options.get(k) or ()):
        raise ValueError('dilated convolutions are not supported on a CPU')


def by_tiles(x_BxHxWxI: jax.Array, kernel_3x3xIxO: jax.Array) -> jax.Array:
    """A 3 x 3 convolution without padding in tiles of 2 x 2 outputs, F(2 x 2, 3 x 3) of Lavin &
    Gray (2016), section 4.1.

    Y = A' [(G g G') * (B' d B)] A: a tile takes 16 products of its 4 x 4 window d, not 36.  Each of
    the 16 is a matrix product over all tiles.  It rounds about as `by_patches` does.
    """
    height, width = (n - 2 for n in x_BxHxWxI.shape[1:3])
    x = jnp.pad(x_BxHxWxI, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    window_4x4 = [_window(rows, 2) for rows in _window(x, 1)]
    kernel_4x4 = [_kernel(*rows) for rows in _kernel(*kernel_3x3xIxO)]
    product_4x4 = [list(map(rows_times_matrix, d, g)) for d, g in zip(window_4x4, kernel_4x4)]
    rows_2x4 = zip(*(_tile(*column) for column in zip(*product_4x4)))
    y = jnp.stack([jnp.stack(_tile(*row), 3) for row in rows_2x4], 2)  # [B, H/2, 2, W/2, 2, O]
    y = y.reshape(x.shape[0], x.shape[1] - 2, x.shape[2] - 2, -1)
    return y[:, :height, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _window(x, axis):
    """B' d along an axis, of all tiles."""
    end = x.shape[axis] - 3
    a, b, c, d = (jax.lax.slice_in_dim(x, i, end + i, 2, axis) for i in range(4))
    return a - c, b + c, c - b, d - b


def _window_forward(x, axis):
    return _window(x, axis), None


def _window_backward(axis, _, g):
    """B g: windows overlap by two.  XLA:CPU is slow at what strided slices are transposed to."""
    a, b, c, d = g
    last, first = ([(0, 0)] * axis + [n] + [(0, 0)] * (3 - axis) for n in ((0, 1), (1, 0)))
    even = jnp.pad(a, last) + jnp.pad(b + c - a, first)
    odd = jnp.pad(b - c - d, last) + jnp.pad(d, first)
    x = jnp.stack([even, odd], axis + 1)
    return (x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :]),)


_window.defvjp(_window_forward, _window_backward)


def _kernel(a, b, c):
    """G g."""
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _tile(a, b, c, d):
    """A' m."""
    return a + b + c, b - c + d


def by_patches(x_BxHxWxI: jax.Array, kernel: jax.Array, strides: Sequence[int]) -> jax.Array:
    """A convolution without padding as one product of patches with the kernel.

    The window's shifted slices stand side by side along the channels, [B, H', W', kh * kw * I],
    times the kernel as a [kh * kw * I, O] matrix.  Of few features, several columns are computed at
    once, from a window so much wider: fewer, longer patches, and a matrix as wide as the CPU likes.
    """
    kh, kw, _, features = kernel.shape
    batch, height, padded, _ = x_BxHxWxI.shape
    width = (padded - kw) // strides[1] + 1
    at_once = columns_at_once(width, kw, features) if strides[1] == 1 else 1
    # Columns first: the second step then copies runs of many numbers, and this one blocks of them.
    x = x_BxHxWxI.reshape(batch, height, padded // at_once, -1)
    x = side_by_side(x, 2, (kw - 1) // at_once + 1, strides[1])
    x = side_by_side(x, 1, kh, strides[0])
    shifted = [
        jnp.pad(kernel, ((0, 0), (i, at_once - 1 - i), (0, 0), (0, 0))) for i in range(at_once)
    ]
    y = rows_times_matrix(x, jnp.stack(shifted, 3).reshape(-1, at_once * features))
    return y.reshape(*y.shape[:2], width, features)


def columns_at_once(width: int, window: int, features: int) -> int:
    """4, 2 or 1 columns of an output that is `width` wide: at most 32 numbers together.

    They divide the width and all but one column of the window, so that blocks of columns tile both.
    """
    fit = [n for n in (4, 2) if n * features <= 32 and not width % n and not (window - 1) % n]
    return fit[0] if fit and window > 1 else 1


def side_by_side(x_BxHxWxI: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    """A window's slices along rows (axis 1) or columns (2), side by side along the channels."""
    if (window, stride) == (1, 1):
        return x_BxHxWxI
    last = x_BxHxWxI.shape[axis] - window
    slices = [
        jax.lax.slice_in_dim(x_BxHxWxI, i, last + i + 1, stride, axis) for i in range(window)
    ]
    return jnp.concatenate(slices, axis=-1)


@jax.custom_vjp
def rows_times_matrix(x: jax.Array, matrix_KxO: jax.Array) -> jax.Array:
    """x [..., K] @ [K, O], with a gradient that XLA:CPU runs twice as fast.

    Left alone, XLA computes the cotangent a second time, transposed, for the matrix's gradient, and
    that product at half the speed.  The barriers keep it from both.
    """
    return x @ matrix_KxO


def _forward(x, matrix_KxO):
    return x @ matrix_KxO, (x, matrix_KxO)


def _backward(kept, g):
    x, matrix_KxO = kept
    g = jax.lax.optimization_barrier(g)
    x_NxK, g_NxO = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    # The product whose rows are the fewer is the faster of the two.
    if x_NxK.shape[1] < g_NxO.shape[1]:
        gradient_KxO = _over_rows(x_NxK, g_NxO)
    else:
        gradient_KxO = jax.lax.optimization_barrier(_over_rows(g_NxO, x_NxK)).T
    return g @ matrix_KxO.T, gradient_KxO


def _over_rows(a, b):
    return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))


rows_times_matrix.defvjp(_forward, _backward)
