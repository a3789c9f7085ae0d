"""Mean ranks of methods, and differences of one method to each other with their uncertainty.

The unit is a score at one center with one seed.  It is the same where each run holds out one
center and where one run has many unseen ones.  A seen center of a seed that was scored in several
folds counts once, by the mean over the folds that all compared methods have.  A drawn center is
another one with each seed.

Intervals: centers and seeds are drawn with replacement, independently of each other, and a
resample has their crossing.  This is exact for neither factor, and errs to the wide side.
p values: the signs of the centers' differences (each the mean over its seeds) are flipped in all
2^C ways, so with C centers no p value is below 2^(1-C); Holm's correction is over the methods.

References:
    Demsar 2006, Statistical comparisons of classifiers over multiple data sets (mean ranks).
    Owen 2007, The pigeonhole bootstrap (crossed factors).
    Holm 1979, A simple sequentially rejective multiple test procedure.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fedgen_jax.intervals import EDGES, FEW
from fedgen_jax.report.compare import is_drawn, reference_of, rows_of
from fedgen_jax.schema import Summary

RESAMPLES = 10_000
MOST_FLIPS = 2**16  # of more centers than 16, so many flips are drawn
ADAPTED = ', adapted'  # of a row: with steps without labels at unseen centers

Unit = tuple[str, int]  # center, seed
Units = dict[Unit, float]


class Ranks(NamedTuple):
    """Mean ranks, 1 for the best; ties share the mean of their ranks.

    mean:  {method: its mean rank over units}; {} where there are fewer than two.
    worst: {method: that of its worst center of each seed}; {} where there are fewer than two seeds.
    units: how many (center, seed) scores all methods have; seeds: of how many seeds.
    """

    mean: dict[str, float]
    worst: dict[str, float]
    units: int
    seeds: int


class Difference(NamedTuple):
    """How far one method is above another at the units that both have.

    low, high: the 95 % interval; NaN for fewer than `intervals.FEW` centers.
    p:         two-sided, before a correction; NaN for one center.
    units:     how many (center, seed) scores it is the mean of.
    """

    mean: float
    low: float
    high: float
    p: float
    units: int
    centers: int
    seeds: int


def common_units(
    rows: Mapping[str, Sequence[Summary]], group: str, metric: str
) -> dict[str, Units]:
    """{method: {(center, seed): score}} of the scores that all methods have."""
    found = {name: _by_fold(runs, group, metric) for name, runs in rows.items()}
    shared = set.intersection(*(set(of) for of in found.values())) if found else set()
    return {name: _over_folds({k: of[k] for k in sorted(shared)}) for name, of in found.items()}


def ranks(units: Mapping[str, Units], lower: bool = False) -> Ranks:
    """Of `common_units`.  lower: less is better."""
    keys = list(next(iter(units.values())))
    score_MxU = np.array([[of[k] for k in keys] for of in units.values()], float)
    seeds = sorted({seed for _, seed in keys})
    worst = np.max if lower else np.min
    worst_MxS = np.array([
        [worst([v for (_, own), v in of.items() if own == seed]) for seed in seeds]
        for of in units.values()
    ])

    def means(value_MxJ):
        if value_MxJ.shape[1] < 2:
            return {}
        value_MxJ = np.round(value_MxJ, 9)  # the order of a sum breaks no tie
        rank_MxJ = stats.rankdata(value_MxJ if lower else -value_MxJ, axis=0)
        return dict(zip(units, rank_MxJ.mean(1).tolist()))

    return Ranks(means(score_MxU), means(worst_MxS), len(keys), len(seeds))


def difference(ours: Units, theirs: Units) -> Difference:
    """Of two methods' scores at the same units."""
    centers, seeds = (sorted(set(x)) for x in zip(*ours))
    gap_CxS = np.full((len(centers), len(seeds)), np.nan)
    for (center, seed), score in ours.items():
        gap_CxS[centers.index(center), seeds.index(seed)] = score - theirs[center, seed]
    low, high = _interval(gap_CxS) if len(centers) >= FEW else (np.nan, np.nan)
    p = sign_flips(np.nanmean(gap_CxS, 1)) if len(centers) > 1 else np.nan
    mean = float(np.nanmean(gap_CxS))
    return Difference(mean, low, high, p, len(ours), len(centers), len(seeds))


