"""The rounds of a deployed federation: the server asks centers, sums what they send, and steps.

Its folder is as that of `launch.train`, without `summary.json`: `config.json`, `federation.json`,
`reference.json`, `metrics.jsonl`, `statistics/`, `checkpoints/`, so that `launch.onboard` works on
it.  Of a method whose clients keep private states the checkpoints lie in `server/`, for they hold
none of these.

    deployed.json   {'run': its name at the centers, 'rounds': how many,
                     'round_seconds': the median of this process's rounds,
                     'bytes_up', 'bytes_down': of a center in a round, the most,
                     'score_on', 'seen': scores as in `summary.json`; null where none were told}
"""

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.algorithms.base import State
from fedgen_jax.data.check import say
from fedgen_jax.deploy import Net
from fedgen_jax.deploy.collect import together, usable
from fedgen_jax.deploy.deployment import (
    FILE,
    Deployed,
    ask_centers,
    deployed,
    descriptor_of,
    request,
    scores_in,
    statistic_in,
)
from fedgen_jax.deploy.meeting import Found, greet, meet
from fedgen_jax.deploy.terms import check_deployable, terms_of
from fedgen_jax.deploy.wire import tree_to_bytes
from fedgen_jax.engine.rounds import all_finite, init_run, round_of_server
from fedgen_jax.evaluate import block
from fedgen_jax.files import alone_in, append_line, expand, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.interrupt import Failed
from fedgen_jax.privacy import Message
from fedgen_jax.run import Trained
from fedgen_jax.statistics import Statistics, write_statistics
from fedgen_jax.train import check_metrics, check_same_run, keep_lines


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    names: Sequence[str],
    net: Net,
    wait: float = 600.0,
) -> dict:
    """Trains between the named centers, or goes on where the last checkpoint ends.

    Returns and writes `deployed.json`.

    Args:
      config: the settings, which all centers have too.
      names: of all centers that train.
      wait: seconds for which the server waits until all of them are connected.

    Raises ValueError where the settings cannot be deployed, or `workdir` holds another run; Failed,
    a ValueError too, where more than the share `max_left_out` of a round's centers gave nothing
    usable, after the rounds before are saved; MayPass where a center does not come.
    """
    check_deployable(config)
    workdir, config.devices = expand(workdir), 1
    workdir.mkdir(parents=True, exist_ok=True)
    with alone_in(workdir):
        check_same_run(config, workdir)
        terms = json.dumps(terms_of(config))
        found = meet(net, terms, names, wait)
        return _train(deployed(config, workdir, names, net, terms, found), workdir, found)


def _train(done: Deployed, workdir: pathlib.Path, found: Found) -> dict:
    c, program, clients = done.run.config, done.run.program, len(done.names)
    id_C = np.arange(clients, dtype=np.int32)
    state, private_C = init_run(
        program.algorithm, program.mesh, done.run.key, id_C, program.protection
    )
    keeps = program.algorithm.keeps
    counted_C = np.full(clients, NEVER, np.int32)
    kept = counted_C if keeps else jax.device_get(private_C)
    with checkpoint.manager(workdir / 'server' if keeps else workdir) as checkpoints:
        first, (state, kept) = checkpoint.restore(checkpoints, (state, kept))
        if keeps:
            counted_C = np.array(kept)
        keep_lines(workdir / 'metrics.jsonl', first, c)

        def save(round_, state, counted_C):
            checkpoint.save(checkpoints, round_, (state, counted_C.copy() if keeps else kept))

        state, found, told = _rounds(done, workdir, found, state, counted_C, first, save)
    return _finish(done, workdir, found, state, counted_C, told)


NEVER = -1  # of a center whose message has not counted yet


