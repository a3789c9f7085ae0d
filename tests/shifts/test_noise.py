"""Noise has the variance that its name promises, and is new for each image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax import shifts

KEY = jax.random.key(1)


def flat(shift, level, size=96):
    image = jnp.full((size, size, 3), level)
    return np.asarray(shift.apply(shift.sample(KEY), KEY, image, {})[0])


@pytest.mark.parametrize('level', [0.2, 0.4, 0.8])
def test_variance(level):
    gaussian = flat(shifts.gaussian(0.05, 0.05), level)
    poisson = flat(shifts.poisson(500, 500), level)
    rician = flat(shifts.rician(0.03, 0.03), level)
    np.testing.assert_allclose(gaussian.std(), 0.05, rtol=0.03)
    np.testing.assert_allclose(poisson.var(), level / 500, rtol=0.05)
    for noisy in (gaussian, poisson):
        np.testing.assert_allclose(noisy.mean(), level, atol=0.002)
    # The second moment of a Rician variable is level^2 + 2 sigma^2.
    np.testing.assert_allclose((rician**2).mean(), level**2 + 2 * 0.03**2, rtol=0.005)


def test_rician_noise_lifts_black_but_gaussian_noise_of_zero_does_not():
    assert flat(shifts.rician(0.05, 0.05), 0.0).mean() > 0.05
    assert flat(shifts.gaussian(0, 0), 0.0).max() == 0


def test_gray_noise_is_what_it_says():
    """One draw for all channels: the mean of three would have 1 / sqrt(3) of it."""
    of_one = flat(shifts.chain(shifts.rician(0.03, 0.03, gray=True), shifts.monochrome()), 0.0)
    # Rayleigh: the mean is sqrt(pi / 2) of the deviation, and 1.91 times its own.
    np.testing.assert_allclose(of_one.mean(), 0.03 * np.sqrt(np.pi / 2), rtol=0.03)
    np.testing.assert_allclose(of_one.mean() / of_one.std(), 1.913, rtol=0.04)
    gray = flat(shifts.chain(shifts.gaussian(0.05, 0.05, gray=True), shifts.monochrome()), 0.5)
    np.testing.assert_allclose(gray.std(), 0.05, rtol=0.03)


def test_sensor_adds_both_variances():
    shift = shifts.sensor(0.05, 0.05)
    image = jnp.full((96, 96, 3), 0.5)
    out = shift.apply((jnp.float32(0.04), jnp.float32(0.02)), KEY, image, {})[0]
    np.testing.assert_allclose(out.var(), 0.04**2 * 0.5 + 0.02**2, rtol=0.05)


def test_channels_pixels_and_images_are_independent():
    shift = shifts.gaussian(0.05, 0.05)
    images = jnp.full((2, 64, 64, 3), 0.5)
    noise = np.asarray(shifts.apply_batch(shift, shift.sample(KEY), KEY, images, {})[0]) - 0.5
    series = [noise[0, ..., 0], noise[0, ..., 1], noise[0, ..., 2], noise[1, ..., 0]]
    series += [np.roll(noise[0, ..., 0], 1, axis) for axis in (0, 1)]
    correlation = np.corrcoef([s.ravel() for s in series])
    assert np.abs(correlation - np.eye(len(series))).max() < 0.07
