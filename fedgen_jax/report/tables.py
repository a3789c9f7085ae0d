"""Tables over many runs in Markdown, from their summaries alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.algorithms import ALGORITHMS, pools
from fedgen_jax.report.compare import (
    Spread,
    block_value,
    by_seed,
    complete,
    is_drawn,
    over_seeds,
    reference_of,
    rows_of,
)
from fedgen_jax.report.differences import LEAST, Difference
from fedgen_jax.report.lacking import incomplete, lacking, left_out, other_images
from fedgen_jax.report.ranks import differences
from fedgen_jax.report.words import (
    NO_SCORE,
    NONE,
    Measure,
    at_size,
    headline,
    kilobytes,
    measure,
    of_class,
    of_strangers,
    readable,
    titled,
)
from fedgen_jax.schema import GROUPS, Summary

COMPARED = (
    ('own', 'seen'), ('without own steps', 'seen'), ('fine-tuned', 'seen'), ('own', 'unseen'),
    ('adapted', 'unseen'),
)


class Column(NamedTuple):
    """A column over runs.  value: runs of one seed -> float; bold: its best is set in bold."""

    title: str
    value: Callable[[Sequence[Summary]], float | None]
    bold: bool = False


def tables(summaries: Sequence[Summary], reference: str | None = None) -> str:
    """Every table of one set of runs: each metric, each unseen center, differences and cost.

    reference: the method that the others are compared with; None: the first.
    """
    rows = rows_of(summaries)
    names = list(dict.fromkeys(k for s in summaries for k in s['seen']['mean']))
    if not names:
        raise ValueError(NO_SCORE)
    metric = headline(summaries[0])
    of = measure(summaries, metric)
    reference = reference_of(rows, reference)
    seeds = max(len(by_seed(runs)) for runs in rows.values())
    count = f'{len(summaries)} run{"s" if len(summaries) > 1 else ""}'
    several = len({s['seed'] for s in summaries}) > 1
    parts = [f'{count}. Scores are in points of 100{_spread(seeds, several)}.', *incomplete(rows)]
    parts += other_images(rows)
    for say in (at_size, of_strangers):
        parts += list(dict.fromkeys(filter(None, map(say, summaries))))
    for name in names:
        own = measure(summaries, name)
        title = titled(name) + of_class(summaries[0], name)
        parts += [f'### {title}{_remark(own)}', *lacking(rows, name), _scores(rows, own)]
    by_center = _per_center(rows, of)
    if by_center:
        parts += [f'### {titled(metric)} of each center as the unseen one', by_center]
    parts += _oracle(rows, of)
    parts += left_out(summaries)
    if len(rows) > 1:
        title = f'### {titled(metric)}: {reference} less each other method'
        parts += [title, _paired(rows, reference, of)]
    return '\n\n'.join([*parts, '### Cost', _cost(rows)])


def _remark(of: Measure) -> str:
    """What a title says of a metric that is no share, or of which less is better."""
    said = ['lower is better'] * of.lower + ['not in points'] * bool(of.unit)
    return f' ({", ".join(said)})' if said else ''


def _oracle(rows, of: Measure) -> list[str]:
    """What labels of an unseen center would gain with a part of the weights, where runs tell."""
    metric = of.name
    kept = {name: runs for name, runs in rows.items() if all(s.get('oracle') for s in runs)}
    found = (s['oracle'] for runs in kept.values() for s in runs)
    parts = list(dict.fromkeys(part for blocks in found for part in blocks))
    if not parts:
        return []

    def value(part):
        def of_part(runs):
            found = [s['oracle'][part]['mean'][metric] for s in runs if part in s['oracle']]
            return float(np.mean(found)) if found else None

        return of_part

    own = block_value('own', 'unseen', 'mean', metric)
    body = [
        [name, *(cell(over_seeds(runs, get), of) for get in (own, *map(value, parts)))]
        for name, runs in kept.items()
    ]
    title = f'### {titled(metric)} at unseen centers with labels: a bound'
    note = (
        'A part of the weights is fitted to the labels of one half of the images, and the other '
        'half is scored.'
    )
    return [title, note, markdown(['', 'without labels', *parts], body)]


def overview(sets: Mapping[str, Sequence[Summary]], reference: str | None = None) -> str:
    """One table of several sets: the headline score of each method, and how it differs.

    sets: {name: runs}.  reference: as in `tables`.
    """
    found = {reference_of(rows_of(summaries), reference) for summaries in sets.values()}
    if len(found) > 1:
        raise ValueError(f'the first methods are {" and ".join(sorted(found))}: pass --reference')
    (ours,) = found
    every = {x: list(of) for x, of in sets.items()}
    kinds = [x for x in compared(every) if x[0] in ('own', 'without own steps')]
    titles = [group if kind == 'own' else f'{group}, {kind}' for kind, group in kinds]
    body, notes, told = [], [], {}
    for name, summaries in sets.items():
        rows, metric = rows_of(summaries), headline(summaries[0])
        of = measure(summaries, metric)
        notes += [f'{name}: {note}' for note in (*incomplete(rows), *other_images(rows))]
        about = f'{name}: {readable(metric)}, {_num_folds(summaries)}'
        columns = [
            Column(title, block_value(*kind, 'mean', metric), True)
            for title, kind in zip(titles, kinds)
        ]
        gaps = [differences(rows, ours, group, metric, of.lower, kind) for kind, group in kinds]
        for method, *scores in _body(rows, columns, of):
            own = [found.get(method) for found in gaps]
            body.append([about, method, *scores, *(gap_text(g, of) if g else NONE for g in own)])
            about = ''  # once, before the set's first method
        told[name] = how([gap for found in gaps for gap in found.values()])
    head = ['set', 'method', *titles, *(f'{ours} less it, {title}' for title in titles)]
    alike = len(set(told.values())) == 1
    notes += [next(iter(told.values()))] if alike else [f'{k}: {v}' for k, v in told.items()]
    return '\n\n'.join([markdown(head, body), *notes])


def _num_folds(summaries) -> str:
    folds = {s['held_out'] for s in summaries}
    alone = all(',' not in str(x) for x in folds) and not any(map(is_drawn, summaries))
    what = 'center' if alone else 'split'
    return f'{len(folds)} {what}{"" if len(folds) == 1 else "s"}'


def by_class(summary: Summary) -> str:
    """The scores of one run's seen centers, all images together, of each class."""
    pooled = summary['seen']['pooled']
    if 'classes' not in pooled:
        raise ValueError(f'{summary["method"]}: its stored runs have no scores of each class')
    names = list(summary['seen']['mean'])
    counts = pooled.get('boxes', {})
    body = [
        [title, f'{counts[title]:,}' if title in counts else '', *(f'{s[m]:.3f}' for m in names)]
        for title, s in [('mean of the classes', pooled), *pooled['classes'].items()]
    ]
    return markdown(['', 'boxes', *map(titled, names)], body)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(
        '| ' + ' | '.join(x.replace('|', r'\|') for x in line) + ' |' for line in lines
    )


