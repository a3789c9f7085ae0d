"""Checkpoints of a run: Orbax's `CheckpointManager`, behind a few functions.

Orbax writes a checkpoint beside its place and renames it, so that a killed run leaves none half
written.  A seal, the hashes of all its files, shows whether they have changed since.
"""

import contextlib
import errno
import hashlib
import json
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict

from fedgen_jax.algorithms.base import State
from fedgen_jax.engine.processes import from_first, is_first
from fedgen_jax.files import write_text
from fedgen_jax.interrupt import MayPass

Tree = Any

SEAL = 'seal.json'
KEPT = 2  # of a run's checkpoints, the last ones


@contextlib.contextmanager
def manager(workdir: str | pathlib.Path, keep: int = KEPT) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints under `workdir`/checkpoints, the last `keep` of them; finished at the end."""
    checkpoints = _open(workdir, max_to_keep=keep, create=True)
    try:
        yield checkpoints
        finish(checkpoints)
    finally:
        for end in (finish, ocp.CheckpointManager.close):
            with contextlib.suppress(Exception):  # what failed has been told
                end(checkpoints)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Orbax warns that what is read only is read only."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _open(workdir, **options) -> ocp.CheckpointManager:
    folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    options = ocp.CheckpointManagerOptions(**options)
    handler = ocp.StandardCheckpointHandler()
    return ocp.CheckpointManager(folder, options=options, item_handlers=handler)


def save(checkpoints: ocp.CheckpointManager, round_: int, tree: tuple[State, Tree]) -> None:
    """Saves state and private states in the background; arrays are copied before this returns.

    Raises MayPass, here or in `finish`, where it cannot: the checkpoint before stays.
    """
    finish(checkpoints)
    with _one_line(checkpoints):
        checkpoints.save(round_, args=ocp.args.StandardSave(tree))


def finish(checkpoints: ocp.CheckpointManager) -> None:
    """Waits for the last save, and seals it."""
    with _one_line(checkpoints):
        checkpoints.wait_until_finished()
        last = checkpoints.latest_step()
        unsealed = last is not None and not (_folder(checkpoints, last) / SEAL).exists()
        if unsealed and is_first():
            folder = _folder(checkpoints, last)
            write_text(folder / SEAL, json.dumps(_hashes(folder)))


def seal_if_done(checkpoints: ocp.CheckpointManager) -> None:
    """Seals the last save as soon as it is done, so that a killed run mostly leaves it sealed.

    Of many processes the first decides, and all call this together.
    """
    if from_first(not checkpoints.is_saving_in_progress()):
        finish(checkpoints)


def restore(
    checkpoints: ocp.CheckpointManager, like: tuple[State, Tree]
) -> tuple[int, tuple[State, Tree]]:
    """(round, tree) of the last checkpoint that is whole; (0, like) where there is none.

    A damaged one is set aside, with a warning that names it.

    like: arrays whose shapes, types and shardings the restored ones take; NumPy's stay NumPy's.
    """
    while step := _set_damaged_aside(checkpoints):
        _check_shapes(checkpoints, step, like)
        try:
            return step, _read_step(checkpoints, step, like)
        except Exception as error:  # readers raise nearly every type on malformed files
            sealed = (_folder(checkpoints, step) / SEAL).exists()
            if sealed or jax.process_count() > 1:
                raise  # its files are whole; or only some of the processes may have met it
            _set_aside(checkpoints, step, _in_short(error))
    return 0, like


def read(
    workdir: str | pathlib.Path, like: tuple[State, Tree]
) -> tuple[int, tuple[State, Tree]]:
    """As `restore`, of a run that may be going on: nothing is written, damaged ones stay."""
    if not (pathlib.Path(workdir) / 'checkpoints').is_dir():
        return 0, like
    with _quietly(), contextlib.closing(_open(workdir, read_only=True)) as checkpoints:
        for step in sorted(checkpoints.all_steps(), reverse=True):
            folder = _folder(checkpoints, step)
            problem = _damage(folder)
            if not problem:
                _check_shapes(checkpoints, step, like)
                try:
                    return step, _read_step(checkpoints, step, like)
                except Exception as error:
                    if (folder / SEAL).exists():
                        raise
                    problem = _in_short(error)
            warnings.warn(f'{folder}: {problem}: the checkpoint before is read', stacklevel=2)
    return 0, like


def server_weights(workdir: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The base weights of a run's last checkpoint by name, 'params/...', and 'batch_stats/...'.

    Raises ValueError where the folder is no run, or its server has no model.
    """
    shared = server_shared(workdir)
    if 'theta' not in shared:
        raise ValueError(f'{workdir}: its server has no model: start from a run of another method')
    kinds = {'params': shared['theta'], 'batch_stats': shared.get('statistics', {})}
    return {
        f'{kind}/{name}': np.asarray(x)
        for kind, tree in kinds.items()
        for name, x in flatten_dict(tree, sep='/').items()
    }


