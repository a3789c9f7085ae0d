"""A released descriptor: near the exact one, noisy as it says, and exact to add and remove."""

import numpy as np
import pytest

from fedgen_jax.hypernet.descriptor import (
    FIXED_POINT,
    Statistic,
    add,
    mean,
    pool,
    remove,
    standard_error,
    update,
)
from fedgen_jax.privacy.accounting import epsilon
from fedgen_jax.privacy.release import (
    clipped_around,
    descriptor_charge,
    deviation_of,
    exact_total,
    release,
    sensitivity_of,
)
from fedgen_jax.privacy.secrets import stream_key
from fedgen_jax.privacy.units import patient_table

pytest.importorskip('cryptography', reason='the extra `privacy`')

E, N, RADIUS = 12, 60, 0.1
RNG = np.random.default_rng(0)
CENTER = RNG.normal(size=E) * 0.1
VECTORS = CENTER + RNG.normal(size=(N, E)) * 0.01
TABLE = patient_table([str(i // 3) for i in range(N)], 4)  # 20 patients of 3 images
KEY = stream_key(bytes(32), 'a', 'data', 'descriptor', 0)


def released(key=KEY, sigma=2.0, vectors=VECTORS, unit='patient'):
    return release(vectors, TABLE, CENTER, RADIUS, sigma, key, 'psi', unit)


def test_without_clip_or_noise_it_is_the_mean_over_patients():
    exact = exact_total(VECTORS, TABLE, CENTER, 1.0) / FIXED_POINT / 20 + CENTER
    np.testing.assert_allclose(exact, VECTORS.mean(0), atol=E**0.5 / FIXED_POINT)


def test_the_noise_is_what_it_says():
    """Chi-square of released less exact, over 2,000 secrets."""
    exact = exact_total(VECTORS, TABLE, CENTER, RADIUS) + 20 * np.rint(CENTER * FIXED_POINT)
    gaps = [
        released(stream_key(i.to_bytes(32, 'big'), 'a')).total - exact for i in range(2000)
    ]
    deviation = deviation_of(2.0, RADIUS, E)
    assert np.mean(np.square(gaps)) == pytest.approx(deviation**2, rel=0.05)
    assert np.abs(np.mean(gaps, 0)).max() < 4.5 * deviation / 2000**0.5
    correlation = np.corrcoef(np.array(gaps).T)
    assert np.abs(correlation - np.eye(E)).max() < 5 / 2000**0.5


def test_its_standard_error_is_told():
    s = released()
    assert (s.count, s.unit, s.psi) == (20, 'patient', 'psi')
    error = standard_error(s)
    assert error == pytest.approx(2 * RADIUS / 20, rel=1e-3)
    assert np.abs(mean(s) - VECTORS.mean(0)).max() < 5 * error
    assert standard_error(Statistic(s.total, 20, 'psi')) == 0


def test_the_same_secret_and_data_give_the_same_release():
    np.testing.assert_array_equal(released().total, released().total)
    other = released(stream_key(bytes(32), 'a', 'other data', 'descriptor', 0))
    assert np.all(other.total != released().total)


def test_released_values_add_and_remove_exactly():
    a, b, c = (released(stream_key(bytes(32), name)) for name in 'abc')
    for x, y in ((remove(add(a, b), b), a), (update(pool([a, b]), b, c), add(a, c))):
        np.testing.assert_array_equal(x.total, y.total)
        assert x[1:] == y[1:]
    # A join discloses the newcomer's released statistic and nothing else.
    np.testing.assert_array_equal(pool([a, b, c]).total - pool([a, b]).total, c.total)
    with pytest.raises(ValueError, match='of patients and of images'):
        add(a, released(unit='image'))


def test_a_clip_is_around_the_center_and_swallows_nan():
    far = VECTORS.copy()
    far[0] += 5.0
    far[1] = np.nan
    gap = clipped_around(far, CENTER, RADIUS)
    assert np.linalg.norm(gap[0]) == pytest.approx(RADIUS) and not gap[1].any()
    np.testing.assert_array_equal(gap[2:], far[2:] - CENTER)


def test_its_charge():
    """Sigma 8 and radius .1 beside 512 steps: .05 of epsilon 3.82."""
    c = descriptor_charge(8.0, 0.1, 111)
    assert c.sensitivity == pytest.approx(0.1, rel=1e-4) and c.grain > 8e5
    assert epsilon([c], 1e-6) == pytest.approx(0.504, abs=2e-3)
    assert sensitivity_of(0.1, 111) >= 0.1 * FIXED_POINT
    with pytest.raises(ValueError, match='descriptor_radius=0'):
        sensitivity_of(0.0, 111)
