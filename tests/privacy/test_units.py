"""Patients' images are together, and a sample is Poisson's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.privacy.units import cap_of, patient_table, poisson

UNIT = ('b', 'a', 'b', 'c', 'b', 'b', 'b', 'a', 'b', 'b')


def test_a_table_has_each_patient_s_images():
    index, real = patient_table(UNIT, 4)
    assert real.sum(1).tolist() == [4, 2, 1]
    assert index[0].tolist() == [0, 2, 5, 8]  # of 0, 2, 4, 5, 6, 8, 9
    assert index[1, :2].tolist() == [1, 7] and index[2, 0] == 3
    index, real = patient_table(UNIT, 7)
    assert sorted(index[real > 0].tolist()) == list(range(10))


def test_a_patient_who_leaves_changes_no_other_row():
    kept = [i for i, name in enumerate(UNIT) if name != 'a']
    index, real = patient_table(UNIT, 4)
    without, _ = patient_table([UNIT[i] for i in kept], 4)
    np.testing.assert_array_equal(np.array(kept)[without] * real[[0, 2]], (index * real)[[0, 2]])


def test_images_without_patients_are_units_of_their_own():
    index, real = patient_table([str(i) for i in range(5)], 1)
    assert index[:, 0].tolist() == list(range(5)) and real.all()
    with pytest.raises(ValueError, match='images_per_patient=0'):
        patient_table(UNIT, 0)


P, REAL, RATE, DRAWS = 48, 40, 0.1, 4000


@pytest.fixture(scope='module')
def drawn():
    """bool [DRAWS, P]: who is in each sample, with room for all."""
    real_P = (jnp.arange(P) < REAL).astype(jnp.float32)

    def member(key):
        index, empty = poisson(key, real_P, RATE, P)
        return jnp.zeros(P, bool).at[index].set(~empty)

    return np.array(jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(0), DRAWS)))


def test_each_unit_is_in_a_sample_at_the_rate(drawn):
    share = drawn.mean(0)
    sd = np.sqrt(RATE * (1 - RATE) / DRAWS)
    assert np.abs(share[:REAL] - RATE).max() < 4 * sd  # of 40 units
    assert not drawn[:, REAL:].any()
    size = drawn.sum(1)
    assert size.min() == 0 and size.var() == pytest.approx(REAL * RATE * (1 - RATE), rel=0.1)


def test_units_are_sampled_independently(drawn):
    both = drawn[:, :REAL].astype(float) - RATE
    covariance = both.T @ both / DRAWS
    off = covariance[~np.eye(REAL, dtype=bool)]
    assert np.abs(off).max() < 5 * RATE * (1 - RATE) / np.sqrt(DRAWS)


def test_a_sample_that_is_too_large_is_cut_to_a_random_part():
    real_P, cap = jnp.ones(REAL), 4
    keys = jax.random.split(jax.random.key(1), DRAWS)
    index, empty = jax.jit(jax.vmap(lambda k: poisson(k, real_P, RATE, cap)))(keys)
    full = np.array(~empty.any(1))
    # P(Binomial(40, .1) >= 4) = .5769
    assert full.mean() == pytest.approx(0.5769, abs=0.03)
    count = np.bincount(np.array(index)[full].ravel(), minlength=REAL)
    expected = count.sum() / REAL
    assert ((count - expected) ** 2 / expected).sum() < REAL + 4 * np.sqrt(2 * REAL)


@pytest.mark.parametrize('units, rate, cap', [(200, 0.1, 44), (10, 0.5, 10), (30, 1.0, 30)])
def test_room_for_a_sample(units, rate, cap):
    assert cap_of(units, rate) == cap