def _rounds(
    done: Deployed, workdir, found: Found, state: State, counted_C: np.ndarray, first: int,
    save: Callable,
) -> tuple[State, Found, dict]:
    """Rounds first .. config.rounds - 1.

    counted_C: int32 [C], the rounds that were done when a center's message counted last; changed in
        place.  A center goes on from the private state that it had then.

    Returns the last state, the nodes, and what `deployed.json` tells of these rounds.
    """
    c, step, saved_C = done.run.config, server_half(done), counted_C.copy()
    seconds, up, down, left_out = [], 0, 0, 0
    for r in range(first, c.rounds):
        begun = time.monotonic()
        found = greet(done.net, done.terms, found, done.run.classes)
        requests = of_state(done, 'round', state, counted_C, round=r, saved_C=saved_C)
        replies = ask_centers(done, found, requests)
        messages, why = usable(done.shapes, dict(enumerate(replies.values())))
        for i, reason in why.items():
            say(f'round {r + 1}: {done.names[i]} is left out: {reason}')
        if len(why) > c.max_left_out * len(done.names):
            if r > first:
                save(r, state, counted_C)
            raise Failed(
                f'{workdir}: round {r + 1}: {len(why)} of {len(done.names)} centers gave nothing '
                f'usable (max_left_out={c.max_left_out}): see to them, and run again'
            )
        state, metrics = step(state, messages, r)
        check_metrics(metrics, c.max_left_out, r, r + 1, workdir)
        counted_C[list(messages)] = r + 1
        left_out += len(why)
        seconds.append(time.monotonic() - begun)
        up = max(up, *(len(x.get('message', b'')) for x in replies.values()))
        down = max(down, *map(len, requests.values()))
        loss = float(metrics['loss']) if 'loss' in metrics else None
        print(
            f'round {r + 1} of {c.rounds}: {len(messages)} of {len(done.names)} centers, '
            f'{seconds[-1]:.1f} s' + ('' if loss is None else f', loss {loss:.4f}'), flush=True,
        )
        if (r + 1) % c.eval_every == 0 or r + 1 == c.rounds:
            asked = of_state(done, 'score', state, counted_C, split='val')
            append_line(workdir / 'metrics.jsonl', json.dumps({
                'round': r + 1, 'seconds': round(sum(seconds), 2), 'loss': loss,
                'left_out': left_out, 'seen': scores_of(done, ask_centers(done, found, asked)),
            }))
            left_out = 0
        if (r + 1) % c.checkpoint_every == 0 or r + 1 == c.rounds:
            save(r + 1, state, counted_C)
            saved_C = counted_C.copy()
    timing = {
        'round_seconds': statistics.median(seconds) if seconds else None,
        'bytes_up': up, 'bytes_down': down,
    }
    return state, found, timing


def of_state(
    done: Deployed, action: str, state: State, counted_C: np.ndarray, saved_C=None, **more
) -> dict[str, bytes]:
    """The requests of an action on the server's state, of all centers."""
    sent = tree_to_bytes((state.shared, state.protection))

    def rounds(of_C, i):
        return None if of_C is None or of_C[i] == NEVER else int(of_C[i])

    return {
        name: request(
            done, action, state=sent, number=i, since=rounds(counted_C, i),
            saved=rounds(saved_C, i), **more,
        ) for i, name in enumerate(done.names)
    }


def server_half(done: Deployed) -> Callable[[State, Mapping[int, Message], int], tuple]:
    """(state, {number: message}, round) -> (state, metrics as of `engine.rounds.make_rounds`)."""
    program, clients = done.run.program, len(done.names)
    gathered = done.run.config.robust.rule != 'none' or not program.algorithm.sum_only
    move = jax.jit(round_of_server(program.algorithm, program.protection, gathered))

    def step(state, messages, round_):
        message = together(done.shapes, messages, clients, gathered)
        state, metrics = move(state, message, done.run.key, np.int32(round_))
        left = clients - len(messages)
        return state, {
            **metrics, 'left_out_share': left / clients, 'finite': bool(all_finite(state.shared))
        }

    return step


def scores_of(done: Deployed, replies: Mapping[str, dict]) -> dict | None:
    """{'mean', 'worst', 'centers'} of the scores that centers told; None where none did."""
    run = done.run
    trained = Trained(run.program, None, None, (), (), run.length, run.key)
    return block(trained, scores_in(replies))


def _finish(done: Deployed, workdir, found, state, counted_C, told) -> dict:
    """Each center makes its model; their statistics, and what `deployed.json` holds."""
    c, program = done.run.config, done.run.program
    replies = ask_centers(
        done, found, of_state(done, 'finish', state, counted_C, split=c.score_on)
    )
    if program.describe:
        length, psi = descriptor_of(program, state.shared, c)
        own = {n: statistic_in(replies[n], n, length, psi) for n in done.names}
        write_statistics(workdir, Statistics(own, descriptor.pool(own.values())))
    for name, reply in replies.items():
        if 'error' in reply:
            raise Failed(f'{name}: {reply["error"]}: once it is right, run again to finish')
    before = json.loads((workdir / FILE).read_text())
    if told['round_seconds'] is None:  # no round was left to do
        told = {k: before.get(k) for k in told}
    report = {
        'run': done.token, 'rounds': c.rounds, **told, 'score_on': c.score_on,
        'seen': scores_of(done, replies),
    }
    write_json(workdir / FILE, report)
    return report