def cell(spread: Spread | None, of: Measure) -> str:
    """'71.2 ± 0.8': shares in points of 100, what has a unit in that."""
    if spread is None:
        return NONE
    unit = of.scale
    deviation = f' ± {_one_decimal(unit * spread.deviation)}' if spread.seeds > 1 else ''
    return _one_decimal(unit * spread.mean) + deviation


def _one_decimal(value, sign=''):
    """Rounded twice, so that the order of a sum does not decide where 42.25 goes."""
    return f'{round(value, 6):{sign}.1f}'


def _body(rows, columns, of: Measure) -> list[list[str]]:
    """A line for each method: its name and its cells, the best of a column in bold.

    Only where all methods have the same runs.
    """
    made = [{(r['held_out'], r['seed']) for r in complete(runs)} for runs in rows.values()]
    alike = all(own == made[0] for own in made)
    spread_MxJ = [[over_seeds(runs, c.value) for c in columns] for runs in rows.values()]
    lines = [[name, *(cell(x, of) for x in own)] for name, own in zip(rows, spread_MxJ)]
    for j, column in enumerate(columns):
        spreads = [own[j] for own in spread_MxJ]
        means = [x.mean for x in spreads if x]
        if column.bold and alike and len(rows) > 1 and means:
            top = cell(Spread((min if of.lower else max)(means), 0.0, 1), of)
            for line, x in zip(lines, spreads):
                if x and cell(x._replace(seeds=1), of) == top:
                    line[j + 1] = f'**{line[j + 1]}**'
    return lines


def _table(rows, columns, of: Measure) -> str:
    """The table of `_body`, without the columns that no method has."""
    lines = _body(rows, columns, of)
    kept = [0, *(j + 1 for j in range(len(columns)) if any(x[j + 1] != NONE for x in lines))]
    head = ['method', *(c.title for c in columns)]
    return markdown([head[j] for j in kept], [[line[j] for j in kept] for line in lines])


def compared(rows) -> list[tuple[str, str]]:
    """(kind of model, group) of the columns; the second kind where a seen center may choose one."""
    chosen = any(r.get('own') for runs in rows.values() for r in runs)
    return [x for x in COMPARED if chosen or x[0] != 'without own steps']


def _scores(rows, of: Measure):
    columns = [
        Column(
            ', '.join([group, *[kind] * (kind != 'own'), *['worst'] * (level == 'worst')]),
            block_value(kind, group, level, of.name, of.lower),
            True,
        )
        for kind, group in compared(rows)
        for level in ('mean', 'worst')
    ]
    columns += [
        Column(f'{kind}: {group}', block_value(kind, group, 'mean', of.name))
        for kind in ('center model', 'shuffled')
        for group in GROUPS
    ]
    return _table(rows, columns, of)


