"""Tables over many runs, from their `summary.json` alone."""

import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

NO_SCORE = (
    'no seen center has a score: the test images of each show nothing, or fewer than 10 boxes of '
    'every class: give them more test images'
)


def read_summaries(folders: Sequence[str | pathlib.Path]) -> list[dict]:
    """Every `summary.json` below the folders; all of one task, scored on the same split."""
    files = sorted(f for folder in folders for f in pathlib.Path(folder).rglob('summary.json'))
    if not files:
        raise ValueError(f'{", ".join(map(str, folders))}: no summary.json below')
    summaries = [json.loads(f.read_text()) for f in files]
    for field in ('task', 'score_on'):
        found = sorted({s[field] for s in summaries})
        if len(found) > 1:
            raise ValueError(
                f'{", ".join(map(str, folders))}: {field} is {" and ".join(found)}: '
                'a table takes runs of one kind: name the folders of one'
            )
    return summaries


def rows_of(summaries: Sequence[dict]) -> dict[str, list[dict]]:
    """Runs by table row: the methods in order of appearance and, where made, their fine-tuning."""
    rows = {}
    for s in summaries:
        rows.setdefault(s['method'], []).append(s)
        if s.get('finetuned'):
            tuned = {**s, **s['finetuned'], 'center_model': None, 'controls': {'shuffled': None}}
            rows.setdefault(s['method'] + ' + fine-tuning', []).append(tuned)
    return rows


def over_seeds(runs: Sequence[dict], value) -> tuple[float, float, int]:
    """(mean, standard deviation, number) over seeds of `value(runs of one seed)`."""
    seeds = sorted({r['seed'] for r in runs})
    values = [value([r for r in runs if r['seed'] == seed]) for seed in seeds]
    values = [v for v in values if v is not None]
    if not values:
        return float('nan'), float('nan'), 0
    return float(np.mean(values)), float(np.std(values, ddof=len(values) > 1)), len(values)


def block_value(
    group: str, level: str, metric: str, where: Sequence[str] = (), lower: bool = False
):
    """A value of one seed's runs: the mean over folds of a block's mean or worst score.

    Of `unseen`, where a fold holds out one center, 'worst' is the worst fold.  lower: the worst is
    the highest.
    """

    def value(runs):
        blocks = []
        for r in runs:
            for key in where:
                r = (r or {}).get(key)
            if r and r.get(group) and metric in r[group][level]:
                blocks.append(r[group][level][metric])
        if not blocks:
            return None
        if (group, level) == ('unseen', 'worst'):
            return max(blocks) if lower else min(blocks)
        return float(np.mean(blocks))

    return value


def cell(stats: tuple[float, float, int], lower: bool = False) -> str:
    """'71.2 ± 0.8': in points of 100; of lengths and errors, where less is better, as they are."""
    unit = 1 if lower else 100
    mean, sd, n = unit * stats[0], unit * stats[1], stats[2]
    return '–' if n == 0 else f'{mean:.1f} ± {sd:.1f}' if n > 1 else f'{mean:.1f}'


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def tables(summaries: Sequence[dict]) -> str:
    """The tables of RESULTS.md: methods, unseen centers, paired differences, cost."""
    rows = rows_of(summaries)
    names = list(dict.fromkeys(k for s in summaries for k in s['seen']['mean']))
    if not names:
        raise ValueError(NO_SCORE)
    metric, lower = names[0], names[0] in summaries[0]['lower_is_better']
    parts = [f'{len(summaries)} runs; mean ± standard deviation over seeds, in points of 100.']
    for name in names:
        less = name in summaries[0]['lower_is_better']
        columns = [
            (f'{group} {level}', block_value(group, level, name, lower=less))
            for group in ('seen', 'unseen') for level in ('mean', 'worst')
        ] + [
            (f'{group} mean, {title}', block_value(group, 'mean', name, where))
            for title, where in (
                ('center model', ['center_model']), ('shuffled', ['controls', 'shuffled'])
            )
            for group in ('seen', 'unseen')
        ]  # fmt: skip
        body = [
            [row, *(cell(over_seeds(runs, value), less) for _, value in columns)]
            for row, runs in rows.items()
        ]
        unit = ', not in points: lower is better' if less else ''
        parts += [f'**{name}**{unit}', markdown(['method', *(c for c, _ in columns)], body)]
    parts += [f'**{metric}, each center as the unseen one**', _per_center(rows, metric, lower)]
    parts += _left_out(summaries)
    parts += [f'**{metric}, FedGen less the others, paired by fold and seed**']
    parts += [_paired(rows, metric, lower), '**cost**', _cost(rows)]
    return '\n\n'.join(parts)


