"""New, changed and leaving centers, after training: one forward pass each, 0 steps elsewhere.

Works from a run's folder alone: checkpoint, configuration and statistics, no training images.
"""

import datetime
import glob
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax import checkpoint
from fedgen_jax.budget import ledgers_in
from fedgen_jax.data.check import say, tell
from fedgen_jax.data.examples import Center, Examples
from fedgen_jax.data.folder.headers import for_others
from fedgen_jax.data.source import load
from fedgen_jax.engine.processes import is_first
from fedgen_jax.evaluate import model_of, score_stranger, statistic_of
from fedgen_jax.files import alone_in, append_line, expand, file_name, read_json, write_json
from fedgen_jax.guard import release_anew
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.kept import Kept, file_of, read_model, remove_model, why_not_kept, write_model
from fedgen_jax.labelled import (
    finetuned_model,
    labelled_of,
    score_finetuned,
    with_own_steps,
)
from fedgen_jax.loaded import stranger
from fedgen_jax.newcomer import (
    Extras,
    Wanted,
    extras,
    score_extras,
    tell_doubts,
    with_extras,
)
from fedgen_jax.program import num_bytes
from fedgen_jax.promise import told as told_of_privacy
from fedgen_jax.resolution import is_own, resolution_of
from fedgen_jax.run import Restored, check_is_run, restore
from fedgen_jax.statistics import HISTORY, Statistics, read_statistics, write_statistics


class Recalculated(NamedTuple):
    """What centers that join, change or leave make anew.

    statistics:     of all centers after the change.
    refined_E:      the descriptor of each new or changed center, by name: a model is made from it.
    center_model_E: that of the one model for all.
    """

    statistics: Statistics
    refined_E: dict[str, np.ndarray]
    center_model_E: np.ndarray


def recalculate(before: Statistics, changes: Mapping[str, Statistic | None]) -> Recalculated:
    """Takes centers in, replaces their statistics, or (None) lets them go; exact, without images.

    Raises ValueError where a center that leaves is not there, or is the last one.
    """
    own, pooled = dict(before.own), before.pooled
    for name, statistic in changes.items():
        if statistic is None:
            if name not in own:
                raise ValueError(f'no center {name!r}; there are {", ".join(own)}')
            if len(own) == 1:
                raise ValueError(f'{name!r} is the last center: no center model would be left')
            pooled = descriptor.remove(pooled, own.pop(name))
        else:
            if name in own:
                pooled = descriptor.update(pooled, own[name], statistic)
            else:
                pooled = descriptor.add(pooled, statistic)
            own[name] = statistic
    refined_E = {name: descriptor.mean(s) for name, s in changes.items() if s is not None}
    return Recalculated(Statistics(own, pooled), refined_E, descriptor.mean(pooled))


def onboard(
    workdir: str | pathlib.Path,
    data: str | None = None,
    update: str | None = None,
    remove: str | None = None,
    prevalence: str | None = None,
    adapt: int = 0,
    columns: str | None = None,
    finetune: int = 0,
) -> dict:
    """Takes in the centers of a folder, replaces one's data, or lets one go.

    Writes `models/CENTER.npz` (the refined model, as `kept` has it; not of a private run),
    `onboard/CENTER.json` (its entry in the report), `center_model/` (the one model for all, from
    the new pool, an Orbax checkpoint), the changed `statistics/`, and `onboard.json`, which is
    returned; adds a line to `onboarded.jsonl`.  CENTER is `files.file_name` of the center's name.

    Args:
      workdir: a run of `launch.train` whose descriptor is learned.
      data: the new or changed centers, in any form of `data.forms`, one center where it names none;
          labels are only used to score, but for `finetune`.
      update: the center whose data `data` replaces; the folder holds this one alone.
      remove: the center that leaves; takes no `data`.
      prevalence: the class mix of the one center in `data`, 'CLASS=SHARE,CLASS=SHARE', or
          'estimate' of its unlabelled images: it enters the model's decisions (`tasks.prior`).
      adapt: steps on the code that a model is generated from, of unlabelled images
          (`algorithms.adaptation`).
      columns: which headers of `data` stand for our columns; default: as in the run.
      finetune: steps on the labels of the training split of each center in `data`; what is not of
          that split is scored (`labelled`).

    Raises ValueError, in one line, where run and folder do not fit; MayPass where another process
    is at work in `workdir`.
    """
    workdir = expand(workdir)
    check_is_run(workdir)
    with alone_in(workdir):
        wanted = Wanted(prevalence, adapt, finetune)
        return _onboard(workdir, data, update, remove, wanted, columns)


