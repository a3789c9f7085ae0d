"""The attack sees what there is to see, and nothing where there is nothing."""

import numpy as np
import pytest

from fedgen_jax.audit import lira, shadows
from fedgen_jax.models.cnn import CNN

RNG = np.random.default_rng(0)


def test_each_image_is_in_half_of_the_shadows():
    member_SxN = shadows.members(RNG, 8, 30)
    assert (member_SxN.sum(0) == 4).all() and len(np.unique(member_SxN, axis=1).T) > 10


def test_confidence_is_the_logit_of_two_classes():
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    np.testing.assert_allclose(shadows.confidence(p, np.array([0, 0])), np.log([9, 0.25]))


def test_rates_and_area_of_known_scores():
    inside, outside = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.5, 1.5, 2.5])
    assert lira.tpr_at(0.0, inside, outside) == 0.5
    assert lira.tpr_at(0.25, inside, outside) == 0.75
    assert lira.area(inside, outside) == pytest.approx((2 + 3 + 4 + 4) / 16)
    false, true = lira.roc(inside, outside)
    assert false[-1] == true[-1] == 1 and (np.diff(true) >= 0).all()


@pytest.mark.parametrize('gap, least, most', [(6.0, 0.9, 1.0), (0.0, 0.0, 0.04)])
def test_members_are_found_if_learning_moves_their_confidence(gap, least, most):
    n = 1000
    hard_N = 3 * RNG.normal(size=n)  # images differ more than membership does
    member_SxN, target = shadows.members(RNG, 16, n), RNG.random(n) < 0.5

    def observed(member):
        return hard_N + gap * member + RNG.normal(size=member.shape)

    for attack in lira.ATTACKS.values():
        score_N = attack(observed(target), observed(member_SxN), member_SxN)
        assert least <= lira.tpr_at(0.01, score_N[target], score_N[~target]) <= most


def test_each_shadow_is_attacked_by_the_others():
    """Guesses add up over models; a model's own confidences are not among its shadows'."""
    n, count = 200, 8
    member_SxN = shadows.members(RNG, count, n)
    seen_SxN = RNG.normal(size=(count, n)) + 4 * member_SxN
    for attack in lira.ATTACKS.values():
        inside, outside = lira.of_each(attack, seen_SxN, member_SxN)
        assert len(inside) == member_SxN.sum() and len(outside) == (~member_SxN).sum()
        assert lira.tpr_at(0.01, inside, outside) > 0.5
        alone = lira.of_target(attack, seen_SxN[2], member_SxN[2], np.delete(seen_SxN, 2, 0),
                               np.delete(member_SxN, 2, 0))
        assert set(alone[0]) <= set(inside) and set(alone[1]) <= set(outside)
        nothing = lira.of_each(attack, RNG.normal(size=(count, n)), member_SxN)
        assert lira.tpr_at(0.01, *nothing) < 0.05 and lira.area(*nothing) < 0.56


@pytest.mark.extended
def test_models_that_learned_by_heart_are_found(subject):
    """At a low rate of false alarms, where the run's own model is not."""
    # One layer of eight channels cannot learn images by heart.
    local = subject.local._replace(model=CNN(5, (16, 64)))
    found = lira.audit(
        subject._replace(local=local), 6, shadows.Recipe(steps=20, batch=8),
        shadows.Recipe(steps=300, batch=16, augment=False),
    )
    own, control = (x for k, x in found.numbers.items() if k != 'shadows')
    assert found.holds and control['tpr_at_1_percent'] > 0.1
    assert control['area'] > 0.75 > 0.7 > own['area']
    assert own['members'] + own['others'] == 120 == (control['members'] + control['others']) / 6
