"""The centers' statistics in a run's folder: each center's own, and their sum, the server's.

    statistics/centers/CENTER.json   a center's own, its name within; CENTER is a safe file name
    statistics/pooled.json           the server's

A run whose statistics lie in statistics/NAME.json, as they did before, is read all the same.
"""

import pathlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.engine.processes import is_first
from fedgen_jax.evaluate import seen_statistics
from fedgen_jax.files import file_name, read_json, read_json_lines, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.run import Trained

HISTORY = 'onboarded.jsonl'  # in a run's folder: each change, and when


def history(workdir: pathlib.Path) -> list[dict]:
    """Lines {'at', 'action', 'centers'} of who joined, changed or left since the training."""
    file = workdir / HISTORY
    return read_json_lines(file) if file.is_file() else []


class Statistics(NamedTuple):
    """own: every center's statistic, by name; pooled: their sum."""

    own: dict[str, Statistic]
    pooled: Statistic


def save_statistics(workdir: pathlib.Path, done: Trained) -> None:
    """As `keep_statistics`, of the seen centers."""
    if own := seen_statistics(done):
        keep_statistics(workdir, own)


def keep_statistics(workdir: pathlib.Path, own: dict[str, Statistic]) -> None:
    """Writes the centers' own, unless the folder has some of the same descriptor network.

    Those may hold centers that were onboarded since.
    """
    pooled = descriptor.pool(own.values())
    if _pool_of(workdir).is_file():
        before = _read(_pool_of(workdir))
        if before.psi == pooled.psi:
            return
        joined = [name for name in _read_own(workdir) if name not in own]
        if joined:
            warnings.warn(
                f'{workdir}/statistics: the descriptor network has changed: onboard '
                f'{", ".join(joined)} again', stacklevel=2,
            )
        if is_first():  # of the network before
            shutil.rmtree(workdir / 'center_model', ignore_errors=True)
    write_statistics(workdir, Statistics(own, pooled))


def check_unchanged(workdir: pathlib.Path, names: Sequence[str]) -> None:
    """Raises ValueError where a run that is to train on has centers that left or changed since.

    names: of the seen centers, as the data have them.
    """
    if not _pool_of(workdir).is_file():
        return
    own = _read_own(workdir)
    gone = [name for name in names if name not in own]
    changed = [n for n in names if (workdir / 'onboard' / f'{file_name(n)}.json').is_file()]
    for what, found in (('left', gone), ('changed', changed)):
        if found:
            raise ValueError(
                f'{workdir}: {", ".join(found)} {what} since the training (launch.onboard), and '
                'more rounds would train on the old images: train in another --workdir, on data as '
                'they are now'
            )


def write_statistics(workdir: pathlib.Path, statistics: Statistics) -> None:
    """Writes all, and removes those of centers that are gone."""
    if not is_first():
        return
    centers = workdir / 'statistics' / 'centers'
    centers.mkdir(parents=True, exist_ok=True)
    before = set(_files(workdir))
    now = {centers / f'{file_name(name)}.json': (name, s) for name, s in statistics.own.items()}
    for file, (name, s) in now.items():
        write_json(file, {'name': name, **_to_json(s)})
    write_json(_pool_of(workdir), _to_json(statistics.pooled))
    for file in before - set(now):
        file.unlink()


def read_statistics(workdir: pathlib.Path) -> Statistics:
    """Every center's statistic and the pooled one.

    Raises ValueError where they are missing or do not add up, as after a change that was cut short.
    """
    if not _pool_of(workdir).is_file():
        raise ValueError(f'{_pool_of(workdir)}: missing: let launch.train finish')
    own, pooled = _read_own(workdir), _read(_pool_of(workdir))
    total = sum(s.total for s in own.values())
    if np.any(total != pooled.total) or sum(s.count for s in own.values()) != pooled.count:
        raise ValueError(
            f'{workdir}/statistics: the centers do not add up to pooled.json, as after a change '
            'that was cut short: delete the folder, call launch.train, and onboard again'
        )
    return Statistics(own, pooled)


def _pool_of(workdir) -> pathlib.Path:
    return workdir / 'statistics' / 'pooled.json'


def _files(workdir) -> list[pathlib.Path]:
    """The centers' files; those of the present layout come last, for they count."""
    before = [f for f in sorted((workdir / 'statistics').glob('*.json')) if f != _pool_of(workdir)]
    return before + sorted((workdir / 'statistics' / 'centers').glob('*.json'))


def _read_own(workdir) -> dict[str, Statistic]:
    values = {f: read_json(f) for f in _files(workdir)}
    return {v.get('name', f.stem): _from_json(v) for f, v in values.items()}


def _read(file) -> Statistic:
    return _from_json(read_json(file))


def _to_json(s: Statistic) -> Mapping:
    value = {'total': s.total.tolist(), 'count': s.count, 'psi': s.psi}
    # What is exact is written as it was before statistics could be released with noise.
    return value | ({'unit': s.unit, 'variance': s.variance} if s.variance else {})


def _from_json(value: Mapping) -> Statistic:
    total = np.array(value['total'], np.int64)
    more = value.get('unit', 'image'), value.get('variance', 0)
    return Statistic(total, value['count'], value['psi'], *more)
