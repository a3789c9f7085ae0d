"""How far one method is above another, with its uncertainty over centers and seeds.

The unit is a score at one center with one seed, the mean over the folds that both methods have: a
seen center is scored in many folds, which share most of their training and are no trials of their
own.  Centers and seeds are random and crossed; then the mean over both has the variance

    V = V_c + V_s - V_e

of the centers' means, of the seeds' means, and of what is left of either, and Satterthwaite's
degrees of freedom; where the seeds' means vary no more than the centers' would have them, and with
one seed, it is Student's t over centers.  A drawn center is another one with each seed, and the
centers of a seed share its training: then it is Student's t over the means of seeds, however near
each other these lie.

References:
    Satterthwaite 1946, An approximate distribution of estimates of variance components.
    Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering (V, section 2.1).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fedgen_jax.report.compare import BLOCKS, is_drawn
from fedgen_jax.schema import Summary

LEAST = 3  # centers, or seeds of drawn ones, that an interval is of

Unit = tuple[str, int]  # center, seed
Units = dict[Unit, float]


class Difference(NamedTuple):
    """How far one method is above another at the units that both have.

    low, high: the 95 % interval; p: two-sided, of the same test, before a correction.  NaN for
        fewer than `LEAST` centers, or seeds of drawn centers.
    of:        {center: the mean over its seeds}.
    units:     how many (center, seed) scores it is the mean of.
    better:    in how many of them it is better.
    nested:    whether centers are others with each seed.
    """

    mean: float
    low: float
    high: float
    p: float
    of: dict[str, float]
    units: int
    better: int
    seeds: int
    nested: bool

    @property
    def centers(self) -> int:
        return len(self.of)


def common_units(
    rows: Mapping[str, Sequence[Summary]], group: str, metric: str, kind: str = 'own'
) -> dict[str, Units]:
    """{method: {(center, seed): score}} of the scores that all methods have.

    kind: of models, a name of `compare.BLOCKS`.
    """
    found = {name: by_fold(runs, group, metric, kind) for name, runs in rows.items()}
    shared = set.intersection(*(set(of) for of in found.values())) if found else set()
    return {name: _over_folds({k: of[k] for k in sorted(shared)}) for name, of in found.items()}


def by_fold(
    runs: Sequence[Summary], group: str, metric: str, kind: str = 'own'
) -> dict[tuple[str, int, str], float]:
    """{(center, seed, held-out centers): score}; drawn centers of another seed are others."""
    return {
        (f'{center}, seed {r["seed"]}' if is_drawn(r) else center, r['seed'], r['held_out']):
            scores[metric]
        for r in runs
        for center, scores in ((BLOCKS[kind](r) or {}).get(group) or {'centers': {}})[
            'centers'].items()
        if scores.get(metric) is not None and np.isfinite(scores[metric])
    }


def _over_folds(found) -> Units:
    folds: dict[Unit, list[float]] = {}
    for (center, seed, _), score in found.items():
        folds.setdefault((center, seed), []).append(score)
    return {unit: float(np.mean(of)) for unit, of in folds.items()}


def difference(
    ours: Units, theirs: Units, lower: bool = False, nested: bool = False
) -> Difference:
    """Of two methods' scores at the same units.

    lower: less is better.  nested: whether centers are others with each seed.
    """
    centers, seeds = (sorted(set(x)) for x in zip(*ours))
    gap_CxS = np.full((len(centers), len(seeds)), np.nan)
    for (center, seed), score in ours.items():
        gap_CxS[centers.index(center), seeds.index(seed)] = score - theirs[center, seed]
    nested &= len(seeds) > 1
    mean, variance, freedom = _of_means(np.nanmean(gap_CxS, 0)) if nested else over_both(gap_CxS)
    low = high = p = np.nan
    if (len(seeds) if nested else len(centers)) >= LEAST:
        error = variance**0.5
        half = stats.t.ppf(0.975, freedom) * error
        low, high = mean - half, mean + half
        p = 2 * stats.t.sf(abs(mean) / error, freedom) if error else float(mean == 0)
    known = gap_CxS[np.isfinite(gap_CxS)]
    better = int(np.sum(known < 0 if lower else known > 0))
    of = dict(zip(centers, np.nanmean(gap_CxS, 1).tolist()))
    return Difference(
        float(mean), float(low), float(high), float(p), of, len(ours), better, len(seeds), nested
    )


def over_both(gap_CxS: np.ndarray) -> tuple[float, float, float]:
    """(mean, its variance, degrees of freedom) of centers that are the same with each seed.

    The seeds' part is taken from the seeds that all centers have.
    """
    mean, of_centers, freedom = _of_means(np.nanmean(gap_CxS, 1))
    whole_CxS = gap_CxS[:, np.isfinite(gap_CxS).all(0)]
    if min(whole_CxS.shape) < 2:
        return mean, of_centers, freedom
    _, of_seeds, more = _of_means(whole_CxS.mean(0))
    left_CxS = whole_CxS - whole_CxS.mean(0) - whole_CxS.mean(1, keepdims=True) + whole_CxS.mean()
    of_rest = np.sum(left_CxS**2) / (freedom * more) / left_CxS.size
    if of_seeds <= of_rest:
        return mean, of_centers, freedom
    variance = of_centers + of_seeds - of_rest
    parts = of_centers**2 / freedom + of_seeds**2 / more + of_rest**2 / (freedom * more)
    found, fewest = variance**2 / parts, min(freedom, more)
    if found >= fewest:
        return mean, variance, found
    # A difference of estimates may be near 0 by chance, and so its degrees of freedom.
    return mean, max(variance, of_centers, of_seeds), fewest


def _of_means(mean_N: np.ndarray) -> tuple[float, float, float]:
    """(mean, its variance, degrees of freedom) of independent means."""
    n = len(mean_N)
    variance = float(np.var(mean_N, ddof=1)) / n if n > 1 else np.nan
    return float(np.mean(mean_N)), variance, n - 1
