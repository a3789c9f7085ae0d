"""A report of runs: one HTML file that opens in any browser, with no network."""

import base64
import importlib.resources
import io
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
from PIL import Image

from fedgen_jax.report import figures
from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.tables import NO_SCORE
from fedgen_jax.tasks.base import View

COLUMNS = 8  # example images a center
SUBSET_SIZE = 12  # images, of each small dot of the map

COLORS = {
    'FedGen, refined': '#0072b2',
    'FedGen, center model': '#56b4e9',
    'FedAvg': '#d55e00',
    'Local only': '#7a7a7a',
}
ABBREVIATIONS = {
    'map': 'mAP', 'ap50': 'AP50', 'ap75': 'AP75', 'froc': 'FROC', 'iou': 'IoU', 'hd95': 'HD95',
    'assd': 'ASSD',
}  # fmt: skip
_OTHER_COLORS = ('#009e73', '#cc79a7', '#b8860b', '#6a3d9a')


class Strip(NamedTuple):
    """Example images of a center: of each a column of views, the truth and what models say."""

    name: str
    kind: str
    columns: Sequence[Sequence[View]]


class Table(NamedTuple):
    """Rows of texts; (row, column) in `best` are set in bold."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ''
    best: frozenset = frozenset()


class Section(NamedTuple):
    """A section of the caller's own, between the scores and the map."""

    title: str
    text: str
    table: Table


