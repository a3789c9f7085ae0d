"""What a report says of each class: its scores, confusions and calibration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedgen_jax.report import class_figures
from fedgen_jax.report.page import Section, Table
from fedgen_jax.report.words import NONE, titled
from fedgen_jax.schema import Summary
from fedgen_jax.tasks.class_metrics import bin_of

UNSEEN = 8  # unseen centers whose classes stand in the table

SURE = {
    'classification': 'how likely a model takes its answer to be, and how often that is right',
    'multilabel': 'how likely a model takes a class to be there, and how often it is there',
}


def class_sections(name: str, summary: Summary) -> list[Section]:
    """Sections of a run: its classes, and where it classifies what it takes for what.

    name: the run's, for the text.
    """
    seen, unseen = summary['seen']['pooled'], (summary['unseen'] or {'centers': {}})['centers']
    # Where images are nowhere together (a deployed run), what is counted is summed over centers.
    groups = {'seen centers': [seen] if seen else list(summary['seen']['centers'].values())}
    if unseen:
        groups['unseen centers'] = list(unseen.values())
    sections = []
    if seen.get('classes'):
        sections.append(Section(
            'Classes',
            f'Scores of {name} on each class. Those of seen centers are of all their images '
            'together.',
            _table(seen, dict(list(unseen.items())[:UNSEEN])),
        ))
    matrices = {k: np.sum(found, 0) for k, of in groups.items() if (found := _all(of, 'confusion'))}
    if matrices:
        sections.append(Section(
            'What is taken for what',
            f'Images of each true class (rows) that {name} takes for each class (columns).',
            figure=class_figures.confusions(matrices, _classes(groups.values())),
        ))
    curves = {k: merged(found) for k, of in groups.items() if (found := _all(of, 'reliability'))}
    if curves:
        what = SURE.get(summary['task'], 'how sure a model is, and how often it is right')
        sections.append(Section(
            'Calibration',
            f'For {name}: {what}. On the dotted line both are equal; below it the model is too '
            'sure. The area of a mark goes with the number of answers.',
            figure=class_figures.reliability(curves),
        ))
    return sections


def _classes(groups: Iterable[Sequence[Mapping[str, Any]]]) -> list[str]:
    return next(list(s['classes']) for of in groups for s in of if s.get('classes'))


def _all(centers: Iterable[Mapping[str, Any]], key: str) -> list:
    return [scores[key] for scores in centers if key in scores]


def _table(seen: Mapping[str, Any], unseen: Mapping[str, Mapping[str, Any]]) -> Table:
    """Scores of each class, at the seen centers together and at each unseen one."""
    blocks = {'': seen['classes'], **{k: s['classes'] for k, s in unseen.items() if 'classes' in s}}
    fields = dict.fromkeys(
        k for of in blocks.values() for s in of.values() for k, v in s.items()
        if isinstance(v, float | int)
    )
    numbers = [k for k in fields if k in ('n', 'known')]
    metrics = [k for k in fields if k not in numbers]
    rows = [
        [
            f'{name}: {center} (unseen)' if center else name,
            *(f'{s[k]:,}' if k in s else NONE for k in numbers),
            *(f'{s[k]:.3f}' if k in s else NONE for k in metrics),
        ]
        for center, of in blocks.items()
        for name, s in of.items()
    ]
    said = {'n': 'images', 'known': 'known of'}
    return Table('', ['', *(said[k] for k in numbers), *map(titled, metrics)], rows)


def merged(curves: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The bins of several centers, as if their answers were one center's."""
    bins = [b for curve in curves for b in curve]
    place = bin_of(np.array([b['confidence'] for b in bins]))
    found = []
    for p in np.unique(place):
        own = [b for b, at in zip(bins, place) if at == p]
        count = [b['count'] for b in own]
        mean = {
            k: float(np.average([b[k] for b in own], weights=count))
            for k in ('confidence', 'accuracy')
        }
        found.append({**mean, 'count': int(sum(count))})
    return found
