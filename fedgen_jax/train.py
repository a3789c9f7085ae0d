"""One run: data in, rounds, checkpoints, scores out."""

import json
import pathlib
import statistics
import threading
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fedgen_jax import checkpoint
from fedgen_jax.engine.cost import cost_of, line_of
from fedgen_jax.engine.processes import any_of, is_first, to_host
from fedgen_jax.engine.rounds import cohort, init_run, shard_clients
from fedgen_jax.evaluate import score_seen
from fedgen_jax.interrupt import Stopped
from fedgen_jax.program import Program
from fedgen_jax.run import (
    Run,
    differences,
    on_devices,
    own_states,
    prepare,
    settings_of,
    trained,
    training_data,
    write_json,
)
from fedgen_jax.summary import save_statistics, summarize


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> dict:
    """Trains, or goes on where the last checkpoint ends; returns and writes `summary.json`.

    Once `stop` is set it saves and raises Stopped.

    Raises ValueError where the workdir's run has another configuration, or where more than the
    share `max_left_out` of a round's clients had numbers that are not finite; OSError where a
    checkpoint cannot be saved.

    Also writes `config.json`, `metrics.jsonl` (a line an evaluation), `checkpoints/` and, for a
    learned descriptor, `statistics/` (each center's own, and `pooled.json`, the server's).
    """
    workdir, stop = pathlib.Path(workdir), stop or threading.Event()
    check_same_run(config, workdir)
    run = prepare(config)
    data_C, id_C = training_data(run)
    state, private_C = init_run(run.program.algorithm, run.program.mesh, run.key, id_C)
    with checkpoint.manager(workdir) as checkpoints:
        like = state, own_states(private_C, len(run.seen))
        first, (state, own_C) = checkpoint.restore(checkpoints, like)
        private_C = on_devices(own_C, private_C, run.program)
        write_json(workdir / 'config.json', config.to_dict())
        names = {'seen': [c.name for c in run.seen], 'unseen': [c.name for c in run.unseen]}
        write_json(workdir / 'federation.json', {'classes': run.classes, **names})
        keep_lines(workdir / 'metrics.jsonl', first)
        state, private_C, timing = train_rounds(
            run, state, private_C, data_C, id_C, first, checkpoints, workdir, progress, stop
        )
    summary = summarize(run, state, private_C, timing)
    save_statistics(workdir, trained(run, state, private_C))
    write_json(workdir / 'summary.json', summary)
    return summary


