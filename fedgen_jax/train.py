"""One run: data in, rounds, checkpoints, scores out."""

import json
import pathlib
import statistics
import threading
import time

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fedgen_jax import checkpoint
from fedgen_jax.config import complete
from fedgen_jax.engine.cost import cost_of, line_of
from fedgen_jax.engine.processes import any_of, from_first, is_first
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.evaluate import score_seen
from fedgen_jax.feed import all_steps, cohort_steps
from fedgen_jax.interrupt import Stopped
from fedgen_jax.run import (
    client_ids,
    differences,
    on_devices,
    own_states,
    prepare,
    settings_of,
    trained,
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
    share `max_left_out` of a round's clients had numbers that are not finite; MayPass where a
    checkpoint cannot be saved.

    Also writes `config.json`, `metrics.jsonl` (a line an evaluation), `checkpoints/` and, for a
    learned descriptor, `statistics/` (each center's own, and `pooled.json`, the server's).
    """
    workdir, stop = pathlib.Path(workdir), stop or threading.Event()
    check_same_run(config, workdir)
    run = prepare(config)
    id_C = client_ids(len(run.seen), run.program)
    state, private_C = init_run(
        run.program.algorithm, run.program.mesh, run.key, id_C, run.program.protection
    )
    with checkpoint.manager(workdir) as checkpoints:
        like = state, own_states(private_C, len(run.seen))
        first, (state, own_C) = checkpoint.restore(checkpoints, like)
        if config.cohort:
            private_C = jax.tree.map(np.array, own_C)  # Orbax's and JAX's are read-only
        else:
            private_C = on_devices(own_C, private_C, run.program)
        write_json(workdir / 'config.json', config.to_dict())
        names = {'seen': [c.name for c in run.seen], 'unseen': [c.name for c in run.unseen]}
        write_json(workdir / 'federation.json', {'classes': run.classes, **names})
        keep_lines(workdir / 'metrics.jsonl', first)
        state, private_C, timing = train_rounds(
            run, state, private_C, first, checkpoints, workdir, progress, stop
        )
    summary = summarize(run, state, private_C, timing)
    save_statistics(workdir, trained(run, state, private_C))
    write_json(workdir / 'summary.json', summary)
    return summary


def check_same_run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raises ValueError where `workdir` holds a run of another configuration."""
    file = workdir / 'config.json'
    if file.exists():
        made = settings_of(complete(json.loads(file.read_text())))
        now = settings_of(config)
        found = differences(made, now, defaults=now)
        if found:
            raise ValueError(
                f'{workdir}: holds a run of another configuration ({found[0]}): '
                'delete it or name a new workdir'
            )


def train_rounds(run, state, private_C, first, checkpoints, workdir, progress, stop):
    """Rounds first .. config.rounds - 1, evaluated and saved at their intervals."""
    c = run.config
    if first == c.rounds:
        return state, private_C, {'round_seconds': None, 'compile_seconds': 0.0}
    started = time.monotonic()
    advance, rounds = (cohort_steps if c.cohort else all_steps)(run, state, private_C, first)
    compile_seconds = time.monotonic() - started
    if progress and is_first():
        num_clients = c.cohort or len(client_ids(len(run.seen), run.program))
        print(line_of(cost_of(rounds, num_clients, run.program.mesh, c)))
    round_seconds, left_out, length = [], 0, 1
    bar = tqdm(
        total=c.rounds, initial=first, unit='round', desc=c.algorithm,
        disable=not (progress and is_first()),
    )
    while first < c.rounds:
        last = next_stop(first, length, c)
        begun = time.monotonic()
        state, private_C, metrics = advance(state, private_C, first, last)
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
        if not c.cohort:
            length = from_first(max(1, int(_DISPATCH / round_seconds[-1])))
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
        'round_seconds': statistics.median(round_seconds),
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


_DISPATCH = 2.0  # seconds of a dispatch, about: how often the bar moves and SIGTERM is seen


def next_stop(first: int, length: int, c: ConfigDict) -> int:
    """The round at which a dispatch that begins at `first` ends, at most `length` later."""
    ends = ((first // n + 1) * n for n in (c.eval_every, c.checkpoint_every))
    return min(first + length, c.rounds, *ends)


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
