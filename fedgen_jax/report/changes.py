"""Who joined, changed or left since the training, as `launch.onboard` keeps it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.evaluate import metrics_in
from fedgen_jax.files import read_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.kept import file_of
from fedgen_jax.onboard import entry_of
from fedgen_jax.report.figures import Cloud
from fedgen_jax.report.page import Section, Table
from fedgen_jax.report.words import NONE, kilobytes, titled
from fedgen_jax.statistics import HISTORY, history, read_statistics


class Changes(NamedTuple):
    """Centers by what they did last, and what is known of them.

    statistics: of the centers that joined or changed.
    entries:    what `onboard` told of these; of one without any, nothing.
    models:     where their models lie in the run's folder.
    when:       of the last change of each, of those that left too, in UTC.
    """

    joined: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]
    statistics: Mapping[str, Statistic]
    entries: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, str]
    when: Mapping[str, str]


def changes_of(workdir: pathlib.Path, seen: Sequence[str]) -> Changes | None:
    """The changes since the training at the centers `seen`; None where nothing was changed."""
    if not any((workdir / name).is_file() for name in ('onboard.json', HISTORY)):
        return None
    last: dict[str, Any] = {'centers': {}, 'removed': None}
    if (workdir / 'onboard.json').is_file():
        last = read_json(workdir / 'onboard.json')
    own = read_statistics(workdir).own
    told = {
        name: read_json(file)
        for name in own if (file := entry_of(workdir, name)).is_file()
    }
    entries = {**last['centers'], **told}
    at, left = _last_times(workdir), _left(workdir)
    joined = tuple(name for name in own if name not in seen)
    updated = tuple(name for name in own if name in seen and name in entries)
    gone = [*(name for name in seen if name not in own), *left, last['removed']]
    removed = tuple(dict.fromkeys(name for name in gone if name and name not in own))
    changed = (*joined, *updated)
    files = {name: file_of(workdir, name) for name in changed}
    return Changes(
        joined, updated, removed,
        {name: own[name] for name in changed},
        {name: entries[name] for name in changed if name in entries},
        {name: str(f.relative_to(workdir)) for name, f in files.items() if f.is_file()},
        {name: when for name, when in at.items() if name in (*changed, *removed)},
    )


def _last_times(workdir) -> dict[str, str]:
    """{center: when it last joined, changed or left}, '2026-05-01 09:30'."""
    found = {}
    for line in history(workdir):
        for name in line['centers']:
            found[name] = line['at'][:16].replace('T', ' ')
    return found


def _left(workdir) -> list[str]:
    """Centers whose last change was to leave; one that joined and was forgotten has not left."""
    last = {name: line['action'] for line in history(workdir) for name in line['centers']}
    return [name for name, action in last.items() if action == 'remove']


def clouds_of(changes: Changes, unseen: Sequence[str]) -> list[Cloud]:
    """Where centers that joined or changed lie; of their images only the sums are known here."""
    kinds = dict.fromkeys(changes.updated, 'updated')
    kinds |= {name: 'joined' for name in changes.joined if name not in unseen}
    found = []
    for name, kind in kinds.items():
        mean_E = descriptor.mean(changes.statistics[name])
        found.append(Cloud(name, kind, mean_E, np.zeros((0, len(mean_E)))))
    return found


def section_of(changes: Changes, metric: str, private: bool = False) -> Section:
    """The table of the centers that joined, changed or left.

    metric: the score that stands first; the others that are known follow.
    private: whether the run's folder keeps no models.
    """
    scores = {name: metrics_in(e.get('scores', {})) for name, e in changes.entries.items()}
    metrics = list(dict.fromkeys([metric, *(m for s in scores.values() for m in s)]))

    def row(name: str, what: str) -> list[str]:
        s, e = changes.statistics.get(name), changes.entries.get(name, {})
        own = scores.get(name, {})
        return [
            f'{name}: {what}',
            changes.when.get(name, NONE),
            str(s.count) if s else NONE,
            *(f'{own[m]:.3f}' if m in own else NONE for m in metrics),
            _beside(e) or NONE,
            *(kilobytes(e[k], 1) if k in e else NONE for k in ('bytes_up', 'bytes_down')),
            f'{e["seconds"]:.2f}' if 'seconds' in e else NONE,
            changes.models.get(name, NONE),
        ]

    rows = [row(name, 'joined') for name in changes.joined]
    rows += [row(name, 'new data') for name in changes.updated]
    rows += [row(name, 'left') for name in changes.removed]
    head = ['', 'when (UTC)', 'images', *map(titled, metrics), 'beside the forward pass', 'kB up',
            'kB down', 'seconds', 'model']
    kept = [j for j in range(len(head)) if not rows or any(row[j] != NONE for row in rows)]
    return Section(
        'After the training',
        'Centers that joined, changed their data or left. Nobody trained again: a model is one '
        'forward pass from the descriptor of unlabelled images. The scores above are those of the '
        'end of the training.',
        Table(
            '',
            [head[j] for j in kept],
            [[row[j] for j in kept] for row in rows],
            ' '.join(_notes(changes, private)),
        ),
    )


def _beside(entry: Mapping[str, Any]) -> str:
    """What was done for a center beside the forward pass."""
    steps, mix = entry.get('steps', 0), entry.get('prevalence')
    labelled = entry.get('finetuned', {}).get('images')
    of = f'on {labelled} labelled images' if labelled else 'without labels'
    said = [f'{steps} steps {of}'] * bool(steps)
    said += [f'class mix {"estimated" if mix["estimated"] else "stated"}'] if mix else []
    return ', '.join(said)


def _notes(changes: Changes, private: bool) -> list[str]:
    notes = ['Scores are of the centers whose images have labels.']
    if changes.models:
        notes += ["Models lie in the run's folder."]
    if private:
        notes += ['The folder of a private run keeps no models: a center makes its own.']
    sizes = {name: e.get('resolution') for name, e in changes.entries.items()}
    return notes + [
        f"{name}: masks are scored at the model's size, {of['pixels']} x {of['pixels']} pixels "
        f'({of["why"]}).'
        for name, of in sizes.items() if of and of['size'] == 'model'
    ]
