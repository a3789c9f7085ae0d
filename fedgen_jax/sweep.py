"""Many runs in one process."""

import json
import pathlib
import re
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict
from tqdm import tqdm

from fedgen_jax.engine.processes import any_of, is_first
from fedgen_jax.interrupt import Stopped
from fedgen_jax.run import differences, settings_of
from fedgen_jax.train import train


def grid(methods: dict[str, dict], centers: Sequence[str], seeds: Sequence[int]) -> list[dict]:
    """Overrides of every method, held-out center and seed; runs of one program stand together."""
    return [
        {'method': name, 'data.held_out': center, 'seed': seed, **overrides}
        for name, overrides in methods.items()
        for center in centers
        for seed in seeds
    ]


def ring(centers: Sequence[str]) -> list[str]:
    """Pairs to hold out together for development; each center stands in two of them."""
    return [f'{a},{b}' for a, b in zip(centers, [*centers[1:], centers[0]])]


def inner(methods: dict[str, dict], centers: Sequence[str]) -> list[dict]:
    """Development: each pair of the ring held out, scored on validation images alone; one seed."""
    on_val = {name: {'score_on': 'val', **overrides} for name, overrides in methods.items()}
    return grid(on_val, ring(centers), (0,))


def part_of(runs: list, part: str) -> list:
    """Every n-th of the runs, from the i-th on, for a part 'i/n'."""
    match = re.fullmatch(r'(\d+)/(\d+)', part)
    i, n = (int(x) for x in match.groups()) if match else (0, 0)
    if not 1 <= i <= n:
        raise ValueError(f'--part={part}: i/n with i from 1 to n')
    return runs[i - 1 :: n]


class Waiting(NamedTuple):
    """A run of a sweep that is not finished yet."""

    overrides: dict
    config: ConfigDict
    workdir: pathlib.Path


def unfinished(
    config: ConfigDict, runs: Iterable[dict], workdir: str | pathlib.Path, defaults: ConfigDict
) -> list[Waiting]:
    """The runs that have no summary yet; a run lives in `workdir`/METHOD/HELD_OUT/SEED.

    defaults: of every field that a configuration has, for runs that were made when it had fewer.

    Raises ValueError where a finished run was made by another configuration.
    """
    waiting = []
    for overrides in runs:
        c = config.copy_and_resolve_references()
        c.update_from_flattened_dict(overrides)
        folder = pathlib.Path(workdir) / folder_name(c.method)
        folder = folder / folder_name(c.data.held_out or 'none') / str(c.seed)
        if not _finished(c, folder / 'summary.json', defaults):
            waiting.append(Waiting(overrides, c, folder))
    return waiting


def run_sweep(waiting: Sequence[Waiting], stop: threading.Event | None = None) -> None:
    """Trains them, one after another; `stop` as in `train`.

    Raises ValueError at the end, where some failed: the others are finished.
    """
    failed = []
    for run in tqdm(waiting, desc='runs', unit='run', disable=not is_first()):
        if any_of(stop is not None and stop.is_set()):
            raise Stopped('stopped between two runs: run again to go on')
        try:
            train(run.config, run.workdir, progress=False, stop=stop)
        except ValueError as error:
            failed.append(f'{run.workdir}: {error}')
    if failed:
        raise ValueError(f'{len(failed)} of {len(waiting)} runs failed; the first: {failed[0]}')


def _finished(config, file, defaults):
    if not file.exists():
        return False
    made = json.loads(file.read_text())['config']
    found = differences(made, settings_of(config), settings_of(defaults))
    if found:
        raise ValueError(
            f'{file}: made by another configuration ({found[0]}): delete it or name a new workdir'
        )
    return True


def folder_name(text: str) -> str:
    """A method's or centers' name without what a path had better not hold."""
    return '_'.join(text.replace('+', 'and').replace(',', ' ').split())
