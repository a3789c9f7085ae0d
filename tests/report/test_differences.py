"""Differences over centers and seeds: known values, and how often intervals hold the truth."""

import numpy as np
import pytest
from scipy import stats

from fedgen_jax.report import compare
from fedgen_jax.report.differences import common_units, difference

CENTERS = 'abcde'


def of(gap_CxS, nested=False):
    """The difference of methods whose scores differ by so much."""
    ours = {
        (f'{c}{s}' if nested else str(c), s): gap
        for c, row in enumerate(np.atleast_2d(gap_CxS)) for s, gap in enumerate(row)
        if np.isfinite(gap)
    }
    return difference(ours, dict.fromkeys(ours, 0.0), nested=nested)


def agrees(found, values):
    """Whether interval and p are those of Student's t on some means."""
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, test.pvalue))


def test_of_one_seed_it_is_student_s_t_over_centers():
    gap_C = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    found = of(gap_C[:, None])
    assert (found.mean, found.units, found.centers, found.better) == (3, 5, 5, 4)
    agrees(found, gap_C)


def test_of_centers_that_are_others_with_each_seed_it_is_over_the_means_of_seeds():
    rng = np.random.default_rng(0)
    gap_CxS = rng.normal(1, 1, (8, 4)) + [-2, 0, 1, 3]
    found = of(gap_CxS, nested=True)
    assert found.nested and found.centers == found.units == 32
    agrees(found, gap_CxS.mean(0))


def test_seeds_that_are_alike_by_chance_do_not_make_their_centers_trials():
    rng = np.random.default_rng(0)
    gap_CxS = rng.normal(0, 1, (8, 4))
    near_CxS = gap_CxS - gap_CxS.mean(0) + [0.9, 1.0, 1.0, 1.1]
    agrees(of(near_CxS, nested=True), near_CxS.mean(0))


def test_p_of_few_seeds_is_rarely_small():
    """Where nothing differs it is below 1 % in 1 % of cases: what a correction for many rests on.
    """
    rng = np.random.default_rng(0)
    p = [of(rng.normal(size=3) + rng.normal(size=(8, 3)), nested=True).p for _ in range(3000)]
    assert 0.005 < np.mean(np.array(p) < 0.01) < 0.016


def test_seeds_that_differ_no_more_than_chance_add_nothing():
    gap_C = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    agrees(of(np.stack([gap_C + 0.1 * way * (-1) ** np.arange(5) for way in (-1, 0, 1)], 1)), gap_C)


def test_where_only_seeds_differ_it_is_over_seeds():
    gap_S = np.array([0.0, 1.0, 5.0])
    agrees(of(np.broadcast_to(gap_S, (5, 3))), gap_S)


@pytest.mark.parametrize('centers, seeds, nested, of_center, of_seed', [
    (5, 1, False, 1, 0), (5, 3, False, 1, 0.5), (5, 3, False, 0.1, 1), (8, 3, True, 1, 0.5),
])
def test_intervals_hold_the_truth(centers, seeds, nested, of_center, of_seed):
    rng, tries = np.random.default_rng(0), 600

    def holds():
        gap_CxS = rng.normal(0, of_center, (centers, seeds if nested else 1))
        gap_CxS = gap_CxS + rng.normal(0, of_seed, seeds) + rng.normal(0, 1, (centers, seeds))
        found = of(gap_CxS, nested)
        return found.low <= 0 <= found.high

    share = np.mean([holds() for _ in range(tries)])
    assert 0.91 < share < 0.99


def test_few_centers_or_seeds_have_neither_interval_nor_p():
    for gap_CxS, nested in ((np.ones((2, 5)), False), (np.ones((8, 2)), True), ([[1.0]], False)):
        found = of(gap_CxS, nested)
        assert np.isnan([found.low, found.high, found.p]).all() and found.mean == 1


def test_no_interval_is_absurd_by_chance():
    """Where the parts of the variance nearly cancel, its degrees of freedom would be near 0."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        gap_CxS = 0.1 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 3))
        found = of(gap_CxS)
        assert found.high - found.low < 2 * stats.t.ppf(0.975, 2) * np.ptp(gap_CxS)


def test_centers_that_lack_seeds_are_no_others_with_each():
    gap_CxS = np.full((5, 2), np.nan)
    gap_CxS[:4, 0], gap_CxS[4, 1] = 1.0, 9.0
    found = of(gap_CxS)
    assert not found.nested and found.mean == pytest.approx(2.6)
    agrees(found, [1.0, 1.0, 1.0, 1.0, 9.0])


def test_what_is_not_finite_is_no_score(make):
    runs = [make('m', fold, 0, 0.5, x) for fold, x in (('x', 0.9), ('y', 0.5))]
    runs[0]['unseen']['centers']['x']['accuracy'] = float('nan')
    units = common_units(compare.rows_of(runs), 'unseen', 'accuracy')
    assert units['m'] == {('y', 0): 0.5}


def test_methods_that_score_alike_do_not_differ():
    found = of(np.zeros((5, 3)))
    assert (found.mean, found.low, found.high, found.p, found.better) == (0, 0, 0, 1, 0)


def test_a_seed_that_lacks_centers_counts_for_these_alone():
    gap_CxS = np.array([[1.0, 1.0], [2.0, 2.0], [6.0, np.nan]])
    found = of(gap_CxS)
    assert (found.mean, found.units, found.seeds) == (3, 5, 2)
    agrees(found, [1.0, 2.0, 6.0])


def test_a_seen_center_of_many_folds_counts_once_and_by_the_folds_that_all_have(make):
    runs = [make('m', fold, 0, x, 0.5) for fold, x in (('x', 0.9), ('y', 0.5), ('z', 0.1))]
    rows = compare.rows_of([*runs, *(make('n', fold, 0, 0.4, 0.5) for fold in 'xy')])
    units = common_units(rows, 'seen', 'accuracy')
    assert units['m'] == pytest.approx({('a', 0): 0.7, ('b', 0): 0.7})