def server_shared(workdir: str | pathlib.Path) -> dict[str, Any]:
    """What the server of a run holds at its last checkpoint, as nested dicts of arrays.

    Raises ValueError where the folder is no run, or the checkpoint is damaged.
    """
    if not (pathlib.Path(workdir) / 'checkpoints').is_dir():
        raise ValueError(f'{workdir}/checkpoints: missing, so this is no run of launch.train')
    with contextlib.closing(_open(workdir, read_only=True)) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise ValueError(f'{workdir}/checkpoints: no checkpoint yet')
        if problem := _damage(_folder(checkpoints, step)):
            raise ValueError(f'{_folder(checkpoints, step)}: {problem}')
        like = jax.tree.map(
            lambda x: np.empty(x.shape, x.dtype), checkpoints.item_metadata(step).tree
        )
        state, _ = checkpoints.restore(step, args=ocp.args.StandardRestore(like))
    return state['shared']


def _read_step(checkpoints, step, like):
    abstract = jax.tree.map(
        lambda x: ocp.utils.to_shape_dtype_struct(x) if isinstance(x, jax.Array) else x, like
    )
    state, own_C = abstract
    # A field of the state that is younger than the checkpoint, and empty, is not on disk.
    saved = checkpoints.item_metadata(step).tree[0]
    known = {name: x for name, x in state._asdict().items() if name in saved}
    found, own_C = checkpoints.restore(step, args=ocp.args.StandardRestore((known, own_C)))
    return state._replace(**found), own_C


def _in_short(error):
    return f'{type(error).__name__}: {error}'.splitlines()[0][:200]


def _set_damaged_aside(checkpoints) -> int:
    """The last checkpoint whose files are as they were sealed; 0: none."""
    step = checkpoints.latest_step() or 0
    if is_first():
        while step and (problem := _damage(_folder(checkpoints, step))):
            _set_aside(checkpoints, step, problem)
            step = checkpoints.latest_step() or 0
    found = from_first(step)
    if found != step:
        checkpoints.reload()
    return found


def save_tree(folder: str | pathlib.Path, tree: Tree) -> None:
    """One pytree in a folder of its own, replacing what was there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(pathlib.Path(folder).absolute(), tree, force=True)


def _folder(checkpoints, step) -> pathlib.Path:
    return pathlib.Path(checkpoints.directory) / str(step)


def _hashes(folder) -> dict[str, str]:
    files = sorted(f for f in folder.rglob('*') if f.is_file() and not f.name.startswith(SEAL))
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
    }


def _damage(folder) -> str:
    """What is wrong with a checkpoint's files; '' if nothing, or if it was never sealed."""
    try:
        sealed = json.loads((folder / SEAL).read_text())
    except FileNotFoundError:
        return ''
    except ValueError:
        return f'{SEAL} is damaged'
    found = _hashes(folder)
    changed = [name for name in sealed if found.get(name) != sealed[name]]
    return f'{changed[0]} is damaged or missing' if changed else ''


def _set_aside(checkpoints, step, problem):
    folder = _folder(checkpoints, step)
    aside = folder.parent.parent / 'damaged' / folder.name
    while aside.exists():
        aside = aside.with_name(aside.name + '_')
    aside.parent.mkdir(exist_ok=True)
    folder.rename(aside)
    checkpoints.reload()
    warnings.warn(
        f'{folder}: {problem}: set aside as {aside}; the checkpoint before is used', stacklevel=3
    )


def _check_shapes(checkpoints, step, like):
    """Compared before reading: a restore that fails half-way leaves reads in the background."""
    try:
        saved = {x.name: x.shape for x in jax.tree.leaves(checkpoints.item_metadata(step).tree)}
    except Exception:  # damaged, as restoring it will tell
        return
    wanted = {
        jax.tree_util.keystr(path, simple=True, separator='.'): x.shape
        for path, x in jax.tree_util.tree_leaves_with_path(like)
    }
    if saved != wanted:
        name = min(k for k in saved | wanted if saved.get(k) != wanted.get(k))
        raise ValueError(
            f'{checkpoints.directory}: round {step} was saved by another model or algorithm than '
            f'this configuration makes (they differ in {name}): use another workdir'
        )


@contextlib.contextmanager
def _one_line(checkpoints):
    try:
        yield
    except Exception as error:  # Orbax passes on what the file system or tensorstore raised
        text = f'{error}'.splitlines()[0][:300] if f'{error}' else type(error).__name__
        whole = [s for s in checkpoints.all_steps() if (_folder(checkpoints, s) / SEAL).exists()]
        last = f'round {max(whole)} is the last whole checkpoint' if whole else 'there is none yet'
        full = any(x in text for x in ('No space left', 'File too large', 'quota'))
        way = 'free some space and run again' if full else 'run again'
        failed = MayPass(f'{checkpoints.directory}: cannot save ({text}): {way}; {last}')
        failed.errno = errno.ENOSPC if full else None
        raise failed from error
