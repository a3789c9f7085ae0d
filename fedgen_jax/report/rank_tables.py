"""Mean ranks and differences with their uncertainty (`ranks`) in Markdown."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedgen_jax.intervals import FEW
from fedgen_jax.report.ranks import (
    ADAPTED,
    Difference,
    Ranks,
    common_units,
    compared_rows,
    differences,
    holm,
    ranks,
)
from fedgen_jax.report.tables import GROUPS, markdown
from fedgen_jax.report.words import NONE, Measure, headline, measure, titled
from fedgen_jax.schema import Summary


def rank_tables(summaries: Sequence[Summary], reference: str | None = None) -> str:
    """All tables of one set of runs, of the metric that stands for its task.

    reference: the method that the others are compared with, and its adapted models with them, where
        it has some; None: the first.
    """
    metric = headline(summaries[0])
    of = measure(summaries, metric)
    rows, reference = compared_rows(summaries, metric, reference)
    if len(rows) < 2:
        return f'Nothing is ranked: {reference} is the only method.'
    by_group = {g: ranks(common_units(rows, g, metric), of.lower) for g in GROUPS}
    gaps = {g: differences(rows, reference, g, metric) for g in GROUPS}
    adapted, over = reference + ADAPTED, 'over centers and seeds'
    unseen = {'unseen': differences(rows, adapted, 'unseen', metric)} if adapted in rows else {}
    return '\n\n'.join([
        f'### {titled(metric)}: mean rank',
        *_ranked(by_group, list(rows)),
        f'### {titled(metric)}: {reference} less each other method, {over}',
        _gaps(gaps, [name for name in rows if name != reference], reference, of),
        *([f'### {titled(metric)}: {adapted}, less each other method, {over}',
           _gaps(unseen, [name for name in rows if name != adapted], adapted, of)]
          if unseen else []),
        _note(gaps),
        *_adapted(rows),
    ])


def _adapted(rows: Mapping[str, Sequence[Summary]]) -> list[str]:
    """What a row of adapted models is, where there are some."""
    found = {s['config'].get('adapt', {}).get('steps')
             for name, runs in rows.items() if name.endswith(ADAPTED) for s in runs}
    if not found:
        return []
    steps = ' or '.join(map(str, sorted(found)))
    return [
        f'`METHOD{ADAPTED}`: after {steps} steps at each unseen center, on its unlabelled images '
        '(`adapt.steps`); seen centers have the model that they had before.'
    ]


def _ranked(by_group: Mapping[str, Ranks], names: Sequence[str]) -> list[str]:
    columns = {g: r.mean for g, r in by_group.items() if r.mean}
    columns |= {f'{g}, worst': r.worst for g, r in by_group.items() if r.worst}
    over = [_over(g, r) for g, r in by_group.items()]
    said = ' '.join([
        f'Ranks are among {len(names)} methods, 1 for the best, and ties share the mean of theirs.',
        *over,
    ])
    if not columns:
        return [said]
    body = [[name, *(f'{round(of[name], 6):.1f}' for of in columns.values())] for name in names]
    return [said, markdown(['method', *columns], body)]


def _over(group: str, found: Ranks) -> str:
    """What the ranks of a group are over, a sentence or two."""
    scores = f'{found.units} score{"" if found.units == 1 else "s"}'
    if not found.mean:
        return f'{group.title()}: all methods have {scores} in common, and nothing is ranked.'
    seeds = f'{found.seeds} seed{"" if found.seeds == 1 else "s"}'
    worst = f'that of the worst center, over the {seeds}'
    return (
        f'{group.title()}: the mean rank over the {scores} (of one center and seed) that all '
        f'methods have, and {worst if found.worst else f"no rank of the worst center: {seeds}"}.'
    )


def _gaps(gaps, names, reference, of: Measure) -> str:
    adjusted = {
        g: dict(zip(found, holm([x.p for x in found.values()]))) for g, found in gaps.items()
    }

    def cells(name, group):
        found = gaps[group].get(name)
        return [_gap(found, of), _p(adjusted[group][name])] if found else [NONE, NONE]

    body = [[name, *(x for g in gaps for x in cells(name, g))] for name in names]
    return markdown([f'{reference} less …', *(x for g in gaps for x in (g, f'p, {g}'))], body)


def _gap(found: Difference, of: Measure) -> str:
    def signed(value):
        return f'{round(of.scale * value, 6):+.1f}'

    between = '' if np.isnan(found.low) else f' [{signed(found.low)}, {signed(found.high)}]'
    return f'{signed(found.mean)}{between} ({found.units} of {found.centers})'


def _p(value: float) -> str:
    if np.isnan(value):
        return NONE
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _note(gaps: Mapping[str, Mapping[str, Difference]]) -> str:
    found = [x for of in gaps.values() for x in of.values()]
    one_seed = any(x.seeds == 1 for x in found)
    return ' '.join([
        'In brackets: 95 % interval by bootstrap, over centers and over seeds independently; none '
        f'for fewer than {FEW} centers. In parentheses: scores of one center and seed that both '
        'methods have, and of how many centers they are. p: two-sided, by flips of the signs of '
        "the centers' differences, with Holm's correction over the methods of its column; before "
        'it, n centers give no p below 2^(1-n).',
        *['Of one seed, neither says anything of other training runs.'] * one_seed,
    ])
