"""What a finished run's models say of the images that are scored, one by one and by groups."""

import itertools
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax.data.examples import Center, take
from fedgen_jax.data.folder.decode import file_of, open_image
from fedgen_jax.data.folder.labels import BETWEEN
from fedgen_jax.data.folder.words import listed
from fedgen_jax.data.forms import folder_of
from fedgen_jax.data.inputs import in_own_pixels
from fedgen_jax.data.public.labels import NOTHING
from fedgen_jax.data.targets import Frame
from fedgen_jax.evaluate import (
    Predicted,
    concatenate,
    measured,
    metrics_in,
    metrics_of,
    predict_seen,
    predict_unseen,
)
from fedgen_jax.files import expand
from fedgen_jax.guard import reopened
from fedgen_jax.kept import check_outside, chosen_models, why_not_kept
from fedgen_jax.own import choose_own, own_models
from fedgen_jax.predictions import Said
from fedgen_jax.resolution import is_own, resolution_of
from fedgen_jax.run import Run, Trained, after_training, reopen
from fedgen_jax.schema import ByColumn
from fedgen_jax.tasks import Task
from fedgen_jax.tasks.coco_metrics import Ids, ids_of, only_images

MOST_VALUES = 30  # of a column that scores are told by
EMPTY = '(empty)'  # the group of images whose cell is


class Answers(NamedTuple):
    """What a run's models say of the images that are scored.

    ids, truth: of detection on a folder: its own ids, and its `annotations.json` with these images
        alone, so that the others do not count as missed.
    """

    said: Iterable[Said]
    task: Task
    classes: tuple[str, ...]
    ids: Ids | None = None
    truth: dict | None = None


def answers_of(
    workdir: str | pathlib.Path, data: str | None = None, to: pathlib.Path | None = None
) -> Answers:
    """Predictions of the models that `summary.json` scores, in the images' own pixels.

    Seen centers' are of their own models on `score_on`, unseen ones' cross-fitted.  Arguments as of
    `summary.evaluate_run`.

    to: the folder that they will be written to.  Raises ValueError where that is a private run's.
    """
    run, fed = finished(workdir, data)
    if to:
        check_outside(expand(workdir), run.config, to, '--predictions')
    c, found = run.config, predicted(run, fed)
    root = folder_of(c.data.root) if c.data.source == 'folder' else None
    sizes = {x.name: dict(zip(x.path, x.size)) for x in (*fed.seen, *fed.unseen)}
    kept = {x.name: dict(zip(x.path, x.more)) for x in (*fed.seen, *fed.unseen)}
    said = (
        _said(
            name, p, i, sizes[name].get(p.path[i], ''), root, c.data.image_size, run.classes
        )._replace(kept=kept[name].get(p.path[i], {}))
        for name, p in found.items() for i in range(len(p.path))
    )
    task = fed.program.task
    if task.target != 'box' or root is None:
        return Answers(said, task, run.classes)
    paths = [path for p in found.values() for path in p.path]
    ids, truth = ids_of(root, paths, run.classes), only_images(root, set(paths))
    return Answers(said, task, run.classes, ids, truth)


def finished(workdir: str | pathlib.Path, data: str | None = None) -> tuple[Run, Trained]:
    """A run from its folder, with its images and its last checkpoint.

    data: as of `summary.evaluate_run`.
    """
    done, run = reopen(workdir, data)
    run = reopened(run, expand(workdir), done.round)
    return run, after_training(run, done.state, done.private_C)


def predicted(run: Run, fed: Trained) -> dict[str, Predicted]:
    """What each center's model says of its scored images: of seen ones their own models.

    Unseen ones are cross-fitted; without a server's model they have none, and are left out.
    """
    c = run.config
    models = own_models(fed, c.finetune.choose)
    chosen = choose_own(fed, models, c.score_on)['chosen'] if models else {}
    own = [variables for _, variables in chosen_models(fed, models, chosen)]
    found = {
        center.name: predict_seen(fed, i, c.score_on, own[i]) for i, center in enumerate(fed.seen)
    }
    if fed.program.algorithm.server_model:
        found |= {x.name: predict_unseen(fed, x, c.score_on) for x in fed.unseen}
    return found


