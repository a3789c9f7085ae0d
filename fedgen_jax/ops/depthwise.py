"""A depthwise convolution as a sum of shifted slices, for XLA:CPU.

In the loops of a federation (clients under `lax.map`, their steps under `lax.scan`) XLA:CPU runs a
grouped convolution naively, and its kernel's gradient worst of all.  The nine kinds of depthwise
layers of EfficientNet-Lite0 at 96 x 96, 8 images, one of each, on 2 busy cores, in ms:

    forward and gradient of   the images      the kernel
    XLA                              121           7,888
    shifted slices, by JAX            21              19
    shifted slices, as here            7              22

JAX transposes strided slices to padded sums, which XLA:CPU is slow at (layers of stride 2: 3 to 10
times); a correlation of the spread cotangent with the turned kernel is again a sum of slices.
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
    height, width = (
        (n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel_KxLxI.shape, strides)
    )
    shifted = slices(x, kernel_KxLxI.shape[:2], strides, (height, width))
    kernel_KxLxI = kernel_KxLxI.astype(jnp.float32)  # sums are float32
    total = sum(kernel_KxLxI[at][None, None, None] * x_at.astype(jnp.float32)
                for at, x_at in shifted.items())
    return total.astype(x.dtype)


def slices(x, window, strides, size) -> dict[tuple[int, int], jax.Array]:
    """{(row, column) of the window: what of x it meets, [B, *size, I]}."""
    ends = [s * (n - 1) + 1 for s, n in zip(strides, size)]
    return {
        (i, j): x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    }


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
    shifted = slices(x, window, strides, size)
    g = g.astype(jnp.float32)
    products = [jnp.sum(x_at.astype(jnp.float32) * g, (0, 1, 2)) for x_at in shifted.values()]
    to_kernel = jnp.stack(products).reshape(kernel_KxLxI.shape).astype(kernel_KxLxI.dtype)
    return to_x, to_kernel


_unpadded.defvjp(_forward, _backward)