def differences(
    rows: Mapping[str, Sequence[Summary]], reference: str, group: str, metric: str
) -> dict[str, Difference]:
    """{method: how far the reference is above it}, without methods that share no unit with it."""
    found = {}
    for name in rows:
        if name != reference:
            pair = {'ours': rows[reference], 'theirs': rows[name]}
            units = common_units(pair, group, metric)
            if units['ours']:
                found[name] = difference(**units)
    return found


def sign_flips(gap_C: np.ndarray) -> float:
    """The two-sided p value of a mean under flips of signs, all of them if they are few."""
    found = stats.permutation_test(
        (gap_C,), np.mean, permutation_type='samples', n_resamples=MOST_FLIPS, rng=0
    )
    return float(found.pvalue)


def holm(p_M: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values, in the order given; what is NaN stays so and counts for none."""
    value_M = np.asarray(p_M, float)
    adjusted_M = np.full(len(value_M), np.nan)
    order = np.argsort(value_M)[: np.isfinite(value_M).sum()]  # NaN comes last
    factor = np.arange(len(order), 0, -1)
    adjusted_M[order] = np.minimum(1, np.maximum.accumulate(factor * value_M[order]))
    return adjusted_M


def compared_rows(
    summaries: Sequence[Summary], metric: str, reference: str | None
) -> tuple[dict[str, list[Summary]], str]:
    """(rows, the reference) of runs, without a base alone that scores as another row to the bit.

    After a method stands what it is with steps at unseen centers, where all its runs have them.
    """
    rows = rows_of(summaries)
    reference = reference_of(rows, reference)
    kept: dict[str, list[Summary]] = {}
    for name, runs in rows.items():
        others = [of for other, of in rows.items() if other != name]
        alone = name not in {s['method'] for s in summaries}
        if name == reference or not (alone and any(_same(runs, of, metric) for of in others)):
            kept[name] = runs
        if all(r.get('adapted') for r in runs):
            kept[name + ADAPTED] = [adapted_of(r) for r in runs]
    return kept, reference


def adapted_of(summary: Summary) -> Summary:
    """A run whose unseen centers have their adapted models; seen ones have theirs."""
    return {**summary, 'unseen': summary['adapted']}  # type: ignore[typeddict-item]


def _same(runs, others, metric) -> bool:
    return all(
        _by_fold(runs, group, metric) == _by_fold(others, group, metric)
        for group in ('seen', 'unseen')
    )


def _by_fold(runs, group, metric) -> dict[tuple[str, int, str], float]:
    """{(center, seed, held-out centers): score}; drawn centers of another seed are others."""
    return {
        (f'{center}, seed {r["seed"]}' if is_drawn(r) else center, r['seed'], r['held_out']):
            scores[metric]
        for r in runs
        for center, scores in (r[group] or {'centers': {}})['centers'].items()
        if scores.get(metric) is not None
    }


def _over_folds(found) -> Units:
    folds: dict[Unit, list[float]] = {}
    for (center, seed, _), score in found.items():
        folds.setdefault((center, seed), []).append(score)
    return {unit: float(np.mean(of)) for unit, of in folds.items()}


def _interval(gap_CxS) -> tuple[float, float]:
    """The percentile interval of the mean over both factors' resamples."""
    rng, (num_centers, num_seeds) = np.random.default_rng(0), gap_CxS.shape

    def counts(n):
        return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)

    count_BxC, count_BxS = counts(num_centers), counts(num_seeds)
    known_CxS = np.isfinite(gap_CxS)
    sum_B = ((count_BxC @ np.where(known_CxS, gap_CxS, 0)) * count_BxS).sum(1)
    weight_B = ((count_BxC @ known_CxS) * count_BxS).sum(1)
    mean_B = sum_B[weight_B > 0] / weight_B[weight_B > 0]
    low, high = np.percentile(mean_B, EDGES)
    return float(low), float(high)