def write_report(
    path: str | pathlib.Path,
    title: str,
    lede: str,
    summaries: Mapping[str, dict],
    lines: Mapping[str, Sequence[dict]],
    clouds: Sequence[Cloud] = (),
    strips: Sequence[Strip] = (),
    sections: Sequence[Section] = (),
    tiles: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes the page: figures, tables and images all inside one file.

    Args:
      path: the HTML file.
      title, lede: its heading, and the paragraph below it.
      summaries: {method: content of its `summary.json`}, of runs on the same centers.
      lines: {method: lines of its `metrics.jsonl`}.
      clouds: descriptors, for the map; none: no map.
      strips: example images.
      sections: tables of the caller's own.
      tiles: (number, what it is) pairs at the top.
    """
    methods = methods_of(summaries)
    metric = headline(next(iter(summaries.values())))
    unseen = list(dict.fromkeys(c for s in summaries.values() for c in _centers(s['unseen'])))
    scores = {
        method: {c: s[metric] for c, s in _merged(blocks).items() if metric in s}
        for method, blocks in methods.items()
    }
    colors = {**dict(zip(methods, itertools.cycle(_OTHER_COLORS))), **COLORS}
    split = next(iter(summaries.values()))['score_on']
    label = readable(metric)
    own_lines = {_own_model(name, summaries[name]): x for name, x in lines.items()}
    page = _template().render(
        title=title,
        lede=lede,
        tiles=tiles,
        label=titled(metric),
        scored_on={'test': 'held-back test images', 'val': 'validation images'}[split],
        has_unseen=bool(unseen),
        bars=figures.bars(scores, colors, unseen, label),
        tables=[
            _scores_table(methods, summaries, m)
            for m in next(iter(methods.values()))['seen']['mean']
        ],
        curves=figures.curves(own_lines, colors, metric, label) if any(lines.values()) else '',
        sections=sections,
        map=figures.descriptor_map(clouds) if clouds else '',
        subset_size=SUBSET_SIZE,
        strips=[{'name': s.name, 'kind': s.kind, 'columns': _columns(s)} for s in strips],
        columns=COLUMNS,
        cost=_cost_table(summaries),
    )
    pathlib.Path(path).write_text(page, encoding='utf-8')


def methods_of(summaries: Mapping[str, dict]) -> dict[str, dict]:
    """{method: its 'seen' and 'unseen' blocks}; FedGen gives two: refined, and center model."""
    methods = {}
    for name, s in summaries.items():
        methods[_own_model(name, s)] = s
        if s['algorithm'] == 'fedgen':
            methods[f'{name}, center model'] = s['center_model']
    return methods


def headline(summary: dict) -> str:
    """The metric that stands for the summary's task: its first."""
    if not summary['seen']['mean']:
        raise ValueError(NO_SCORE)
    return next(iter(summary['seen']['mean']))


def readable(metric: str) -> str:
    """A metric's name in words."""
    return ABBREVIATIONS.get(metric, metric.replace('_', ' '))


def titled(metric: str) -> str:
    """The same at the beginning of a line."""
    name = readable(metric)
    return name if metric in ABBREVIATIONS else name[0].upper() + name[1:]


def _own_model(name, summary):
    return f'{name}, refined' if summary['algorithm'] == 'fedgen' else name


def _centers(block):
    return block['centers'] if block else {}


def _merged(blocks):
    return {**_centers(blocks['seen']), **_centers(blocks['unseen'])}


def _scores_table(methods, summaries, metric):
    controls = {
        f'{name}, shuffled (control)': s['controls']['shuffled']
        for name, s in summaries.items()
        if s['algorithm'] == 'fedgen' and s['controls']['shuffled']
    }
    centers = list(dict.fromkeys(c for blocks in methods.values() for c in _merged(blocks)))

    def values(blocks):
        own = _merged(blocks)
        summary = [(blocks['seen'] or {}).get(k, {}).get(metric) for k in ('mean', 'worst')]
        return summary + [own.get(c, {}).get(metric) for c in centers]

    value_MxJ = [values(blocks) for blocks in methods.values()]
    lower = metric in next(iter(summaries.values()))['lower_is_better']
    top = min if lower else max
    best = frozenset(
        (i, j + 1)
        for j, column in enumerate(zip(*value_MxJ))
        for i, v in enumerate(column)
        if v is not None and _score(v) == _score(top(x for x in column if x is not None))
    )
    rows = [[name, *map(_score, v)] for name, v in zip(methods, value_MxJ)]
    rows += [[name, *map(_score, values(blocks))] for name, blocks in controls.items()]
    counts = _merged(next(iter(methods.values())))
    rows.append(['images scored', '', '', *(str(counts[c]['n']) for c in centers)])
    unseen = _centers(next(iter(methods.values()))['unseen'])
    names = [f'{c} (unseen)' if c in unseen else c for c in centers]
    notes = ['Shuffled: each center under the descriptors of the others.'] if controls else []
    notes += [
        f'{c}: {name} is left out of the mean ({counts[c]["boxes"][name]} boxes).'
        for c in centers for name in counts[c].get('left_out', ())
    ]  # fmt: skip
    head = ['', 'mean of seen', 'worst seen', *names]
    unit = ': lower is better' if lower else ''
    return Table(titled(metric) + unit, head, rows, ' '.join(notes), best)


def _score(value):
    return '–' if value is None else f'{value:.3f}'


def _cost_table(summaries):
    def row(name, s):
        cost, sizes = s['cost'], s['cost']['parameters']
        numbers = [sizes['base'], sizes['generator'], sizes['descriptor']]
        sent = [cost['bytes_up'] / 1e3, cost['bytes_down'] / 1e3]
        seconds = [cost['round_seconds'], cost['compile_seconds']]
        return [
            name, str(s['rounds']), *(f'{x:,}' for x in numbers), *(f'{x:,.0f}' for x in sent),
            *('–' if x is None else f'{x:.2f}' for x in seconds),
        ]  # fmt: skip

    head = [
        '', 'rounds', 'base parameters', 'generator', 'descriptor', 'kB up', 'kB down',
        'seconds a round', 'compiling, s',
    ]  # fmt: skip
    device = next(iter(summaries.values()))['device']
    note = f'kB: what one client sends and receives in a round. Seconds: all clients, on {device}.'
    return Table('Cost', head, [row(name, s) for name, s in summaries.items()], note)


def _columns(strip):
    return [
        [
            {
                'png': None if view.picture is None else _png(view.picture),
                'caption': view.caption,
                'wrong': view.wrong,
            }
            for view in column
        ]
        for column in strip.columns
    ]


def _png(image_HxWx3):
    out = io.BytesIO()
    Image.fromarray(image_HxWx3).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode()


def _template():
    source = importlib.resources.files('fedgen_jax.report').joinpath('page.html.j2')
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(source.read_text(encoding='utf-8'))
