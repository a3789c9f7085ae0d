"""Smooth changes over the field of view, in space and in the spectrum."""

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.shifts.base import Shift


def bias_field(strength: float = 0.3, order: int = 3) -> Shift:
    """Multiplies by a smooth field: uneven illumination, vignetting, a coil's sensitivity.

    The field is exp of a polynomial in y and x (Legendre, total degree <= order, no constant)
    with coefficients uniform in [-strength, strength] / order.
    Params: the coefficients, [order + 1, order + 1].
    """
    degree = np.add.outer(np.arange(order + 1), np.arange(order + 1))
    used = jnp.asarray((degree > 0) & (degree <= order), jnp.float32)

    def sample(key):
        return used * jax.random.uniform(key, used.shape, minval=-1, maxval=1) * strength / order

    def apply(coefficients, key, image_HxWx3, target):
        rows, cols = (_legendre(n, order) for n in image_HxWx3.shape[:2])
        field_HxW = jnp.exp(rows @ coefficients @ cols.T)
        return jnp.clip(image_HxWx3 * field_HxW[..., None], 0, 1), target

    return Shift(sample, apply)


def collimation(most: float = 0.12) -> Shift:
    """Black borders: each side of an image loses a share of its length, uniform in [0, w].

    What lies below them keeps its masks and boxes: it is there, though it does not show.
    Params: w, uniform in [0, most], a scalar.
    """

    def sample(key):
        return jax.random.uniform(key, maxval=most)

    def apply(width, key, image_HxWx3, target):
        top, bottom, left, right = width * jax.random.uniform(key, (4,))
        y_H, x_W = (jnp.float32((np.arange(n) + 0.5) / n) for n in image_HxWx3.shape[:2])
        rows_H, cols_W = (y_H >= top) & (y_H <= 1 - bottom), (x_W >= left) & (x_W <= 1 - right)
        lit_HxW = (rows_H[:, None] & cols_W[None]).astype(image_HxWx3.dtype)
        return image_HxWx3 * lit_HxW[..., None], target

    return Shift(sample, apply)


def low_frequency(strength: float = 0.3, radius: float = 0.1, waves: int = 3) -> Shift:
    """Multiplies the amplitudes of the low frequencies by smooth random factors, phase kept.

    The style half of a spectrum (FDA: Yang & Soatto 2020), changed without another center's
    images. Uses the FFT: several times slower than the other shifts.

    Args:
      strength: spread of the factors' logarithm.
      radius: the frequency, in cycles per pixel, at which the change has faded out.
      waves: how many cosines along each axis make up the logarithm.
    Params: coefficients of the cosines, [waves, waves, 3].
    """

    def sample(key):
        spread = strength / waves**0.5
        return spread * jax.random.uniform(key, (waves, waves, 3), minval=-1, maxval=1)

    def apply(coefficients_AxBx3, key, image_HxWx3, target):
        height, width, _ = image_HxWx3.shape
        # Functions of |f_y| and f_x only, so that the changed image stays real.
        fy, fx, window_HxK = _frequencies(height, width, radius)
        rows, cols = (np.cos(np.pi * f[:, None] * np.arange(waves)) for f in (fy, fx))
        rows, cols = jnp.asarray(rows, jnp.float32), jnp.asarray(cols, jnp.float32)
        log_factor_HxKx3 = jnp.einsum('ya,abc,xb->yxc', rows, coefficients_AxBx3, cols)
        factor = jnp.exp(log_factor_HxKx3 * window_HxK[..., None])
        spectrum = jnp.fft.rfft2(image_HxWx3, axes=(0, 1))
        return _to_image(spectrum * factor.astype(spectrum.dtype), height, width), target

    return Shift(sample, apply)


def amplitude_mix(amplitudes_RxHxKx3, high: float = 1.0, radius: float = 0.1) -> Shift:
    """Mixes the low-frequency amplitudes with a reference's, phase kept (Yang & Soatto 2020).

    The references are other centers' data: what is handed over here has left its center.

    Args:
      amplitudes_RxHxKx3: reference amplitudes, from `amplitude`; each virtual center draws one.
      high: the mix is uniform in [0, high]; 1 replaces the lowest frequency outright.
      radius: as in `low_frequency`.
    Params: (amplitude [H, K, 3], mix).
    """
    amplitudes_RxHxKx3 = jnp.asarray(amplitudes_RxHxKx3)

    def sample(key):
        k1, k2 = jax.random.split(key)
        index = jax.random.randint(k1, (), 0, len(amplitudes_RxHxKx3))
        return amplitudes_RxHxKx3[index], jax.random.uniform(k2, maxval=high)

    def apply(params, key, image_HxWx3, target):
        reference_HxKx3, mix = params
        height, width, _ = image_HxWx3.shape
        weight = mix * _frequencies(height, width, radius)[2][..., None]
        spectrum = jnp.fft.rfft2(image_HxWx3, axes=(0, 1))
        own = jnp.maximum(jnp.abs(spectrum), 1e-6)
        factor = 1 + weight * (reference_HxKx3 / own - 1)
        return _to_image(spectrum * factor.astype(spectrum.dtype), height, width), target

    return Shift(sample, apply)


def amplitude(image_HxWx3: jax.Array) -> jax.Array:
    """The amplitude spectrum that `amplitude_mix` takes: [H, K, 3], K = W // 2 + 1."""
    return jnp.abs(jnp.fft.rfft2(image_HxWx3, axes=(0, 1)))


def _frequencies(height, width, radius):
    """|f_y| and f_x in units of radius, and a window falling from 1 at 0 to 0 at radius."""
    fy, fx = np.abs(np.fft.fftfreq(height)) / radius, np.fft.rfftfreq(width) / radius
    distance = np.minimum(np.hypot(fy[:, None], fx[None]), 1)
    return fy, fx, jnp.asarray(np.cos(np.pi / 2 * distance) ** 2, jnp.float32)


def _to_image(spectrum, height, width):
    return jnp.clip(jnp.fft.irfft2(spectrum, s=(height, width), axes=(0, 1)), 0, 1)


def _legendre(size, order):
    positions = (2 * np.arange(size) + 1) / size - 1
    return jnp.asarray(np.polynomial.legendre.legvander(positions, order), jnp.float32)