def _onboard(workdir, data, update, remove, wanted: Wanted, columns):
    done = restore(workdir)
    check_asked(workdir, done, data, update, remove, wanted)
    asked = extras(workdir, done, wanted)
    if asked.labelled:
        done = with_own_steps(done, asked.labelled)
    before = read_statistics(workdir)
    check_psi(workdir, done, before.pooled)
    weights_before = {name: _weights_hash(workdir, done, name, s) for name, s in before.own.items()}

    started = time.monotonic()
    centers = () if remove else _read_centers(done, data, update, before.own, columns)
    if not isinstance(asked.prevalence, str | None) and len(centers) > 1:
        raise ValueError(
            f'{data}: holds {len(centers)} centers, and --prevalence states the mix of one: '
            'onboard them one by one, or estimate'
        )
    for center in centers if asked.labelled else ():
        labelled_of(center, done.program.task.target)  # before anything is written
    described = {center.name: _describe(workdir, done, center) for center in centers}
    changes = {name: statistic for name, (statistic, _) in described.items()}
    after = recalculate(before, {remove: None} if remove else changes)
    entries = {
        center.name: _make(workdir, done, center, after, described[center.name][1], asked)
        for center in centers
    }
    center_model = generated(done, after.center_model_E)
    checkpoint.save_tree(workdir / 'center_model', {'params': center_model})
    write_statistics(workdir, after.statistics)
    if remove:
        forget(workdir, remove)
    kept = read_statistics(workdir).own
    others = {name: h for name, h in weights_before.items() if name not in (update, remove)}
    report = {
        'action': 'remove' if remove else 'update' if update else 'join',
        'seconds': time.monotonic() - started,
        'centers': entries,
        'removed': remove,
        'center_model': {
            'images': after.statistics.pooled.count, 'weights': descriptor.hash_of(center_model)
        },
        'others': {
            'steps': 0,
            'bytes': 0,
            'weights_before': others,
            'weights_after': {
                name: _weights_hash(workdir, done, name, kept[name]) for name in others
            },
        },
    }
    if done.config.privacy.unit and not remove:
        ledgers = tuple(ledgers_in(workdir).values())
        spent = told_of_privacy(done.config, ledgers, done.program.secure)
        report['privacy'] = {name: spent['by_center'][name] for name in entries}
        summary = read_json(workdir / 'summary.json')
        summary['privacy'] |= spent
        write_json(workdir / 'summary.json', summary)
    told = {name: _written(done, entry) for name, entry in entries.items()}
    write_json(workdir / 'onboard.json', {**report, 'centers': told})
    note_change(workdir, report['action'], [remove] if remove else [*entries])
    return report


def check_asked(workdir, done: Restored, data, update, remove, wanted: Wanted) -> None:
    """Raises ValueError where the arguments of `onboard` do not go together, or with the run."""
    if done.program.describe is None:
        raise ValueError(
            f'{workdir}: trained without a learned descriptor, so that nothing is kept of who joins'
            + (': launch.predict and launch.export make the model of a new center from '
               '--data=FOLDER' if done.program.algorithm.server_model else '')
        )
    if remove and (data or update):
        raise ValueError('--remove takes neither --data nor --update')
    more = ' and '.join(f'--{name}' for name, value in wanted._asdict().items() if value)
    if remove and more:
        raise ValueError(f'--remove does not go with {more}')
    unit = done.config.privacy.unit
    if unit and more:
        raise ValueError(
            f'{more}: would tell of images of the center, and {workdir} is private '
            f'(privacy.unit={unit}): the center itself may use it'
        )
    if unit == 'client':
        raise ValueError(
            f'{workdir}: privacy.unit=client keeps no statistics: a new center makes its own model '
            'from its own images, and nothing is charged'
        )


def note_change(workdir: pathlib.Path, action: str, centers: Sequence[str]) -> None:
    """A line of the history: what centers did now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    line = {'at': now, 'action': action, 'centers': [*centers]}
    append_line(workdir / HISTORY, json.dumps(line))


def forget(workdir: pathlib.Path, center: str) -> None:
    """Removes what lies there of a center that left, or whose images are others now."""
    entry_of(workdir, center).unlink(missing_ok=True)
    remove_model(workdir, center)
    for file in (workdir / 'export').glob(f'{glob.escape(file_name(center))}.*'):
        file.unlink()
        say(f'{file}: removed, for it was of the model before')


def _describe(workdir, done: Restored, center: Center) -> tuple[Statistic, float]:
    """A center's statistic, in a private run with noise, and the seconds that it took."""
    started = time.monotonic()
    if done.config.privacy.unit:
        return release_anew(workdir, done, center), time.monotonic() - started
    statistic = statistic_of(stranger(done, len(center.split)), center.examples)
    return statistic, time.monotonic() - started


