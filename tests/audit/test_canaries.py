"""The audit refutes private steps that have less noise than they say, and no others."""

import numpy as np
import pytest
from families import configured

from fedgen_jax.audit.canaries import audit
from fedgen_jax.audit.one_run import Mechanism, Scores, lower_bound, play, stated
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm

pytest.importorskip('jax_privacy', reason='the extra `privacy`')

CANARIES, DELTA = 1000, 1e-6
MECHANISM = Mechanism(sigma=3.0, rate=0.1, steps=512)
LOCAL = make_algorithm(configured({}), 16, synthetic.CLASSES, 1)[1]


def test_it_refutes_a_sixth_of_the_noise_and_not_the_whole():
    claim = stated(MECHANISM, CANARIES, DELTA)
    assert claim == pytest.approx(3.7697, abs=2e-3)
    whole, sixth = (
        lower_bound(play(MECHANISM, LOCAL, CANARIES, 1, share), DELTA) for share in (1, 1 / 6)
    )
    assert 0.5 < whole <= claim < sixth
    assert sixth > 6


def test_the_bound_of_any_trade_off_holds_where_a_gaussians_does_not():
    """Randomized response of epsilon 1: its scores are two numbers, and no Gaussian."""
    rng, epsilon = np.random.default_rng(0), 1.0
    inside, outside = (
        (rng.random(1250) < p).astype(float) + 1e-9 * rng.random(1250)
        for p in (1 / (1 + np.exp(-epsilon)), 1 / (1 + np.exp(epsilon)))
    )
    scores = Scores(inside, outside)
    of_any, gaussian = (lower_bound(scores, DELTA, gaussian=x) for x in (False, True))
    assert 0.5 < of_any <= epsilon < gaussian


def test_who_takes_part_moves_his_weight_by_the_clip_each_time():
    m = Mechanism(sigma=1.0, rate=1.0, steps=3, clip=0.5)
    scores = play(m, LOCAL, 40, 1, noise=0.0)
    # Three steps of a clipped gradient, over the 40 who might have taken part.
    assert scores.inside == pytest.approx(3 * 0.5 / 40)
    assert not scores.outside.any() and len(scores.outside) > 0


@pytest.mark.extended
def test_a_run_without_privacy_has_no_epsilon_to_test(subject):
    found = audit(subject)
    assert found.holds is None and 'privacy.unit' in found.missing
