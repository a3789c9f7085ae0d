"""Charges cost what published and measured values say, and no charge is free."""

import pytest

from fedgen_jax.privacy.accounting import Charge, check_charge, epsilon, epsilon_rdp, merged

pytest.importorskip('dp_accounting', reason='the extra `privacy`')

TRAIN = Charge('training', 'poisson gaussian', 3.0, 1.0, 512, 0.1)


def once(sigma, count=1):
    return Charge('descriptor', 'gaussian', sigma, 1.0, count)


# (what, charges, delta, epsilon): PLD, interval 1e-4.
KNOWN = [
    ('training', [TRAIN], 1e-6, 3.7697),
    ('truncated at 40 of 200', [
        TRAIN._replace(kind='truncated poisson gaussian', size=200, cap=40)], 1e-6, 3.7702),
    ('sigma 1', [once(1)], 1e-6, 4.887),
    ('sigma 2', [once(2)], 1e-6, 2.254),
    ('sigma 4', [once(4)], 1e-6, 1.061),
    ('sigma 8', [once(8)], 1e-6, 0.504),
    ('sigma 16', [once(16)], 1e-6, 0.240),
    ('sigma 1 and training', [once(1), TRAIN], 1e-6, 6.441),
    ('sigma 2 and training', [once(2), TRAIN], 1e-6, 4.533),
    ('sigma 4 and training', [once(4), TRAIN], 1e-6, 3.970),
    ('sigma 8 and training', [once(8), TRAIN], 1e-6, 3.820),
    ('sigma 16 and training', [once(16), TRAIN], 1e-6, 3.782),
    ('40 of sigma 20 and training', [once(20, 40), TRAIN], 1e-6, 4.086),
    ('each of 200 rounds, sigma 5', [once(5, 200)], 1e-5, 15.46),
    ('each of 200 rounds, sigma 20', [once(20, 200)], 1e-5, 2.943),
    ('each of 200 rounds, sigma 50', [once(50, 200)], 1e-5, 1.06),
    ('once, sigma 5', [once(5)], 1e-5, 0.726),
]


@pytest.mark.parametrize('charges, delta, value', [k[1:] for k in KNOWN], ids=[k[0] for k in KNOWN])
def test_known_values(charges, delta, value):
    # Half a unit in the last digit of the shorter ones.
    assert epsilon(charges, delta) == pytest.approx(value, abs=max(2e-3, 6e-4 * value))


def test_relations():
    assert epsilon([TRAIN], 1e-6, 'add-remove') == pytest.approx(3.7697, abs=2e-3)
    assert epsilon([TRAIN], 1e-6, 'replace-one') == pytest.approx(7.8246, abs=2e-3)


def test_the_renyi_bound_is_looser():
    assert epsilon_rdp([TRAIN], 1e-6) == pytest.approx(4.0510, abs=2e-3)


def test_discrete_noise_approaches_the_continuous_one():
    """On one coordinate and a coarse grid it costs more; on ours it is the same."""
    pld = pytest.importorskip('dp_accounting.pld.privacy_loss_distribution')

    def discrete(sigma, sensitivity):
        found = pld.from_discrete_gaussian_mechanism(sigma * sensitivity, sensitivity=sensitivity)
        return found.get_epsilon_for_delta(1e-6)

    continuous = epsilon([once(4)], 1e-6)
    assert discrete(4, 1) == pytest.approx(1.0635, abs=5e-4)
    assert discrete(4, 1) - continuous > 2e-3
    assert abs(discrete(4, 10) - continuous) < 1e-4
    fine = Charge('descriptor', 'discrete gaussian', 4.0, 0.1, grain=4e5)
    assert epsilon([fine], 1e-6) == continuous


def test_parts_add_up_to_the_whole():
    parts = [TRAIN._replace(count=200), TRAIN._replace(count=312, first=200)]
    assert merged(parts) == (TRAIN,)
    assert epsilon(parts, 1e-6) == epsilon([TRAIN], 1e-6)
    assert epsilon([], 1e-6) == 0


@pytest.mark.parametrize('change, said', [
    ({'count': 0}, 'count=0'),
    ({'sigma': 0.0}, 'sigma=0.0'),
    ({'sigma': float('inf')}, 'sigma=inf'),
    ({'rate': 0.0}, 'rate=0.0'),
    ({'rate': 1.1}, 'rate=1.1'),
    ({'kind': 'fixed cohort'}, 'fixed cohort'),
    ({'kind': 'gaussian'}, 'all units'),
    ({'kind': 'truncated poisson gaussian', 'size': 10, 'cap': 11}, 'cap=11'),
    ({'kind': 'discrete gaussian', 'rate': 1.0, 'grain': 4.0}, 'whole numbers'),
])
def test_a_charge_that_has_no_price_is_refused(change, said):
    with pytest.raises(ValueError, match=said) as error:
        check_charge(TRAIN._replace(**change))
    assert '\n' not in str(error.value)
