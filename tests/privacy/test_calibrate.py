"""Noise is found for an epsilon, and a target that promises nothing is refused."""

import pytest

from fedgen_jax.privacy.accounting import Charge, epsilon
from fedgen_jax.privacy.calibrate import calibrate, check_target

pytest.importorskip('dp_accounting', reason='the extra `privacy`')

TRAIN = Charge('training', 'poisson gaussian', 3.0, 1.0, 512, 0.1)
LONG = TRAIN._replace(count=1000)
ONCE = Charge('descriptor', 'gaussian', 4.0, 1.0)


def test_the_noise_of_an_epsilon():
    sigma = calibrate(lambda s: [TRAIN._replace(sigma=s)], 1.0, 1e-6)
    assert sigma == pytest.approx(9.6618, rel=1.5e-3)


def test_the_steps_of_an_epsilon():
    enough, more = (epsilon([TRAIN._replace(count=n)], 1e-6) for n in (155, 156))
    assert enough <= 2 < more


@pytest.mark.parametrize('target, sigma', [(8, 1.886), (4, 3.231), (2, 6.160), (1, 16.70)])
def test_training_beside_a_fixed_release(target, sigma):
    found = calibrate(lambda s: [LONG._replace(sigma=s), ONCE], target, 1e-4)
    assert found == pytest.approx(sigma, rel=3e-3)


def test_a_release_with_a_share_of_the_noise_scales_with_the_target():
    """With a fixed multiplier the release takes half of a small epsilon, with a share a part."""
    def plan(s):
        return [LONG._replace(sigma=s), ONCE._replace(sigma=0.6 * s)]

    sigma = calibrate(plan, 1.0, 1e-4)
    assert 0.999 < epsilon(plan(sigma), 1e-4) <= 1.0
    share = 1 - epsilon([LONG._replace(sigma=sigma)], 1e-4)
    fixed = 1 - epsilon([LONG._replace(sigma=16.70)], 1e-4)
    assert share < 0.25 < fixed


def test_truncation_is_paid_for():
    cut = TRAIN._replace(kind='truncated poisson gaussian', size=60, cap=10)
    sigma = calibrate(lambda s: [cut._replace(sigma=s)], 0.5, 1e-4)
    assert 0.499 < epsilon([cut._replace(sigma=sigma)], 1e-4) <= 0.5
    assert sigma > 1.05 * calibrate(lambda s: [TRAIN._replace(sigma=s)], 0.5, 1e-4)


@pytest.mark.parametrize('target, delta, said', [
    (0.0, 1e-5, 'privacy.epsilon=0.0'), (-1.0, 1e-5, 'privacy.epsilon'),
    (float('inf'), 1e-5, 'privacy.epsilon'), (8.0, 0.0, 'privacy.delta=0.0'),
    (8.0, 1.01e-3, '0.001 for the 100 units'),
])
def test_a_target_that_promises_nothing_is_refused(target, delta, said):
    with pytest.raises(ValueError, match=said) as error:
        check_target(target, delta, 100)
    assert '\n' not in str(error.value)
    check_target(8.0, 1e-3, 100)
