"""Pages in Markdown whose marked parts are written from stored runs.

A part stands between `<!-- KIND FILE... -->` and `<!-- end -->`; files are named from the page's
own folder.  Kinds:

    overview FILE...          one table of several sets
    tables FILE               every table of one set
    ranks FILE                mean ranks, and differences over centers and seeds
    classes FILE              the first run's seen centers, of each class
    forest FILE... PLOT.svg   a plot of paired differences, written beside the page
"""

import pathlib
import re
from collections.abc import Sequence

from fedgen_jax.report import figures, tables
from fedgen_jax.report.compare import reference_of, rows_of
from fedgen_jax.report.rank_tables import rank_tables
from fedgen_jax.report.ranks import differences
from fedgen_jax.report.summaries import read_summaries
from fedgen_jax.report.words import headline, measure, readable

_PART = re.compile(
    r'<!-- (?P<kind>\w+) (?P<files>[^>]+?) -->\n(?P<old>.*?)<!-- end -->', re.DOTALL
)
_MARK = re.compile(r'<!--\s*(?:overview|tables|ranks|classes|forest)\b')
KINDS = ('overview', 'tables', 'ranks', 'classes', 'forest')


def rewritten(
    page: pathlib.Path, order: Sequence[str] = (), reference: str | None = None
) -> dict[pathlib.Path, str]:
    """{file: content} of a page whose parts are written anew, and of its plots.

    order: as in `read_summaries`.  reference: as in `tables.tables`.

    Raises ValueError where the page has no such part, or names a kind that there is not.
    """
    plots: dict[pathlib.Path, str] = {}

    def part(match):
        kind, files = match['kind'], match['files'].split()
        if kind not in KINDS:
            raise ValueError(f'{page}: <!-- {kind} ... -->: a part is one of {", ".join(KINDS)}')
        target = files.pop() if kind == 'forest' else ''
        if len({pathlib.Path(f).stem for f in files}) < len(files) or not files:
            raise ValueError(f'{page}: <!-- {kind} ... -->: name files of runs, each once')
        if '<!-- ' in match['old']:
            raise ValueError(f'{page}: <!-- {kind} ... -->: no <!-- end --> before the next mark')
        sets = {pathlib.Path(f).stem: read_summaries([page.parent / f], order) for f in files}
        first = next(iter(sets.values()))
        if kind == 'overview':
            text = tables.overview(sets, reference)
        elif kind == 'tables':
            text = tables.tables(first, reference)
        elif kind == 'ranks':
            text = rank_tables(first, reference)
        elif kind == 'classes':
            text = tables.by_class(first[0])
        else:
            plots[page.parent / target] = figures.forest(
                [_panel(name, runs, reference) for name, runs in sets.items()]
            )
            text = f'![Paired differences by held-out center]({target})'
        return f'<!-- {kind} {match["files"]} -->\n{text}\n<!-- end -->'

    before = page.read_text()
    text, found = _PART.subn(part, before)
    if not found:
        raise ValueError(f'{page}: no part between <!-- tables FILE --> and <!-- end -->')
    if found < len(_MARK.findall(before)):
        raise ValueError(
            f'{page}: {found} parts, and {len(_MARK.findall(before))} marks that begin one: write '
            'each as <!-- KIND FILE --> and close it by <!-- end -->'
        )
    return {page: text, **plots}


def _panel(name, summaries, reference):
    """Differences of the unseen centers, in points of 100 unless they have a unit."""
    rows, metric = rows_of(summaries), headline(summaries[0])
    of, ours = measure(summaries, metric), reference_of(rows, reference)
    gaps = {
        method: gap._replace(
            of={center: of.scale * v for center, v in gap.of.items()},
            mean=of.scale * gap.mean, low=of.scale * gap.low, high=of.scale * gap.high,
        )
        for method, gap in differences(rows, ours, 'unseen', metric, of.lower).items()
    }
    label = f'{ours} less the method: {readable(metric)}{"" if of.unit else ", points"}'
    return figures.Panel(name, label, gaps)
