"""A report of runs: one HTML file that opens in any browser, with no network."""

import base64
import io
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from fedgen_jax.report import figures
from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.summaries import center_model_of
from fedgen_jax.report.words import (
    NONE,
    at_size,
    headline,
    kilobytes,
    of_class,
    own_choice,
    readable,
    titled,
)
from fedgen_jax.schema import Groups, Summary
from fedgen_jax.tasks.base import View

COLUMNS = 8  # example images a center
SUBSET_SIZE = 12  # images, of each small dot of the map

# Of each run: its own models, and the one center model.
COLORS = (
    ('#0072b2', '#56b4e9'), ('#d55e00', '#e8b27d'), ('#7a7a7a', '#bdbdbd'), ('#009e73', '#80cfb9'),
    ('#cc79a7', '#e6bcd3'), ('#b8860b', '#dcc385'),
)


INTERVAL = '95 % interval'
OF_INTERVALS = (
    'Intervals are by bootstrap over the patients of a center, or its images where no patient is '
    'known: they tell nothing of other training runs or other centers.'
)


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
    """A further section, between the scores and the map: a figure (SVG), a table, images."""

    title: str
    text: str
    table: Table | None = None
    strips: Sequence[Strip] = ()
    figure: str = ''


def write_report(
    path: str | pathlib.Path,
    title: str,
    lede: str,
    summaries: Mapping[str, Summary],
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
      sections: further tables and images.
      tiles: (number, what it is) pairs at the top.
    """
    methods = methods_of(summaries)
    first = next(iter(summaries.values()))
    metric = headline(first)
    label = readable(metric)
    unseen = list(dict.fromkeys(c for s in summaries.values() for c in _centers(s['unseen'])))
    colors = colors_of(summaries)
    scores = {
        method: {c: s[metric] for c, s in _merged(blocks).items() if metric in s}
        for method, blocks in methods.items() if method in colors
    }
    page = template('page.html.j2').render(
        title=title,
        lede=lede,
        tiles=tiles,
        label=titled(metric),
        at_size=at_size(first),
        scored_on={'test': 'held-back test images', 'val': 'validation images'}[first['score_on']],
        unseen=_unseen_note(summaries) if unseen else '',
        bars=figures.bars(scores, colors, unseen, label),
        tables=[_scores_table(methods, summaries, m) for m in first['seen']['mean']],
        curves=_curves(summaries, lines, colors, metric, label),
        sections=[s._replace(strips=[shown(x) for x in s.strips]) for s in sections],
        map=figures.descriptor_map(clouds) if clouds else '',
        kinds={c.kind for c in clouds},
        subset_size=SUBSET_SIZE,
        strips=[shown(s) for s in strips],
        left_out=len({c for of in scores.values() for c in of} - {s.name for s in strips}),
        mistakes=any(v.wrong for s in strips for column in s.columns for v in column),
        columns=COLUMNS,
        cost=_cost_table(summaries),
    )
    pathlib.Path(path).write_text(page, encoding='utf-8')


def _curves(summaries, lines, colors, metric, label) -> str:
    """What the runs' lines tell of training; '' where they tell nothing."""
    told = any(figures.scored_in(x, metric) or any(y.get('loss') for y in x)
               for x in lines.values())
    row_of = {name: _trained_row(name, s) for name, s in summaries.items()}
    shades = {row_of[name]: colors[_own_row(name, s)] for name, s in summaries.items()}
    trained = {row_of[name]: x for name, x in lines.items()}
    return figures.curves(trained, shades, metric, label) if told else ''


def methods_of(summaries: Mapping[str, Summary]) -> dict[str, Groups]:
    """{row: its 'seen' and 'unseen' blocks}.

    Each run has a row for its own models, and one for its center model where that is another one.
    Where seen centers chose their own models by their labels, what they had without is a row too.
    """
    methods: dict[str, Any] = {}
    for name, s in summaries.items():
        methods[_own_row(name, s)] = s
        if s.get('own'):
            methods[_trained_row(name, s)] = {'seen': s['own']['generated'], 'unseen': s['unseen']}
        if center_model_of(s):
            methods[f'{name}, center model'] = center_model_of(s)
    return methods


def colors_of(summaries: Mapping[str, Summary]) -> dict[str, str]:
    """A color for each row of `methods_of`."""
    colors: dict[str, str] = {}
    for (name, s), (own, center) in zip(summaries.items(), itertools.cycle(COLORS)):
        colors |= {_own_row(name, s): own, f'{name}, center model': center}
    return colors


def _own_row(name, summary):
    return f'{name}, own choice' if summary.get('own') else _trained_row(name, summary)


def _trained_row(name, summary):
    """Of the models that training gives a center, before a step of its own."""
    return f'{name}, refined' if summary.get('own') or center_model_of(summary) else name


def _unseen_note(summaries):
    """How unseen centers come to a model."""
    borrow = [name for name, s in summaries.items() if not s['server_model']]
    notes = ['They took no part in training, and their labels only score.']
    shared = [s for s in summaries.values() if s['server_model']]
    used = {x for s in shared for x in s.get('at_unseen', [])}
    if used == {'nothing'}:
        notes += ['Their models come from what the other centers learned alone.']
    elif shared:
        notes += [
            'Their models come from what the other centers learned and from unlabelled images of '
            'their own, and are scored on others of their images.'
        ]
    if borrow:
        notes += [
            f'{" and ".join(borrow)}: the centers share no model, so an unseen center is scored '
            "under each seen center's model in turn, and the mean is shown."
        ]
    return ' '.join(notes)


def _centers(block):
    return block['centers'] if block else {}


def _merged(blocks):
    return {**_centers(blocks['seen']), **_centers(blocks['unseen'])}


def _scores_table(methods, summaries, metric):
    controls = {
        f'{name}, shuffled (control)': s['controls']['shuffled']
        for name, s in summaries.items() if s['controls']['shuffled']
    }
    tuned = {_own_row(name, s): _tuned(s) for name, s in summaries.items()}
    centers = list(dict.fromkeys(c for blocks in methods.values() for c in _merged(blocks)))

    def values(row, blocks):
        of = [(blocks, 'mean'), (blocks, 'worst'), (tuned.get(row) or {}, 'mean')]
        seen = [(x.get('seen') or {}).get(level, {}).get(metric) for x, level in of]
        own = _merged(blocks)
        return seen + [own.get(c, {}).get(metric) for c in centers]

    rows = {**methods, **controls}
    value_MxJ = [values(name, blocks) for name, blocks in rows.items()]
    unseen = _centers(next(iter(methods.values()))['unseen'])
    head = ['mean of seen', 'worst seen', 'mean of seen, fine-tuned']
    head += [f'{c} (unseen)' if c in unseen else c for c in centers]
    counts = _merged(next(iter(methods.values())))
    number = 'n_mm' if metric.endswith('_mm') else 'n'
    numbers = ['', '', '', *(str(counts[c].get(number, 0)) for c in centers)]
    kept = [j for j in range(len(head)) if j != 2 or any(tuned.values())]
    lower = metric in next(iter(summaries.values()))['lower_is_better']
    best = _best([[v[j] for j in kept] for v in value_MxJ[: len(methods)]], lower)
    body, bold = [], set()
    for i, (name, v) in enumerate(zip(rows, value_MxJ)):
        bold |= {(len(body), j) for row, j in best if row == i}
        body.append([name, *(_score(v[j]) for j in kept)])
        interval = _intervals(rows[name], metric, centers)
        if any(interval):
            body.append([INTERVAL, *(interval[j] for j in kept)])
    first = metric == next(iter(next(iter(summaries.values()))['seen']['mean']))
    known = first and any(row[0] == INTERVAL for row in body)
    notes = [OF_INTERVALS] * known + _notes(controls, any(tuned.values()), counts)
    if first:
        notes += [f'{name}: {own_choice(s)}' for name, s in summaries.items() if s.get('own')]
    unit = next(iter(summaries.values()))['units'].get(metric)
    title = titled(metric) + of_class(next(iter(summaries.values())), metric)
    told = title.endswith(f'in {unit}')
    said = [f'in {unit}'] * (bool(unit) and not told) + ['lower is better'] * lower
    return Table(
        ': '.join([title, *([', '.join(said)] if said else [])]),
        ['', *(head[j] for j in kept)],
        [*body, ['images scored', *(numbers[j] for j in kept)]],
        ' '.join(notes),
        frozenset(bold),
    )


def _intervals(blocks, metric, centers) -> list[str]:
    """The cells below a row of `_scores_table`: the mean of seen, two without one, each center."""
    known = [(blocks[group] or {}).get('intervals') for group in ('seen', 'unseen')]
    of_centers = {c: x for of in known if of for c, x in of['centers'].items()}
    found = [(known[0] or {'mean': {}})['mean'], {}, {}, *(of_centers.get(c, {}) for c in centers)]
    return [
        '{:.3f}–{:.3f}'.format(*of[metric]) if metric in of else '' for of in found
    ]


def _tuned(summary):
    """Scores of fine-tuned models; None where they are the run's own ones."""
    found = summary.get('finetuned')
    return None if found and found['seen'] == summary['seen'] else found


def _best(value_MxJ, lower):
    """(row, column) of a table's best scores, among two rows or more; first come the names."""
    if len(value_MxJ) < 2:
        return frozenset()
    top = min if lower else max
    return frozenset(
        (i, j + 1)
        for j, column in enumerate(zip(*value_MxJ))
        for i, v in enumerate(column)
        if v is not None and _score(v) == _score(top(x for x in column if x is not None))
    )


def _notes(controls, tuned, counts):
    notes = ['Shuffled: each center under the descriptors of the others.'] if controls else []
    if tuned:
        notes += ['Fine-tuned: after labelled steps at each seen center.']
    return notes + [
        f'{c}: {name} is left out of the mean ({s["boxes"][name]} boxes).'
        for c, s in counts.items() for name in s.get('left_out', ())
    ]


def _score(value):
    return NONE if value is None else f'{value:.3f}'


def _cost_table(summaries):
    costs = {name: s['cost'] for name, s in summaries.items()}
    parts = list(dict.fromkeys(p for cost in costs.values() for p in cost['parameters']))

    def row(name, cost):
        sizes = cost['parameters']
        seconds = [cost['round_seconds'], cost['compile_seconds']]
        return [
            name,
            str(summaries[name]['rounds']),
            *(f'{sizes[p]:,}' if p in sizes else NONE for p in parts),
            *(kilobytes(cost[k]) for k in ('bytes_up', 'bytes_down')),
            *(NONE if x is None else f'{x:.2f}' for x in seconds),
        ]

    head = ['', 'rounds', *(f'parameters: {p}' for p in parts), 'kB up', 'kB down']
    head += ['seconds a round', 'compiling, s']
    devices = ' and '.join(dict.fromkeys(s['device'] for s in summaries.values()))
    note = (
        'kB are 1000 bytes: what one client sends and receives in a round. Seconds are of a round '
        f'of all clients, on {devices}.'
    )
    return Table('Cost', head, [row(name, cost) for name, cost in costs.items()], note)


def shown(strip: Strip) -> Any:
    """A strip as the macro `views` takes it."""
    columns = [
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
    return {'name': strip.name, 'kind': strip.kind, 'columns': columns}


def _png(image_HxWx3):
    out = io.BytesIO()
    Image.fromarray(image_HxWx3).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode()


def template(name: str) -> jinja2.Template:
    """A page of this folder, to be rendered; what it is given is escaped."""
    folder = jinja2.PackageLoader('fedgen_jax.report', '')
    return jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template(name)
