"""Mean ranks and differences with their uncertainty (`ranks`) in Markdown."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedgen_jax.report.compare import ADAPTED
from fedgen_jax.report.differences import Difference, common_units
from fedgen_jax.report.lacking import other_images
from fedgen_jax.report.ranks import Ranks, compared_rows, differences, holm, ranks
from fedgen_jax.report.tables import gap_text, how, markdown
from fedgen_jax.report.words import NONE, Measure, headline, measure, titled
from fedgen_jax.schema import GROUPS, Summary


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
    # Seen centers have no other models where unseen ones are adapted.
    own = {name: runs for name, runs in rows.items() if not name.endswith(ADAPTED)}
    of_group = {'seen': own, 'unseen': rows}
    by_group = {g: ranks(common_units(of_group[g], g, metric), of.lower) for g in GROUPS}
    gaps = {g: differences(of_group[g], reference, g, metric) for g in GROUPS}
    adapted, over = reference + ADAPTED, 'over centers and seeds'
    unseen = {'unseen': differences(rows, adapted, 'unseen', metric)} if adapted in rows else {}
    return '\n\n'.join([
        *other_images(rows),
        f'### {titled(metric)}: mean rank',
        *_ranked(by_group, list(rows), len(own)),
        f'### {titled(metric)}: {reference} less each other method, {over}',
        _gaps(gaps, [name for name in rows if name != reference], reference, of),
        *([f'### {titled(metric)}: {adapted}, less each other method, {over}',
           _gaps(unseen, [name for name in rows if name != adapted], adapted, of)]
          if unseen else []),
        _note(gaps | unseen),
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


def _ranked(by_group: Mapping[str, Ranks], names: Sequence[str], num_seen: int) -> list[str]:
    """num_seen: how many of the rows are ranked at seen centers."""
    columns = {g: r.mean for g, r in by_group.items() if r.mean}
    columns |= {f'{g}, worst': r.worst for g, r in by_group.items() if r.worst}
    over = [_over(g, r) for g, r in by_group.items()]
    apart = '' if num_seen == len(names) else f' ({num_seen} at seen centers)'
    said = ' '.join([
        f'Ranks are among {len(names)} methods{apart}, 1 for the best, and ties share the mean of '
        'theirs.',
        *over,
    ])
    if not columns:
        return [said]
    body = [
        [name, *(f'{round(of[name], 6):.1f}' if name in of else NONE for of in columns.values())]
        for name in names
    ]
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
    return f'{gap_text(found, of)} ({found.units} of {found.centers})'


def _p(value: float) -> str:
    if np.isnan(value):
        return NONE
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _note(gaps: Mapping[str, Mapping[str, Difference]]) -> str:
    return ' '.join([
        'In parentheses: scores of one center and seed that both methods have, and of how many '
        "centers they are. p: two-sided, of the interval's test, with Holm's correction over the "
        'methods of its column.',
        how([x for of in gaps.values() for x in of.values()]),
    ])
