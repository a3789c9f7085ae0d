"""Numbers over many runs: the rows of a table, and their means over seeds."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.report.summaries import BASE_ALONE, base_of, center_model_of
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


ADAPTED = ', adapted'  # after a method's name: with steps without labels at unseen centers


class Spread(NamedTuple):
    """A mean over seeds, its standard deviation (0 of one seed), and how many seeds there are."""

    mean: float
    deviation: float
    seeds: int


def rows_of(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Runs by method, in order of appearance; after the first its base alone, if it refines one.

    So too after a method that was run on other held-out centers, with which no base here compares.

    Raises ValueError where a method has the name of a row that is made here or in `ranks`.
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
            rows.setdefault(method + BASE_ALONE, []).append(base_of(s))
    for suffix, block in ((BASE_ALONE, 'base'), (ADAPTED, 'adapted')):
        for method in {s['method'] for s in summaries if s.get(block)}:
            if method + suffix in held_out:
                raise ValueError(
                    f'method={method + suffix!r}: the name of a row that tables make of '
                    f'{method!r}: give its runs another method'
                )
    return rows


def score(summary: Summary, kind: str, group: str, level: str, metric: str) -> float | None:
    """A block's mean or worst score; None where the run lacks it."""
    blocks = BLOCKS[kind](summary) or {}
    return (blocks.get(group) or {}).get(level, {}).get(metric)


def is_drawn(summary: Summary) -> bool:
    """Whether its centers are drawn, so that those of one name are others with each seed."""
    return summary['config'].get('data', {}).get('source') == 'synthetic'


def by_seed(runs: Sequence[Summary]) -> list[list[Summary]]:
    """The runs of each seed that has all held-out centers of the runs.

    Where there is no such seed, all runs as if of one: means of other centers are no other draw of
    the same mean.
    """
    folds = {r['held_out'] for r in runs}
    of_seed: dict[int, list[Summary]] = {}
    for r in runs:
        of_seed.setdefault(r['seed'], []).append(r)
    whole = [of for _, of in sorted(of_seed.items()) if {r['held_out'] for r in of} == folds]
    return whole or [list(runs)]


def complete(runs: Sequence[Summary]) -> list[Summary]:
    """The runs of `by_seed`, together."""
    return [r for of in by_seed(runs) for r in of]


def over_seeds(runs: Sequence[Summary], value: Callable) -> Spread | None:
    """The spread of `value(runs of one seed)` over those of `by_seed`; None where none has one."""
    values = [v for of in by_seed(runs) if (v := value(of)) is not None]
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


def reference_of(rows: dict[str, list[Summary]], name: str | None) -> str:
    """The method that differences are taken from: the named one, else the first."""
    if name is None:
        return next(iter(rows))
    if name not in rows:
        raise ValueError(f'--reference={name}: no such method; there are {"; ".join(rows)}')
    return name
