"""Blur, sharpening and resolution against scipy and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from fedgen_jax import shifts

IMAGE = jax.random.uniform(jax.random.key(0), (32, 40, 3), minval=0.3, maxval=0.7)
KEY = jax.random.key(1)


def apply(shift, image=IMAGE):
    return np.asarray(shift.apply(shift.sample(KEY), KEY, image, {})[0])


def energy(image):
    """The share of the variance above half of the Nyquist frequency."""
    power = np.abs(np.fft.fft2(image - image.mean((0, 1)), axes=(0, 1))) ** 2
    fy, fx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None]
    return power[np.hypot(fy, fx) > 0.25].sum()


def test_blur_is_scipys_gaussian_filter():
    expected = ndimage.gaussian_filter(IMAGE, (1.3, 1.3, 0), mode='reflect', truncate=8)
    np.testing.assert_allclose(apply(shifts.blur(1.3, 1.3)), expected, atol=1e-5)


def test_blur_and_lower_resolution_take_high_frequencies_and_sharpening_adds_them():
    before = energy(np.asarray(IMAGE))
    assert energy(apply(shifts.blur(1, 1))) < 0.2 * before
    assert energy(apply(shifts.resolution(0.5, 0.5))) < 0.2 * before
    assert energy(apply(shifts.blur(-0.5, -0.5))) > 1.2 * before
    for shift in (shifts.blur(1, 1), shifts.resolution(0.5, 0.5), shifts.blur(-0.5, -0.5)):
        np.testing.assert_allclose(apply(shift).mean(), IMAGE.mean(), atol=0.01)


def test_lower_resolution_is_monotone_and_keeps_a_smooth_image():
    levels = [energy(apply(shifts.resolution(f, f))) for f in (0.4, 0.6, 0.8, 1.0)]
    assert levels == sorted(levels)
    ramp = jnp.broadcast_to(jnp.linspace(0.2, 0.8, 40)[None, :, None], (32, 40, 3))
    out = apply(shifts.resolution(0.5, 0.5), ramp)
    np.testing.assert_allclose(out[:, 6:-6], ramp[:, 6:-6], atol=0.01)


def test_lens_is_its_three_parts_one_after_another():
    fused = apply(shifts.lens((1.2, 1.2), (0.8, 0.8), (0.7, 0.7)))
    parts = shifts.magnification(1.2, 1.2), shifts.blur(0.8, 0.8), shifts.resolution(0.7, 0.7)
    np.testing.assert_allclose(fused, apply(shifts.chain(*parts)), atol=0.01)