def _left_out(summaries) -> list[str]:
    """Which classes had too few boxes to count, and where."""
    found = {
        f'{name} at {center} ({s["boxes"][name]} boxes)'
        for summary in summaries
        for group in ('seen', 'unseen')
        for center, s in (summary[group] or {'centers': {}})['centers'].items()
        for name in s.get('left_out', ())
    }
    if not found:
        return []
    return [f"Left out of a center's mean, for too few boxes: {'; '.join(sorted(found))}."]


def _per_center(rows, metric, lower):
    centers = {}
    for runs in rows.values():
        for r in runs:
            for name, s in (r['unseen'] or {'centers': {}})['centers'].items():
                centers[name] = s['n']
    names = sorted(centers)

    def value(name):
        def of(runs):
            found = [
                r['unseen']['centers'][name][metric]
                for r in runs
                if metric in (r['unseen'] or {'centers': {}})['centers'].get(name, {})
            ]
            return float(np.mean(found)) if found else None

        return of

    body = [
        [row, *(cell(over_seeds(runs, value(n)), lower) for n in names)]
        for row, runs in rows.items()
    ]
    return markdown(['method', *(f'{n} (n = {centers[n]})' for n in names)], body)


def _paired(rows, metric, lower):
    """Every row's difference from the first row that is named FedGen."""
    reference = next((name for name in rows if name.startswith('fedgen')), None)
    if reference is None:
        return 'No FedGen run among them.'
    ours = {(r['held_out'], r['seed']): r for r in rows[reference]}

    def compare(runs, group):
        of_fold = {}
        for r in runs:
            mine = ours.get((r['held_out'], r['seed']))
            if mine and all(metric in (x[group] or {'mean': {}})['mean'] for x in (mine, r)):
                gap = mine[group]['mean'][metric] - r[group]['mean'][metric]
                of_fold.setdefault(r['held_out'], []).append(gap)
        if not of_fold:
            return '–'
        gaps, folds = sum(of_fold.values(), []), [np.mean(v) for v in of_fold.values()]
        # Seeds of one fold share its centers, so they are no independent trials.
        error = np.std(folds, ddof=len(folds) > 1) / len(folds) ** 0.5
        won, unit = sum(g < 0 if lower else g > 0 for g in gaps), 1 if lower else 100
        return f'{unit * np.mean(gaps):+.1f} ± {unit * error:.1f} ({won} of {len(gaps)})'

    body = [
        [row, compare(runs, 'seen'), compare(runs, 'unseen')]
        for row, runs in rows.items() if row != reference
    ]  # fmt: skip
    header = [f'{reference} less …', 'seen (better in)', 'unseen (better in)']
    note = '± is the standard error over held-out centers, each the mean of its seeds.'
    return f'{markdown(header, body)}\n\n{note}'


def _cost(rows):
    def median(runs, *keys):
        values = []
        for r in runs:
            for key in ('cost', *keys):
                r = r[key]
            values.append(r)
        known = [v for v in values if v is not None]
        return float(np.median(known)) if known else float('nan')

    body = [
        [
            row,
            f'{median(runs, "bytes_up") / 1024:.0f}',
            f'{median(runs, "bytes_down") / 1024:.0f}',
            f'{median(runs, "round_seconds"):.2f}',
            *(f'{median(runs, "parameters", p):.0f}' for p in ('base', 'generator', 'descriptor')),
            ', '.join(sorted({r['device'] for r in runs})),
        ]
        for row, runs in rows.items()
    ]
    header = ['method', 'KiB up', 'KiB down', 's a round', 'base', 'generator', 'descriptor', 'on']
    return markdown(header, body)


def write_between(file: str | pathlib.Path, mark: str, text: str) -> None:
    """Replaces what stands between `<!-- MARK -->` and `<!-- end -->` in a file."""
    path = pathlib.Path(file)
    old = path.read_text()
    start = f'<!-- {mark} -->'
    if start not in old or '<!-- end -->' not in old.split(start, 1)[1]:
        raise ValueError(f'{file}: no {start} … <!-- end --> to write between')
    before, rest = old.split(start, 1)
    after = rest.split('<!-- end -->', 1)[1]
    path.write_text(f'{before}{start}\n{text}\n<!-- end -->{after}')
