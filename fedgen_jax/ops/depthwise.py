"""A depthwise convolution as a sum of shifted slices, for XLA:CPU.

In the loops of a federation (clients under `lax.map`, their steps under `lax.scan`) XLA:CPU runs a
grouped convolution naively, and its kernel's gradient worst of all.  Forward and gradient of nine
depthwise layers of EfficientNet-Lite0 at 96 x 96, 8 images, summed, in ms on 2 shared cores (XLA's
row while they were less busy, which favors it):

    gradient of                    the images   the kernel    both
    XLA's grouped convolution             121        7,888
    slices, their gradient by JAX          48           56      79
    slices, and the gradient here          15           29      44

JAX transposes strided slices to padded sums, which XLA:CPU is slow at (layers of stride 2: 3 to 7
times).  Here it is a correlation of the spread cotangent with the turned kernel: slices again.
"""

import functools

import jax
import jax.numpy as jnp


def depthwise(x_BxHxWxI: jax.Array, kernel_KxLx1xI: jax.Array, strides, padding) -> jax.Array:
    """`lax.conv_general_dilated` of NHWC and HWIO with `feature_group_count=I`, no dilation."""
    if isinstance(padding, str):
        window = kernel_KxLx1xI.shape[:2]
        padding = jax.lax.padtype_to_pads(x_BxHxWxI.shape[1:3], window, strides, padding)
    # The barrier keeps the padding out of the sum, where it would be done for each slice.
    x = jax.lax.optimization_barrier(jnp.pad(x_BxHxWxI, ((0, 0), *padding, (0, 0))))
    return _unpadded(x, kernel_KxLx1xI[:, :, 0], tuple(strides))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unpadded(x, kernel_KxLxI, strides):
    rows, columns, _ = kernel_KxLxI.shape
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], (rows, columns), strides)]
    kernel_KxLxI = kernel_KxLxI.astype(jnp.float32)  # sums are float32
    total = sum(
        kernel_KxLxI[i, j][None, None, None] * met(x, i, j, strides, size)
        for i in range(rows)
        for j in range(columns)
    )
    return total.astype(x.dtype)


def met(x, row, column, strides, size) -> jax.Array:
    """What of x the kernel's weight at (row, column) meets, [B, *size, I]."""
    extent = [s * (n - 1) + 1 for s, n in zip(strides, size)]
    block = jax.lax.dynamic_slice(x, (0, row, column, 0), (x.shape[0], *extent, x.shape[-1]))
    return block[:, :: strides[0], :: strides[1]].astype(jnp.float32)


def _forward(x, kernel_KxLxI, strides):
    return _unpadded(x, kernel_KxLxI, strides), (x, kernel_KxLxI)


def _backward(strides, kept, g):
    x, kernel_KxLxI = kept
    window, size = kernel_KxLxI.shape[:2], g.shape[1:3]
    # Zeros between the cotangents, and around them to the size of x.
    rest = [n - k - s * (m - 1) for n, k, s, m in zip(x.shape[1:3], window, strides, size)]
    around = [(k - 1, k - 1 + r, s - 1) for k, r, s in zip(window, rest, strides)]
    spread = jax.lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *around, (0, 0, 0)))
    spread, g = jax.lax.optimization_barrier((spread, g))
    to_x = _unpadded(spread, kernel_KxLxI[::-1, ::-1], (1, 1))

    def of_weight(at):  # in a loop, for each of 25 sums takes XLA long to compile
        x_at = met(x, at // window[1], at % window[1], strides, size)
        return jnp.sum(x_at * g.astype(jnp.float32), (0, 1, 2))

    to_kernel = jax.lax.map(of_weight, jnp.arange(window[0] * window[1]))
    return to_x, to_kernel.reshape(kernel_KxLxI.shape).astype(kernel_KxLxI.dtype)


_unpadded.defvjp(_forward, _backward)
