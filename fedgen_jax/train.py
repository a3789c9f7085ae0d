"""One run: data in, rounds, checkpoints, scores out."""

import contextlib
import functools
import json
import pathlib
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from fedgen_jax import checkpoint, guard, trackers
from fedgen_jax.algorithms.base import State
from fedgen_jax.budget import check_secrets
from fedgen_jax.config import complete
from fedgen_jax.data.examples import SPLITS
from fedgen_jax.data.targets import target_of
from fedgen_jax.engine.cost import cost_of, line_of
from fedgen_jax.engine.processes import any_of, from_first, is_first
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.evaluate import score_seen
from fedgen_jax.federation import other_data, other_names
from fedgen_jax.feed import all_steps, cohort_steps
from fedgen_jax.files import alone_in, append_line, expand, read_json, write_json, write_text
from fedgen_jax.interrupt import Failed, Stopped
from fedgen_jax.kept import save_models
from fedgen_jax.own import own_models
from fedgen_jax.parties import parties_of
from fedgen_jax.program import seen_size
from fedgen_jax.public import public_config
from fedgen_jax.run import (
    Run,
    after_training,
    client_ids,
    is_discreet,
    on_devices,
    own_states,
    place_of,
    prepare,
    read_federation,
    told_of,
    write_reference,
)
from fedgen_jax.settings import refusal, settings_of
from fedgen_jax.start import hold_content
from fedgen_jax.statistics import check_unchanged, save_statistics
from fedgen_jax.step_features import step_features
from fedgen_jax.summary import summarize, title_of
from fedgen_jax.terminal import Display, display


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    progress: bool = True,
    stop: threading.Event | None = None,
    title: str = '',
) -> dict:
    """Trains, or goes on where the last checkpoint ends; returns and writes `summary.json`.

    A run whose `client.schedule` is constant may be called again with more rounds.

    Once `stop` is set it saves and raises Stopped.

    Raises ValueError where the workdir's run has another configuration or other data, or where no
    seen center has an image that could be scored; Failed, a ValueError too, where more than the
    share `max_left_out` of a round's clients had numbers that are not finite, or nothing was
    scored; MayPass where a checkpoint cannot be saved, or another process is at work in `workdir`.

    Also writes `config.json`, `federation.json`, `metrics.jsonl` (a line an evaluation),
    `checkpoints/`, `models/` (`kept`) and, for a learned descriptor, `statistics/` (see there).

    Args:
      progress: whether to tell what a round costs, and how far it is.
      title: names the run where several follow each other; then the second is told alone.
    """
    workdir, stop = expand(workdir), stop or threading.Event()
    if not workdir.is_dir():  # nobody can be at work in it, and a mistake leaves no folder
        run = prepare_to_train(config)
        if is_first():
            workdir.mkdir(parents=True, exist_ok=True)
        with alone_in(workdir):
            check_same_run(config, workdir)
            return _train(run, workdir, progress, stop, title)
    with alone_in(workdir):
        check_same_run(config, workdir)
        return _train(prepare_to_train(config), workdir, progress, stop, title)


