"""Fields are smooth; spectral shifts touch low-frequency amplitudes and keep the phase."""

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax import shifts

# Smooth and away from black and white, so that nothing is clipped.
IMAGE = jax.random.uniform(jax.random.key(0), (32, 24, 3), minval=0.45, maxval=0.55)
KEY = jax.random.key(1)


def apply(shift, image=IMAGE):
    return np.asarray(shift.apply(shift.sample(KEY), KEY, image, {})[0])


def test_bias_field_is_a_smooth_factor_common_to_the_channels():
    field = apply(shifts.bias_field(0.3)) / np.asarray(IMAGE)
    np.testing.assert_allclose(field, field[..., :1].repeat(3, -1), rtol=1e-5)
    assert field.max() / field.min() > 1.1
    for axis in (0, 1):
        assert np.abs(np.diff(field, axis=axis)).max() < 0.1 * np.ptp(field) + 0.05


def test_low_frequency_keeps_phase_and_high_frequencies():
    before = np.fft.rfft2(IMAGE, axes=(0, 1))
    after = np.fft.rfft2(apply(shifts.low_frequency(0.3, radius=0.1)), axes=(0, 1))
    fy, fx = np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(24)[None]
    high = np.hypot(fy, fx) > 0.1
    np.testing.assert_allclose(after[high], before[high], atol=1e-4)
    assert np.abs(np.abs(after[~high] / before[~high]) - 1).max() > 0.05
    np.testing.assert_allclose(np.angle(after[~high] / before[~high]), 0, atol=1e-3)


def test_amplitude_mix_takes_the_mean_color_of_its_reference():
    other = jnp.full_like(IMAGE, 0.6).at[..., 0].set(0.4)
    shift = shifts.amplitude_mix(shifts.amplitude(other)[None])
    reference, _ = shift.sample(KEY)
    out = shift.apply((reference, jnp.float32(1.0)), KEY, IMAGE, {})[0]
    np.testing.assert_allclose(out.mean((0, 1)), [0.4, 0.6, 0.6], atol=1e-3)
    before, after = np.fft.rfft2(IMAGE, axes=(0, 1)), np.fft.rfft2(out, axes=(0, 1))
    np.testing.assert_allclose(after[10, 8], before[10, 8], atol=1e-3)
    half = shift.apply((reference, jnp.float32(0.5)), KEY, IMAGE, {})[0]
    between = (np.asarray(out) + np.asarray(IMAGE)).mean((0, 1)) / 2
    np.testing.assert_allclose(half.mean((0, 1)), between, atol=1e-3)
