"""Mean ranks of methods, and the differences of one method to each other.

The unit is a score at one center with one seed, as in `differences`.  It is the same where each
run holds out one center and where one run has many unseen ones.

References:
    Demsar 2006, Statistical comparisons of classifiers over multiple data sets (mean ranks).
    Holm 1979, A simple sequentially rejective multiple test procedure.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fedgen_jax.report.compare import ADAPTED, is_drawn, reference_of, rows_of
from fedgen_jax.report.differences import Difference, Units, by_fold, common_units, difference
from fedgen_jax.schema import Summary


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


def differences(
    rows: Mapping[str, Sequence[Summary]], reference: str, group: str, metric: str,
    lower: bool = False, kind: str = 'own',
) -> dict[str, Difference]:
    """{method: how far the reference is above it}, without methods that share no unit with it."""
    found = {}
    for name in rows:
        if name != reference:
            pair = {'ours': rows[reference], 'theirs': rows[name]}
            units = common_units(pair, group, metric, kind)
            if units['ours']:
                nested = any(map(is_drawn, [*rows[reference], *rows[name]]))
                found[name] = difference(**units, lower=lower, nested=nested)
    return found


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
        by_fold(runs, group, metric) == by_fold(others, group, metric)
        for group in ('seen', 'unseen')
    )