def _train(run: Run, workdir, progress, stop, title):
    federation = told_of(run.config, run.classes, run.seen, run.unseen)
    check_same_data(run, federation, workdir)
    if run.config.privacy.unit:
        check_secrets(run.config, workdir, [center.name for center in run.seen])
        sigma = guard.noise_of(run)  # before hours of a public start
        public = _public_start(run, workdir, progress, stop)
        run = guard.protect(run, workdir, public, sigma)
    run = run._replace(parties=parties_of(run, workdir))
    with contextlib.ExitStack() as stack:
        name = title or run.config.method or title_of(run)
        shown = stack.enter_context(display(name, bool(progress or title) and is_first()))
        with checkpoint.manager(workdir) as checkpoints:
            first, state, private_C = begun(run, checkpoints)
            if run.guard:
                run = guard.checked(run, workdir, first)
            if first < run.config.rounds:
                check_unchanged(workdir, [center.name for center in run.seen])
            hold_content(run.config, workdir)
            write_json(workdir / 'config.json', run.config.to_dict())
            write_json(workdir / 'federation.json', federation)
            write_reference(workdir, run)
            keep_lines(workdir / 'metrics.jsonl', first, run.config)
            if first < run.config.rounds and is_first():
                (workdir / 'summary.json').unlink(missing_ok=True)  # of a shorter run
            track = stack.enter_context(trackers.tracking(run.config, workdir))
            state, private_C, timing = train_rounds(
                run, state, private_C, first, checkpoints, workdir, progress, shown, track, stop
            )
        done, choose = after_training(run, state, private_C), run.config.finetune.choose
        if choose:
            shown.scoring("the seen centers' own models, made first")
        models = own_models(done, choose)
        timing |= _known_timing(workdir, timing)
        summary = summarize(run, state, private_C, timing, models, shown.scoring)
        if not is_discreet(run.config):  # of a private run lie there those that were released
            save_statistics(workdir, done)
        save_models(workdir, run, done, models, summary.get('own', {}).get('chosen', {}))
        write_json(workdir / 'summary.json', summary)
        track(summary)
    if not summary['seen']['mean']:
        raise Failed(
            f'{workdir}: trained, but no score: the task found nothing to score in the '
            f'{run.config.score_on} images of the seen centers: look at their targets'
        )
    return summary


def begun(run: Run, checkpoints: ocp.CheckpointManager) -> tuple[int, State, Any]:
    """(rounds done, state, private states) that a run begins with, or goes on from."""
    id_C = client_ids(len(run.seen), run.program)
    state, private_C = init_run(
        run.program.algorithm, run.program.mesh, run.key, id_C, run.program.protection
    )
    if run.guard:
        state, private_C = guard.begun(run, state, run.guard.start)
    elif run.config.start.generator:
        named = guard.start_of(expand(run.config.start.weights))
        state, private_C = guard.begun(run, state, named)
    like = state, own_states(private_C, len(run.seen))
    first, (state, own_C) = checkpoint.restore(checkpoints, like)
    state = guard.armed(run, state)
    if run.mix:
        private_C = jax.tree.map(np.array, own_C)  # Orbax's and JAX's are read-only
    else:
        private_C = on_devices(own_C, private_C, run.program)
    return first, state, private_C


def _known_timing(workdir: pathlib.Path, timing: dict) -> dict:
    """What an earlier summary tells of the rounds, where none was trained now."""
    file = workdir / 'summary.json'
    if timing['round_seconds'] is not None or not file.exists():
        return {}
    cost = read_json(file)['cost']
    return {k: cost[k] for k in ('round_seconds', 'compile_seconds')}


def _public_start(run: Run, workdir, progress, stop) -> pathlib.Path | None:
    """The folder of the public run that a private one starts from, trained if need be."""
    c = run.config
    if c.start.weights:
        named = expand(c.start.weights)
        return named if named.is_dir() else None
    if not c.privacy.public:
        return None
    config, folder = public_config(c), workdir / 'public'
    config.privacy.discreet = True
    check_same_run(config, folder)
    if not (folder / 'summary.json').exists():
        drawn = prepare_to_train(config)
        folder.mkdir(exist_ok=True)
        _train(drawn, folder, progress, stop, 'public start')
    return folder


def prepare_to_train(config: ConfigDict) -> Run:
    """As `prepare`; raises ValueError where nothing could be scored afterwards, or tracked."""
    trackers.chosen(config)
    if config.start.generator and not expand(config.start.weights or '-').is_dir():
        named = config.start.weights
        raise ValueError(f"start.generator: is that of a run's folder, no start.weights={named!r}")
    run = prepare(config)
    split, target = config.score_on, run.program.task.target
    scored, known = SPLITS.index(split), target_of(target).known
    if not any(np.any(known(c.examples.target) & (c.split == scored)) for c in run.seen):
        raise ValueError(
            f'{place_of(run)}: no seen center has an image of the {split} split whose {target} is '
            f'known, so nothing could be scored: write {split} in some rows, fill in the column '
            f'{target}, or check that the column patient does not name all images alike'
        )
    guard.check(run)
    return run


