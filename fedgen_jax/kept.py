"""Finished models in a run's folder: `RUN/models/CENTER.npz`, one a center.

A file holds the model's variables by name ('params/head/kernel'), and as JSON under 'about' whose
model it is and what made it.  CENTER is `files.file_name` of the center's name.
"""

import contextlib
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from fedgen_jax.canonical import Input
from fedgen_jax.data.check import say
from fedgen_jax.engine.processes import is_first
from fedgen_jax.files import file_name, write_bytes
from fedgen_jax.own import own_model
from fedgen_jax.program import num_bytes
from fedgen_jax.run import Run, Trained
from fedgen_jax.statistics import read_statistics

Tree = Any

MOST_BYTES = 2**30  # of all seen centers' models together: of larger ones, training keeps none
ABOUT = 'about'


class Kept(NamedTuple):
    """A center's finished model.

    kind:  'refined', 'finetuned' or 'local_only' (`run.CHOICES`).
    made:  by 'training', or by 'onboard'.
    round: of the checkpoint that it was made from.
    window: of its deep gray files, as `examples.Center.window`.
    """

    center: str
    kind: str
    made: str
    round: int
    variables: Tree
    window: str = ''


def file_of(workdir: pathlib.Path, center: str) -> pathlib.Path:
    """Where a center's model lies, if it is kept."""
    return workdir / 'models' / f'{file_name(center)}.npz'


def why_not_kept(config: ConfigDict) -> str:
    """Why a run's folder keeps no model of a center; '' where it does.

    The folder is the server's, and a model tells of the images that it was made from: of batch
    statistics, of how its input is changed, of a descriptor without noise.
    """
    unit = config.privacy.unit
    if unit:
        return f'the run is private (privacy.unit={unit})'
    return 'a private run begins with this one' if config.privacy.discreet else ''


def check_outside(
    workdir: pathlib.Path, config: ConfigDict, place: pathlib.Path, flag: str = '--to'
) -> None:
    """Raises ValueError where what tells of images would be written into a private run's folder.

    flag: that names `place`.
    """
    why = why_not_kept(config)
    if why and place.resolve().is_relative_to(workdir.resolve()):
        raise ValueError(
            f'{place}: lies in the folder of the run, which is the server\'s, and {why}: pass '
            f'{flag} with a place at the center'
        )


def write_model(workdir: pathlib.Path, kept: Kept) -> pathlib.Path:
    """Writes a model, replacing the center's; returns its file."""
    file = file_of(workdir, kept.center)
    about = kept._asdict()
    named = flat_variables(about.pop('variables'))
    buffer = io.BytesIO()
    np.savez(buffer, **{ABOUT: np.array(json.dumps(about))}, **named)  # type: ignore[arg-type]
    if is_first():
        file.parent.mkdir(exist_ok=True)
    write_bytes(file, buffer.getvalue())
    return file


def read_model(file: pathlib.Path, made: Input | None, reference_M: np.ndarray | None) -> Kept:
    """A model, its variables as the program's `predict` takes them.

    made, reference_M: the run's canonical input and its reference, which tell the shape of a
        center's change.

    Raises ValueError where the file is damaged.
    """
    try:
        named = _arrays(file)
        about = json.loads(str(named.pop(ABOUT)))
        return Kept(**about, variables=variables_of(named, made, reference_M))
    except _DAMAGED as error:
        raise ValueError(
            f'{file}: no model of this run, or damaged ({type(error).__name__}: {error}): delete '
            'it; it is made anew from the images of the center'
        ) from error


_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def _arrays(file) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def names_kept(workdir: pathlib.Path) -> list[str]:
    """The centers whose models lie in a run's folder, without damaged ones."""
    names = []
    for file in sorted((workdir / 'models').glob('*.npz')):
        with contextlib.suppress(*_DAMAGED):
            names.append(json.loads(str(_arrays(file)[ABOUT]))['center'])
    return names


