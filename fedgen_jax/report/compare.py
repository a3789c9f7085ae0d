"""Numbers over many runs: means over seeds, and differences between two methods."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fedgen_jax.report.summaries import base_of, center_model_of
from fedgen_jax.schema import Summary

# A kind of model -> its blocks in a summary.
BLOCKS: dict[str, Callable[[Summary], Any]] = {
    'own': lambda s: s,
    'without own steps': lambda s: {
        'seen': (s.get('own') or {'generated': s['seen']})['generated']
    },
    'fine-tuned': lambda s: s.get('finetuned'),
    'center model': center_model_of,
    'shuffled': lambda s: s['controls']['shuffled'],
    'adapted': lambda s: {'unseen': s.get('adapted')},
}


class Spread(NamedTuple):
    """A mean over seeds, its standard deviation (0 of one seed), and how many seeds there are."""

    mean: float
    deviation: float
    seeds: int


class Gap(NamedTuple):
    """How far one method is above another, paired by held-out centers and seed.

    fold:   {held-out centers: the mean over seeds}.
    half:   half the 95 % interval of their mean, by Student's t over the folds; NaN for one fold.
    better: pairs in which it is better; pairs: all of them.
    """

    fold: dict[str, float]
    mean: float
    half: float
    better: int
    pairs: int


def rows_of(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Runs by method, in order of appearance; after the first its base alone, if it refines one.

    So too after a method that was run on other held-out centers, with which no base here compares.
    """
    rows: dict[str, list[Summary]] = {}
    held_out: dict[str, set] = {}
    for s in summaries:
        held_out.setdefault(s['method'], set()).add(s['held_out'])
    first = next(iter(held_out), '')
    for s in summaries:
        method = s['method']
        rows.setdefault(method, []).append(s)
        own = method == first or held_out[method].isdisjoint(held_out[first])
        if own and 'base' in s:
            rows.setdefault(f'{method}: base alone', []).append(base_of(s))
    return rows


def score(summary: Summary, kind: str, group: str, level: str, metric: str) -> float | None:
    """A block's mean or worst score; None where the run lacks it."""
    blocks = BLOCKS[kind](summary) or {}
    return (blocks.get(group) or {}).get(level, {}).get(metric)


def is_drawn(summary: Summary) -> bool:
    """Whether its centers are drawn, so that those of one name are others with each seed."""
    return summary['config'].get('data', {}).get('source') == 'synthetic'


def complete(runs: Sequence[Summary]) -> Sequence[Summary]:
    """The runs of seeds that have all held-out centers of the runs; all runs if there is none."""
    folds = {r['held_out'] for r in runs}
    of_seed: dict[int, set] = {}
    for r in runs:
        of_seed.setdefault(r['seed'], set()).add(r['held_out'])
    return [r for r in runs if of_seed[r['seed']] == folds] or runs


def over_seeds(runs: Sequence[Summary], value: Callable) -> Spread | None:
    """The spread of `value(runs of one seed)`; None where no seed has one.

    Over the seeds that have all of a method's held-out centers, if there is one: means of other
    centers are no other draw of the same mean.
    """
    runs = complete(runs)
    seeds = sorted({r['seed'] for r in runs})
    values = [value([r for r in runs if r['seed'] == seed]) for seed in seeds]
    values = [v for v in values if v is not None]
    if not values:
        return None
    return Spread(float(np.mean(values)), float(np.std(values, ddof=len(values) > 1)), len(values))


def block_value(kind: str, group: str, level: str, metric: str, lower: bool = False) -> Callable:
    """A value of one seed's runs: the mean over folds of a block's mean or worst score.

    Of 'unseen', where a fold holds out one center, 'worst' is the worst fold.  lower: the worst is
    the highest.
    """

    def value(runs):
        scores = [score(r, kind, group, level, metric) for r in runs]
        found = [v for v in scores if v is not None]
        if not found:
            return None
        if (group, level) == ('unseen', 'worst'):
            return max(found) if lower else min(found)
        return float(np.mean(found))

    return value


def paired(
    reference: Sequence[Summary],
    runs: Sequence[Summary],
    kind: str,
    group: str,
    metric: str,
    lower: bool = False,
) -> Gap | None:
    """How far `reference` is above `runs`; None where no fold and seed has both."""
    ours = {(r['held_out'], r['seed']): score(r, kind, group, 'mean', metric) for r in reference}
    fold: dict[str, list[float]] = {}
    for r in runs:
        mine = ours.get((r['held_out'], r['seed']))
        its = score(r, kind, group, 'mean', metric)
        if mine is not None and its is not None:
            fold.setdefault(r['held_out'], []).append(mine - its)
    if not fold:
        return None
    gaps = [gap for of in fold.values() for gap in of]
    better = sum(g < 0 if lower else g > 0 for g in gaps)
    # Seeds of one fold share its centers, so they are no independent trials.
    means = {name: float(np.mean(v)) for name, v in fold.items()}
    half = float('nan')
    if len(means) > 1:
        error = np.std(list(means.values()), ddof=1) / len(means) ** 0.5
        half = float(stats.t.ppf(0.975, len(means) - 1) * error)
    return Gap(means, float(np.mean(list(means.values()))), half, better, len(gaps))


def reference_of(rows: dict[str, list[Summary]], name: str | None) -> str:
    """The method that differences are taken from: the named one, else the first."""
    if name is None:
        return next(iter(rows))
    if name not in rows:
        raise ValueError(f'--reference={name}: no such method; there are {"; ".join(rows)}')
    return name
