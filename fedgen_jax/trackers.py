"""A run's scores where people compare runs: TensorBoard, Weights & Biases (`tracker`).

A tracker shows what the run's folder holds: the lines of metrics.jsonl, each at its round, and at
the end the mean scores of summary.json.  What it lacks of lines that are there it gets as the run
begins, so that a run which was cut or made longer shows each round once, and one that was trained
without a tracker gets all of them.  Of a private run it has the lines alone.
"""

import contextlib
import importlib
import pathlib
import secrets
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from fedgen_jax.data.check import say
from fedgen_jax.engine.processes import is_first
from fedgen_jax.files import read_json, read_json_lines, write_json
from fedgen_jax.interrupt import Stopped
from fedgen_jax.registry import choose
from fedgen_jax.settings import name_of, settings_of

Scalars = dict[str, float]
QUIET = {  # of Weights & Biases
    'silent': True, 'console': 'off', 'disable_git': True, 'disable_code': True, 'host': '',
    'x_disable_meta': True, 'x_disable_machine_info': True, 'x_disable_stats': True,
    'x_save_requirements': False,
}
PACKAGES = {'tensorboard': 'tensorboardX', 'wandb': 'wandb'}


class Tracker(NamedTuple):
    """Where a run tells its numbers.

    write: (round, `scalars_of` its line of metrics.jsonl).
    final: (rounds, `final_of` its summary).
    close: (whether the run failed).
    """

    write: Callable[[int, Scalars], None]
    final: Callable[[int, Scalars], None]
    close: Callable[[bool], None]


def chosen(c: ConfigDict) -> list[str]:
    """The trackers that a configuration names.

    Raises ValueError for one that is none, or whose package is missing.
    """
    names = [name.strip() for name in c.tracker.split(',') if name.strip()]
    for name in names:
        choose('tracker', name, TRACKERS)
        _package(name)
    return list(dict.fromkeys(names))


@contextlib.contextmanager
def tracking(
    c: ConfigDict, workdir: pathlib.Path
) -> Iterator[Callable[[dict], None]]:
    """Yields what takes a line of metrics.jsonl, or at the end a summary.

    Of many processes the first alone tells.  Raises ValueError as `chosen`, and where Weights &
    Biases cannot begin.
    """
    names = chosen(c) if is_first() else []
    trackers = [TRACKERS[name](c, workdir) for name in names]
    def tell(told):
        for tracker in trackers:
            if 'round' in told:
                tracker.write(told['round'], scalars_of(told))
            elif not c.privacy.unit:
                tracker.final(told['rounds'], final_of(told))

    failed = True
    try:
        yield tell
        failed = False
    except Stopped:
        failed = False
        raise
    finally:
        for tracker in trackers:
            tracker.close(failed)


def scalars_of(line: dict) -> Scalars:
    """The numbers of a line of metrics.jsonl, by name."""
    mean = (line['seen'] or {}).get('mean', {})
    own = {k: line[k] for k in ('loss', 'seconds', 'left_out') if line.get(k) is not None}
    return {**own, **{f'val/seen/{k}': v for k, v in mean.items()}}


def final_of(summary: dict) -> Scalars:
    """The mean scores of a summary, by name: 'test/unseen/accuracy', 'test/center_model/seen/...'.
    """
    split = summary['score_on']
    groups = {group: summary.get(group) for group in ('seen', 'unseen')}
    for group, block in (summary.get('center_model') or {}).items():
        groups[f'center_model/{group}'] = block
    return {
        f'{split}/{group}/{k}': v
        for group, block in groups.items() if block
        for k, v in block['mean'].items()
    }


def _lines(workdir) -> list[dict]:
    file = workdir / 'metrics.jsonl'
    return read_json_lines(file) if file.exists() else []


def _package(name) -> ModuleType:
    try:
        return importlib.import_module(PACKAGES[name])
    except ImportError as error:
        raise ValueError(
            f"tracker={name}: needs the package {PACKAGES[name]}: pip install 'fedgen_jax[{name}]'"
        ) from error


def _tensorboard(c, workdir) -> Tracker:
    """Event files in `workdir`/tensorboard, written anew from the lines that are there."""
    folder = workdir / 'tensorboard'
    for file in folder.glob('events.out.tfevents.*'):
        file.unlink()
    # A TensorBoard that looks on forgets what it has read of the files before.
    writer = _package('tensorboard').SummaryWriter(str(folder), purge_step=0)

    def write(round_, scalars):
        for name, value in scalars.items():
            writer.add_scalar(name, value, round_)
        writer.flush()

    for line in _lines(workdir):
        write(line['round'], scalars_of(line))
    return Tracker(write, write, lambda failed: writer.close())


def _wandb(c, workdir) -> Tracker:
    """One run there for a run here, by an id of its own; wandb.json keeps how far it was told.

    Only numbers and fields leave: no output of the terminal, no code, nothing of this machine.
    """
    wandb, file = _package('wandb'), workdir / 'wandb.json'
    fresh = {'id': secrets.token_hex(8), 'round': 0}
    known = read_json(file) if file.exists() else fresh
    try:
        run = wandb.init(
            project='fedgen_jax', name=name_of(c), id=known['id'], resume='allow', dir=str(workdir),
            config=settings_of(c), settings=wandb.Settings(**QUIET),
        )
    except wandb.Error as error:
        raise ValueError(
            f'tracker=wandb: {error}: call `wandb login`, or set WANDB_MODE=offline'
        ) from error
    write_json(file, known)
    offline = f'offline, in {workdir}/wandb; `wandb sync` sends it'
    say(f'wandb: {offline if run.offline else run.url}')

    def write(round_, scalars):
        if round_ > known['round']:  # else it was told before the run was cut
            run.log(scalars, step=round_)
            known['round'] = round_
            write_json(file, known)

    for line in _lines(workdir):
        write(line['round'], scalars_of(line))
    return Tracker(
        write, lambda rounds, scalars: run.summary.update(scalars),
        lambda failed: run.finish(exit_code=int(failed)),
    )


TRACKERS = {'tensorboard': _tensorboard, 'wandb': _wandb}