def check_same_run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raises ValueError where `workdir` holds a run of another configuration."""
    file = workdir / 'config.json'
    if file.exists():
        made = settings_of(complete(read_json(file)))
        now = settings_of(config)
        if found := refusal(made, now, defaults=now):
            raise ValueError(
                f'{workdir}: holds a run of another configuration ({found}): '
                'delete it or name a new workdir'
            )


def check_same_data(run: Run, now: dict, workdir: pathlib.Path) -> None:
    """Raises ValueError where `workdir` holds a run that was made on other data."""
    if (workdir / 'federation.json').exists():
        was = read_federation(workdir)
        if found := other_names(was, now) or other_data(was, now):
            raise ValueError(
                f'{place_of(run)}: {found} ({workdir}): pass the folder that it was trained on, '
                'delete the run, or name a new workdir'
            )


def train_rounds(
    run: Run,
    state: State,
    private_C: Any,
    first: int,
    checkpoints: ocp.CheckpointManager,
    workdir: pathlib.Path,
    progress: bool,
    shown: Display,
    track: Callable[[dict], None],
    stop: threading.Event,
) -> tuple[State, Any, dict]:
    """Rounds first .. config.rounds - 1, evaluated and saved at their intervals.

    Returns the last state and private states, and {'round_seconds', 'compile_seconds'}, with sums
    under masks 'secure' too: what each of them cost.
    """
    c, score = run.config, functools.partial(score_rounds, run, workdir=workdir, shown=shown)
    if first == c.rounds:
        return state, private_C, {'round_seconds': None, 'compile_seconds': 0.0}
    if any_of(stop.is_set()):
        raise Stopped(f'{workdir}: stopped at round {first}: run again to go on')
    started = time.monotonic()
    advance, compile_seconds = compile_rounds(
        run, state, private_C, first, workdir, progress, shown
    )
    round_seconds, left_out, length, kept = [], 0, 1, step_features(run) is not None
    secure: list[dict] = []
    shown.begin(first, c.rounds)
    while first < c.rounds:
        last = next_stop(first, length, c)
        if run.guard:
            guard.pay(run.guard, first, last)
        sent = time.monotonic()
        state, private_C, metrics = advance(state, private_C, first, last)
        loss = float(metrics['loss']) if 'loss' in metrics else None
        checkpoint.seal_if_done(checkpoints)
        left_out += int(metrics['left_out'])
        secure += metrics.get('secure', [])
        check_metrics(metrics, c.max_left_out, first, last, workdir)
        round_seconds.append((time.monotonic() - sent) / (last - first))
        if not (run.mix or kept):
            length = from_first(max(1, int(_DISPATCH / round_seconds[-1])))
        first = last
        shown.advance(first, loss)
        if first % c.eval_every == 0 or first == c.rounds:
            seen = score(state, private_C)
            seconds = round(time.monotonic() - started, 2)
            line = {
                'round': first, 'seconds': seconds, 'loss': loss, 'left_out': left_out, 'seen': seen
            }
            left_out = 0
            append_line(workdir / 'metrics.jsonl', json.dumps(line))
            track(line)
            shown.scored(first, c.rounds, line)
        told = any_of(stop.is_set())  # all processes stop at one round
        if first % c.checkpoint_every == 0 or first == c.rounds or told:
            own_C = own_states(private_C, len(run.seen))
            checkpoint.save(checkpoints, first, (guard.disarmed(run, state), own_C))
        if told and first < c.rounds:
            shown.end()
            checkpoint.finish(checkpoints)
            raise Stopped(f'{workdir}: stopped and saved at round {first}: run again to go on')
    shown.end()
    timing = {
        'round_seconds': None if kept else statistics.median(round_seconds),  # less than a round's
        'compile_seconds': compile_seconds,
        **({'secure': secure} if secure else {}),
    }
    return state, private_C, timing


def compile_rounds(run: Run, state, private_C, first, workdir, progress, shown: Display):
    """(advance, seconds) of `feed`'s steps, told as it begins and with what a round costs."""
    c, known = run.config, _compiled(workdir)
    started, told = time.monotonic(), []

    def telling():
        shown.compiling('the rounds', known.get('seconds'))
        told.append(True)

    steps = cohort_steps if run.mix else all_steps
    advance, rounds = steps(run, state, private_C, first, telling)
    seconds = time.monotonic() - started
    if told:
        write_json(workdir / COMPILED, {**known, 'seconds': seconds})
    if progress and is_first():
        all_seen = len(client_ids(len(run.seen), run.program))
        num_clients = run.mix.size if run.mix else all_seen
        print(line_of(cost_of(rounds, num_clients, run.program.mesh, c, seen_size(c))), flush=True)
    return advance, seconds