def remove_model(workdir: pathlib.Path, center: str) -> None:
    """Of a center that leaves."""
    if is_first():
        file_of(workdir, center).unlink(missing_ok=True)


def flat_variables(variables: Mapping[str, Tree]) -> dict[str, np.ndarray]:
    """{'params/...', 'batch_stats/...', 'canonical/0', ..., 'prior': array} of a model."""
    found: dict[str, np.ndarray] = {}
    for part, tree in jax.device_get(dict(variables)).items():
        if part == 'canonical':
            found |= {f'canonical/{i}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(tree))}
        elif isinstance(tree, Mapping):
            flat = flatten_dict(tree, sep='/')
            found |= {f'{part}/{name}': np.asarray(x) for name, x in flat.items()}
        else:
            found[part] = np.asarray(tree)
    return found


def variables_of(
    named: Mapping[str, np.ndarray], made: Input | None, reference_M: np.ndarray | None
) -> dict[str, Tree]:
    """The inverse of `flat_variables`; arguments as of `read_model`."""
    change = {k: x for k, x in named.items() if k.startswith('canonical/')}
    variables = unflatten_dict({k: x for k, x in named.items() if k not in change}, sep='/')
    variables = {'params': {}, 'batch_stats': {}, **variables}
    if change:
        if made is None or reference_M is None:
            raise ValueError('has a canonical input, and the run has none')
        shape = jax.eval_shape(made.change, reference_M, reference_M)
        leaves = [change[f'canonical/{i}'] for i in range(len(change))]
        variables['canonical'] = jax.tree.unflatten(jax.tree.structure(shape), leaves)
    return variables


def chosen_models(
    trained: Trained, models: Mapping[str, list], chosen: Mapping[str, str]
) -> list[tuple[str, Tree]]:
    """(kind, variables) of each seen center's own model: the chosen one, else the refined one.

    models: those of `own.own_models` that are at hand; others are made.  chosen: {center: kind}.
    """
    kinds = [chosen.get(center.name, 'refined') for center in trained.seen]
    return [
        (kind, models[kind][i] if kind in models else own_model(trained, i, kind))
        for i, kind in enumerate(kinds)
    ]


def save_models(
    workdir: pathlib.Path,
    run: Run,
    trained: Trained,
    models: Mapping[str, list],
    chosen: Mapping[str, str],
) -> None:
    """Writes the seen centers' own models, but for those that changed or left since the training.

    None of a private run, nor where they would take more than `MOST_BYTES` together.  Models of
    other rounds are removed.  models, chosen: as of `chosen_models`.
    """
    joined = _joined(workdir, run.config.rounds)
    if why_not_kept(run.config):
        return
    total = num_bytes(own_model(trained, 0, 'refined')) * len(run.seen)
    if total > MOST_BYTES:
        if is_first():
            say(
                f'{workdir}/models: not written: {len(run.seen)} models take {total / 2**30:.1f} '
                'GiB: they are made from the images of a center when they are asked for'
            )
        return
    there = {center.name for center in run.seen}
    if trained.program.describe and (workdir / 'statistics' / 'pooled.json').is_file():
        there &= read_statistics(workdir).own.keys()
    for center, (kind, variables) in zip(run.seen, chosen_models(trained, models, chosen)):
        if center.name in there - joined:
            rounds = run.config.rounds
            kept = Kept(center.name, kind, 'training', rounds, variables, center.window)
            write_model(workdir, kept)


def _joined(workdir: pathlib.Path, round_: int) -> set[str]:
    """The centers whose models were made by onboarding; removes those of other rounds."""
    joined = set()
    for file in sorted((workdir / 'models').glob('*.npz')):
        about = {}
        with contextlib.suppress(*_DAMAGED):
            about = json.loads(str(_arrays(file)[ABOUT]))
        if about.get('round') != round_:
            if is_first():
                file.unlink()
        elif about['made'] == 'onboard':
            joined.add(about['center'])
    return joined