def _said(
    center: str, p: Predicted, i: int, shape: str, root, size: int, classes: Sequence[str]
) -> Said:
    """What is said of the i-th image of a center.

    shape: 'width x height' of it, '' of drawn ones.  root: of the files, None without.
    """
    frame, path, source = Frame(size, size, 1.0, size), p.path[i], ''
    if root is not None and os.path.exists(root / file_of(path)):
        source = str(root / path)
        picture = open_image(source)  # also for the aspect of its pixels
        frame = Frame(*picture.image.size, picture.aspect, size)
    elif shape:  # of an array within a file
        width, height = map(int, shape.split(' x '))
        frame = Frame(width, height, 1.0, size)
    found, target = jax.tree.map(lambda x: x[i], (p.predictions, p.examples.target))
    more = {'center': center}
    if np.ndim(target.get('label')) == 0 and 'label' in target:
        more['truth'] = classes[int(target['label'])] if target['label'] >= 0 else ''
    if 'labels' in target and np.all(target['labels'] >= 0):
        there = [name for name, on in zip(classes, target['labels']) if on]
        more['truth'] = BETWEEN.join(there) or NOTHING
    elif 'labels' in target:
        more['truth'] = ''
    return Said(path, frame[:2], in_own_pixels(found, frame), None, more, source)


def scores_by(
    workdir: str | pathlib.Path, column: str, data: str | None = None
) -> ByColumn:
    """Scores of the images that share a value of a further column of the data's table.

    The images of all seen centers are taken together, each under its own center's model, and so
    are those of all unseen ones.  Arguments as of `summary.evaluate_run`.

    Raises ValueError where the table has no such column, or more than `MOST_VALUES` values of it;
    of a private run, whose page shows no group that is smaller than a center.
    """
    run, fed = finished(workdir, data)
    centers = (*fed.seen, *fed.unseen)
    if why := why_not_kept(run.config):
        raise ValueError(
            f'--by={column}: {workdir}: {why}, and scores of few images tell of these: leave --by '
            'out'
        )
    value_of = values_of(centers, column)
    resolution = resolution_of(run.config, run.program.task, centers)
    fed = fed._replace(own_size=is_own(resolution))
    found = {name: measured(fed, p) for name, p in predicted(run, fed).items()}

    def scores(group: Sequence[Center]) -> dict[str, dict[str, Any]] | None:
        parts = [(found[c.name], value_of[c.name]) for c in group if c.name in found]
        if not parts:
            return None
        values = [of[path] for p, of in parts for path in p.path]
        told = {}
        for value in sorted(set(values)):
            whole = concatenate([
                part_of(p, np.array([of[path] == value for path in p.path], bool))
                for p, of in parts
            ])
            of_value = metrics_of(fed, whole)
            told[value] = {**metrics_in(of_value), 'n': of_value['n']}
        return told

    return {'column': column, 'seen': scores(fed.seen) or {}, 'unseen': scores(fed.unseen)}


def values_of(centers: Sequence[Center], column: str) -> dict[str, dict[str, str]]:
    """{center: {path: value}} of a further column.  Raises ValueError, see `scores_by`."""
    there = list(dict.fromkeys(name for c in centers for more in c.more for name in more))
    if column not in there:
        told = f'the further ones are {listed(there, 40)}' if there else 'it has no further column'
        raise ValueError(f'--by={column}: no such column of the data\'s table: {told}')
    found = {
        c.name: {path: more[column] or EMPTY for path, more in zip(c.path, c.more)}
        for c in centers
    }
    values = {value for of in found.values() for value in of.values()}
    if len(values) > MOST_VALUES:
        raise ValueError(
            f'--by={column}: has {len(values)} values, and {MOST_VALUES} can be told apart: name a '
            'column of fewer, or write groups into one'
        )
    return found


def part_of(found: Predicted, index_N: np.ndarray) -> Predicted:
    """The predictions at `index_N` (booleans)."""
    predictions = jax.tree.map(lambda x: np.asarray(x)[index_N], found.predictions)
    path, unit = (tuple(itertools.compress(x, index_N)) for x in (found.path, found.unit))
    original = tuple(itertools.compress(found.original, index_N))
    return Predicted(predictions, take(found.examples, index_N), path, unit, original)