def score_rounds(run: Run, state, private_C, workdir: pathlib.Path, shown: Display) -> dict:
    """Scores of the seen centers' validation images; a program's first ones compile, which is told.
    """
    known, started = _compiled(workdir), time.monotonic()
    first = _unscored(run.program.rounds)  # type: ignore[arg-type]  # hashable both
    if first:
        shown.compiling('the scores', known.get('scores'))
    seen = score_seen(after_training(run, state, private_C), 'val')
    if first:
        first.clear()
        write_json(workdir / COMPILED, {**known, 'scores': time.monotonic() - started})
    return seen


COMPILED = 'compiled.json'  # seconds that compiling took last time


def _compiled(workdir: pathlib.Path) -> dict[str, float]:
    file = workdir / COMPILED
    return read_json(file) if file.exists() else {}


@functools.lru_cache(maxsize=4)  # as many as there are programs
def _unscored(rounds: Any) -> list[bool]:
    """[True] until it is cleared: of a program that has not scored in this process."""
    del rounds
    return [True]


def check_metrics(metrics: dict, limit: float, first: int, last: int, workdir) -> None:
    """Raises Failed where too many clients of a round could not be summed, or the sum is none."""
    share = float(metrics['left_out_share'])
    if share > limit:
        raise Failed(
            f'{workdir}: in rounds {first} to {last - 1}, {share:.0%} of the clients had NaN or '
            f'infinite numbers (max_left_out={limit}): lower client.lr, or look at their images'
        )
    if not metrics['finite']:
        raise Failed(
            f'{workdir}: the server has NaN or infinite weights after rounds {first} to '
            f'{last - 1}: lower server.lr or client.lr; the checkpoint before stands'
        )


_DISPATCH = 2.0  # seconds of a dispatch, about: how often the bar moves and SIGTERM is seen


def next_stop(first: int, length: int, c: ConfigDict) -> int:
    """The round at which a dispatch that begins at `first` ends, at most `length` later."""
    ends = ((first // n + 1) * n for n in (c.eval_every, c.checkpoint_every))
    return min(first + length, c.rounds, *ends)


def keep_lines(path: pathlib.Path, last: int, c: ConfigDict) -> None:
    """Drops the lines that an uninterrupted run would not have at the round `last`, and a cut one.

    They are those of later rounds, and the last one of a run that had fewer rounds.
    """

    def is_kept(line):
        round_ = _round_of(line)
        return 0 < round_ <= last and (round_ % c.eval_every == 0 or round_ == c.rounds)

    if path.exists():
        lines = [x for x in path.read_text().splitlines() if is_kept(x)]
        write_text(path, ''.join(x + '\n' for x in lines))


def _round_of(line):
    try:
        return json.loads(line)['round']
    except ValueError:  # the process was killed while it wrote
        return 0