def _make(
    workdir: pathlib.Path,
    done: Restored,
    center: Center,
    after: Recalculated,
    seconds: float,
    asked: Extras,
) -> dict:
    """Writes a center's refined model; its entry in the report."""
    started = time.monotonic()
    trained = stranger(done, len(center.split))
    m_E = after.refined_E[center.name]
    if asked.labelled:
        variables, told = finetuned_model(trained, center, m_E)
    else:
        variables, told = with_extras(trained, center.examples, m_E, asked)
    jax.block_until_ready(variables)
    seconds += time.monotonic() - started
    file = None
    if not why_not_kept(done.config):
        kind = 'finetuned' if asked.labelled else 'refined'
        kept = Kept(center.name, kind, 'onboard', done.round, variables, center.window)
        file = str(write_model(workdir, kept))
    tell_doubts(center.name, told)
    resolution = resolution_of(done.config, done.program.task, [center])
    trained = trained._replace(own_size=is_own(resolution))
    statistic = after.statistics.own[center.name]
    if asked.labelled:
        scores, told['scores_without'] = score_finetuned(trained, center)
    else:
        scores = score_stranger(trained, center, 'test')
        if told:
            told['scores_without'] = scores
            scores = score_extras(trained, center, asked)
    entry = {
        'images': statistic.count,
        'seconds': seconds,
        'steps': asked.steps + asked.labelled,
        'bytes_down': num_bytes(done.state.shared),
        'bytes_up': statistic.total.nbytes + 8,
        'weights': descriptor.hash_of(variables['params']),
        'scores': scores,
        'resolution': resolution,
        'model': file,
        **told,
    }
    entry_of(workdir, center.name).parent.mkdir(exist_ok=True)
    write_json(entry_of(workdir, center.name), _written(done, entry))
    return entry


def _written(done: Restored, entry: dict) -> dict:
    """What the run's folder has of an entry: of a private run, whose budget pays for the statistic
    alone, no scores, which are exact counts of the same images."""
    return entry if not done.config.privacy.unit else {**entry, 'scores': {}}


def entry_of(workdir: pathlib.Path, center: str) -> pathlib.Path:
    """The file of what the report said of a center that joined or changed."""
    return workdir / 'onboard' / f'{file_name(center)}.json'


def _read_centers(done, data, update, own, columns) -> tuple[Center, ...]:
    if not data:
        raise ValueError('--data is missing: the folder of the new or changed center')
    config = done.config
    source = load(
        expand(data), config.data.image_size, config.seed, config.data.cache or None,
        classes=done.classes, require_train=False, target=done.program.task.target,
        columns=for_others(config.data.columns) if columns is None else columns,
        window=config.data.window,
    )
    if is_first():
        tell(source, flips=config.shifts.flips)
    names = [c.name for c in source.centers]
    if update:
        if update not in own:
            raise ValueError(f'--update={update}: no such center; there are {", ".join(own)}')
        if names != [update]:
            raise ValueError(f'{data}: holds {", ".join(names)}; --update={update} wants it alone')
    for name in names:
        if not update and name in own:
            raise ValueError(f'{data}: {name!r} has joined already: pass --update={name}')
    return source.centers


def generated(done: Restored, m_E: np.ndarray) -> Any:
    """The weights that are made from a descriptor [E] as it is, of which alone they depend."""
    size = done.config.data.image_size
    blank = Examples(
        np.zeros((1, size, size, 3), np.uint8), {}, np.ones(1, np.float32)
    )
    return model_of(stranger(done, 1), blank, m_E=m_E, whole=True)['params']


def _weights_hash(workdir: pathlib.Path, done: Restored, name: str, statistic: Statistic) -> str:
    """Of the model that a center has: the kept one, else what its statistic makes."""
    file = file_of(workdir, name)
    if file.is_file():
        kept = read_model(file, done.program.input, done.reference)
        return descriptor.hash_of(kept.variables['params'])
    return descriptor.hash_of(generated(done, descriptor.mean(statistic)))


def check_psi(workdir, done, pooled):
    psi = descriptor.hash_of(done.state.shared['psi'])
    if pooled.psi != psi:
        raise ValueError(
            f'{workdir}/statistics: made by descriptor network {pooled.psi}, the checkpoint has '
            f'{psi}: let launch.train finish the run'
        )