def check_same_run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raises ValueError where `workdir` holds a run of another configuration."""
    file = workdir / 'config.json'
    if file.exists():
        made = settings_of(ConfigDict(json.loads(file.read_text())))
        now = settings_of(config)
        found = differences(made, now, defaults=now)
        if found:
            raise ValueError(
                f'{workdir}: holds a run of another configuration ({found[0]}): '
                'delete it or name a new workdir'
            )


def train_rounds(
    run, state, private_C, data_C, id_C, first, checkpoints, workdir, progress, stop
):
    """Rounds first .. config.rounds - 1, evaluated and saved at their intervals."""
    c = run.config
    started = time.monotonic()
    program, compile_seconds = warm_up(run, state, private_C, data_C, id_C)
    if progress and is_first():
        print(line_of(cost_of(program, c.cohort or len(id_C), run.program.mesh, c)))
    round_seconds, left_out = [], 0
    bar = tqdm(
        total=c.rounds, initial=first, unit='round', desc=c.algorithm,
        disable=not (progress and is_first()),
    )
    while first < c.rounds:
        last = min(next_stop(first, c), c.rounds)
        begun = time.monotonic()
        state, private_C, metrics = advance(run, state, private_C, data_C, id_C, first, last)
        loss = float(metrics['loss'])
        checkpoint.seal_if_done(checkpoints)
        left_out += int(metrics['left_out'])
        check_left_out(float(metrics['left_out_share']), c.max_left_out, first, last, workdir)
        if not metrics['finite']:
            raise ValueError(
                f'{workdir}: the server has NaN or infinite weights after rounds {first} to '
                f'{last - 1}: lower server.lr or client.lr; the checkpoint before stands'
            )
        round_seconds.append((time.monotonic() - begun) / (last - first))
        bar.update(last - first)
        bar.set_postfix(loss=f'{loss:.3f}')
        first = last
        if first % c.eval_every == 0 or first == c.rounds:
            seen = score_seen(trained(run, state, private_C), 'val')
            seconds = round(time.monotonic() - started, 2)
            line = {
                'round': first, 'seconds': seconds, 'loss': loss, 'left_out': left_out, 'seen': seen
            }  # fmt: skip
            left_out = 0
            if is_first():
                with open(workdir / 'metrics.jsonl', 'a') as file:
                    file.write(json.dumps(line) + '\n')
        told = any_of(stop.is_set())  # all processes stop at one round
        if first % c.checkpoint_every == 0 or first == c.rounds or told:
            own_C = own_states(private_C, len(run.seen))
            checkpoint.save(checkpoints, first, (state, own_C))
        if told and first < c.rounds:
            bar.close()
            checkpoint.finish(checkpoints)
            raise Stopped(f'{workdir}: stopped and saved at round {first}: run again to go on')
    bar.close()
    timing = {
        'round_seconds': statistics.median(round_seconds) if round_seconds else None,
        'compile_seconds': compile_seconds,
    }
    return state, private_C, timing


def check_left_out(share: float, limit: float, first: int, last: int, workdir) -> None:
    """Raises ValueError where too many clients of a round could not be summed."""
    if share > limit:
        raise ValueError(
            f'{workdir}: in rounds {first} to {last - 1}, {share:.0%} of the clients had NaN or '
            f'infinite numbers (max_left_out={limit}): lower client.lr, or look at their images'
        )


_DISPATCH = 5  # rounds at most in one dispatch: how often the progress bar moves


def next_stop(first: int, c: ConfigDict) -> int:
    """The round at which a dispatch that begins at `first` ends."""
    steps = (1 if c.cohort else _DISPATCH, c.eval_every, c.checkpoint_every)
    return min((first // n + 1) * n for n in steps)


def advance(run: Run, state, private_C, data_C, id_C, first: int, last: int):
    """Rounds first .. last - 1, by all clients or, one round at a time, by each round's cohort."""
    bounds = np.int32(first), np.int32(last)
    if not run.config.cohort:
        args = (state, private_C, data_C, id_C, run.key)
        return compiled(run.program, args)(*args, *bounds)
    if last != first + 1:
        raise ValueError('rounds with a cohort are dispatched one at a time')
    chosen = cohort(run.key, first, len(run.seen), run.config.cohort)
    mesh = run.program.mesh
    clients = jax.tree.map(lambda x: x[chosen], to_host((private_C, data_C, id_C)))
    args = (state, *shard_clients(clients, mesh), run.key)
    state, private_K, metrics = compiled(run.program, args)(*args, *bounds)
    private_C = jax.tree.map(
        lambda x, new: _put(x, chosen, new), to_host(private_C), to_host(private_K)
    )
    return state, private_C, metrics


def _put(x_C, chosen, new_K):
    x_C = np.array(x_C)
    x_C[chosen] = new_K
    return x_C


def warm_up(run: Run, state, private_C, data_C, id_C) -> tuple[Any, float]:
    """The compiled rounds, an earlier run's if this process had one; the seconds it took."""
    started = time.monotonic()
    args = (private_C, data_C, id_C)
    if run.config.cohort:
        some = jax.tree.map(lambda x: x[: run.config.cohort], to_host(args))
        args = shard_clients(some, run.program.mesh)
    program = compiled(run.program, (state, *args, run.key))
    return program, time.monotonic() - started


_COMPILED = {}


def compiled(program: Program, args) -> Any:
    """The rounds function compiled ahead of time, once for each program and shapes."""
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(args))
    found = (program.rounds, shapes)
    if found not in _COMPILED:
        _COMPILED[found] = program.rounds.lower(*args, np.int32(0), np.int32(1)).compile()
    return _COMPILED[found]


def keep_lines(path: pathlib.Path, last: int) -> None:
    """Drops the lines of rounds after the checkpoint that a run goes on from, and a cut one."""
    if is_first() and path.exists():
        lines = [x for x in path.read_text().splitlines() if 0 < _round_of(x) <= last]
        partial = path.with_suffix('.partial')
        partial.write_text(''.join(x + '\n' for x in lines))
        partial.rename(path)


def _round_of(line):
    try:
        return json.loads(line)['round']
    except ValueError:  # the process was killed while it wrote
        return 0