def _per_center(rows, measured: Measure):
    """Of each unseen center; of drawn ones over several seeds none: each seed has its own."""
    seeds = {r['seed'] for runs in rows.values() for r in runs}
    if len(seeds) > 1 and any(is_drawn(r) for runs in rows.values() for r in runs):
        return ''
    images = {}
    for runs in rows.values():
        for r in runs:
            for name, s in (r['unseen'] or {'centers': {}})['centers'].items():
                images[name] = s['n']

    def value(name):
        def of(runs):
            scores = [(r['unseen'] or {'centers': {}})['centers'].get(name, {}) for r in runs]
            found = [s[measured.name] for s in scores if measured.name in s]
            return float(np.mean(found)) if found else None

        return of

    columns = [Column(f'{n} ({images[n]} images)', value(n), True) for n in sorted(images)]
    return _table(rows, columns, measured) if columns else ''


def _paired(rows, reference, of: Measure):
    kinds = compared(rows)
    gaps = [differences(rows, reference, g, of.name, of.lower, kind) for kind, g in kinds]

    def text(found):
        return f'{gap_text(found, of)} ({found.better} of {found.units})' if found else NONE

    body = [
        [row, *(text(found.get(row)) for found in gaps)] for row in rows if row != reference
    ]
    titles = {
        'own': '', 'without own steps': ', both without own steps',
        'fine-tuned': ', both fine-tuned', 'adapted': ', both adapted',
    }
    head = [f'{reference} less …', *(group + titles[kind] for kind, group in kinds)]
    kept = [j for j in range(len(head)) if any(line[j] != NONE for line in body)]
    note = (
        'A score is of one center and seed, the mean over the folds that both methods have. In '
        f'parentheses: in how many of them {reference} is better. '
        + how([gap for found in gaps for gap in found.values()])
    )
    table = markdown([head[j] for j in kept], [[line[j] for j in kept] for line in body])
    return f'{table}\n\n{note}'


def gap_text(found: Difference, of: Measure) -> str:
    """'+2.0 [0.5, 3.5]': how far one method is above another, and the 95 % interval if known."""
    mean, low, high = (
        _one_decimal(of.scale * x, '+') for x in (found.mean, found.low, found.high)
    )
    return mean if np.isnan(found.low) else f'{mean} [{low}, {high}]'


def how(found: Sequence[Difference]) -> str:
    """What intervals are over, for the note below a table."""
    nested, seeds = any(x.nested for x in found), max((x.seeds for x in found), default=1)
    over = 'centers, each the mean of its seeds, and seeds, by two-way random effects'
    if nested:
        over = (
            f'the means of {seeds} seeds, whose centers are others each, and may be narrow by '
            'chance where these are few'
        )
    elif seeds == 1:
        over = 'centers, of one seed, and tells nothing of other training runs'
    unit = 'seeds' if nested else 'centers'
    return (
        f"In brackets: the 95 % interval by Student's t is over {over}; none for fewer than "
        f'{LEAST} {unit}.'
    )


def _spread(seeds, several):
    if several and seeds == 1:
        return '; no two seeds have the same held-out centers, so that none has a deviation'
    return f', as mean ± standard deviation over {seeds} seeds' if seeds > 1 else '; one seed'


def _cost(rows):
    def median(runs, field):
        values = [r['cost'][field] for r in runs]
        known = [v for v in values if v is not None]
        return float(np.median(known)) if known else None

    parts = list(dict.fromkeys(p for runs in rows.values() for p in runs[0]['cost']['parameters']))
    body = []
    for row, runs in rows.items():
        sizes, devices = runs[0]['cost']['parameters'], sorted({r['device'] for r in runs})
        seconds = median(runs, 'round_seconds') if len(devices) == 1 else None
        sent = [kilobytes(median(runs, f)) for f in ('bytes_up', 'bytes_down')]
        body.append([
            row,
            *(f'{sizes[p]:,}' if p in sizes else NONE for p in parts),
            *sent,
            NONE if seconds is None else f'{seconds:.2f}',
            ', '.join(devices),
            ', '.join(runs[0].get('at_unseen', [])) or NONE,
            _needed(runs[0]),
        ])
    head = ['method', *(f'parameters: {p}' for p in parts), 'kB up', 'kB down', 's a round', 'on',
            'an unseen center uses', 'the server needs']
    return markdown(head, body) + (
        '\n\nkB are 1000 bytes, of one client in one round. An unseen center uses no label. The '
        'server needs the sum of what clients send, or each.'
    )


def _needed(run: Summary) -> str:
    """What the server needs of what clients send."""
    if not run['cost']['bytes_up']:
        return 'all images' if run['algorithm'] in ALGORITHMS and pools(run['algorithm']) else (
            'nothing'
        )
    return 'sum' if run.get('sum_only', True) else 'each'
