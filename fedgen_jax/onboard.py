"""New, changed and leaving centers, after training: one forward pass each, 0 steps.

Works from a run's folder alone: checkpoint, configuration and statistics, no training images.
"""

import pathlib
import shutil
import time
from typing import Any

import jax
import numpy as np

from fedgen_jax import checkpoint
from fedgen_jax.data.examples import Center, Examples
from fedgen_jax.data.source import load
from fedgen_jax.evaluate import model_of, score_stranger, statistic_of
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.program import num_bytes
from fedgen_jax.run import Restored, Trained, restore, write_json
from fedgen_jax.summary import POOLED, read_statistics, write_statistic


def onboard(
    workdir: str | pathlib.Path,
    data: str | None = None,
    update: str | None = None,
    remove: str | None = None,
) -> dict:
    """Takes in the centers of a folder, replaces one's data, or lets one go.

    Writes `onboard/CENTER/` (the refined weights, an Orbax checkpoint), `center_model/` (the one
    model for all, from the new pool), the changed `statistics/`, and `onboard.json`, which is
    returned.

    Args:
      workdir: a run of `launch.train` whose descriptor is learned.
      data: the folder of the new or changed centers; labels are only used to score.
      update: the center whose data `data` replaces; the folder holds this one alone.
      remove: the center that leaves; takes no `data`.

    Raises ValueError, in one line, where run and folder do not fit.
    """
    workdir = pathlib.Path(workdir)
    done = restore(workdir)
    if done.program.describe is None:
        raise ValueError(f'{workdir}: trained without a learned descriptor, so nothing can join')
    own = read_statistics(workdir)
    pooled = own.pop(POOLED)
    _check_psi(workdir, done, pooled)
    before = {name: _weights_hash(done, s) for name, s in own.items()}
    started = time.monotonic()

    if remove:
        if data or update:
            raise ValueError('--remove takes neither --data nor --update')
        pooled = descriptor.remove(pooled, _own(own, remove, workdir))
        if not pooled.count:
            raise ValueError(f'--remove={remove}: the last center; no center model would be left')
        del own[remove]
        centers = {}
    else:
        centers = {}
        for center in _read_centers(done, data, update, own):
            statistic, entry = _join(workdir, done, center)
            if update:
                pooled = descriptor.update(pooled, _own(own, update, workdir), statistic)
            else:
                pooled = descriptor.add(pooled, statistic)
            own[center.name] = statistic
            centers[center.name] = entry

    center_model = _params(done, descriptor.mean(pooled))
    checkpoint.save_tree(workdir / 'center_model', {'params': center_model})
    for name, s in {**own, POOLED: pooled}.items():
        write_statistic(workdir, name, s)
    if remove:
        (workdir / 'statistics' / f'{remove}.json').unlink()
        shutil.rmtree(workdir / 'onboard' / remove, ignore_errors=True)
    kept = read_statistics(workdir)
    others = {name: h for name, h in before.items() if name not in (update, remove)}
    report = {
        'action': 'remove' if remove else 'update' if update else 'join',
        'seconds': time.monotonic() - started,
        'centers': centers,
        'removed': remove,
        'center_model': {
            'images': pooled.count, 'weights': descriptor.hash_of(center_model)
        },
        'others': {
            'steps': 0,
            'bytes': 0,
            'weights_before': others,
            'weights_after': {name: _weights_hash(done, kept[name]) for name in others},
        },
    }  # fmt: skip
    write_json(workdir / 'onboard.json', report)
    return report


def _join(workdir, done: Restored, center: Center) -> tuple[Statistic, dict]:
    """A center's statistic, its refined model on disk, and its entry in the report."""
    started = time.monotonic()
    trained = _trained(done, len(center.split))
    statistic = statistic_of(trained, center.examples)
    variables = model_of(trained, center.examples, m_E=descriptor.mean(statistic))
    jax.block_until_ready(variables)
    seconds = time.monotonic() - started
    checkpoint.save_tree(workdir / 'onboard' / center.name, variables)
    return statistic, {
        'images': statistic.count,
        'seconds': seconds,
        'steps': 0,
        'bytes_down': num_bytes(done.state.shared),
        'bytes_up': statistic.total.nbytes + 8,
        'weights': descriptor.hash_of(variables['params']),
        'scores': score_stranger(trained, center, 'test'),
    }


def _read_centers(done, data, update, own) -> tuple[Center, ...]:
    if not data:
        raise ValueError('--data is missing: the folder of the new or changed center')
    config = done.config
    source = load(
        data, config.data.image_size, config.seed, config.data.cache or None,
        classes=done.classes, require_train=False, target=done.program.task.target,
    )  # fmt: skip
    names = [c.name for c in source.centers]
    if update:
        if update not in own:
            raise ValueError(f'--update={update}: no such center; there are {", ".join(own)}')
        if names != [update]:
            raise ValueError(f'{data}: holds {", ".join(names)}; --update={update} wants it alone')
    for name in names:
        if not update and name in own:
            raise ValueError(f'{data}: {name!r} has joined already: pass --update={name}')
        if name == POOLED or pathlib.Path(name).name != name:
            raise ValueError(f'{data}: {name!r} cannot name a folder: rename the center')
    return source.centers


def _own(own: dict, name: str, workdir) -> Statistic:
    if name not in own:
        raise ValueError(f'{workdir}: no center {name!r}; there are {", ".join(own)}')
    return own[name]


def _trained(done: Restored, length: int) -> Trained:
    return Trained(
        done.program, done.state.shared, None, (), (), length, jax.random.key(done.config.seed)
    )


def _params(done: Restored, m_E: np.ndarray) -> Any:
    """Generated weights; they depend on the descriptor alone, so any image will do."""
    size = done.config.data.image_size
    blank = Examples(
        np.zeros((1, size, size, 3), np.uint8), {}, np.ones(1, np.float32)
    )
    return model_of(_trained(done, 1), blank, m_E=m_E)['params']


def _weights_hash(done: Restored, statistic: Statistic) -> str:
    return descriptor.hash_of(_params(done, descriptor.mean(statistic)))


def _check_psi(workdir, done, pooled):
    psi = descriptor.hash_of(done.state.shared['psi'])
    if pooled.psi != psi:
        raise ValueError(
            f'{workdir}/statistics: made by descriptor network {pooled.psi}, the checkpoint has '
            f'{psi}: let launch.train finish the run'
        )
