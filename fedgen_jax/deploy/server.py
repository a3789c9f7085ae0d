"""The rounds of a deployed federation: the server asks centers, sums what they send, and steps.

Its folder is as that of `launch.train`: `config.json`, `federation.json`, `reference.json`,
`metrics.jsonl`, `statistics/`, `checkpoints/`, so that `launch.onboard` works on it, and with the
scores that centers told `summary.json`.  Of a method whose clients keep private states the
checkpoints lie in `server/`, for they hold none of these.

    deployed.json   {'run': its name at the centers, 'rounds': how many,
                     'round_seconds': the median of this process's rounds,
                     'bytes_up', 'bytes_down': of a center in a round, the most,
                     'score_on', 'seen': scores as in `summary.json`; null where none were told,
                     'resolution': {center: at which size its masks were scored}}
"""

import json
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.algorithms.base import State
from fedgen_jax.data.check import say
from fedgen_jax.deploy import Net, secured
from fedgen_jax.deploy.collect import together, usable
from fedgen_jax.deploy.deployment import (
    FILE,
    Deployed,
    ask_centers,
    deployed,
    descriptor_of,
    request,
    statistic_in,
    told_in,
)
from fedgen_jax.deploy.meeting import Found, greet, meet
from fedgen_jax.deploy.terms import check_deployable, terms_of
from fedgen_jax.deploy.wire import pack, tree_to_bytes
from fedgen_jax.engine.rounds import all_finite, init_run, round_of_server
from fedgen_jax.engine.sums import told_of
from fedgen_jax.evaluate import block
from fedgen_jax.files import alone_in, append_line, expand, read_json, write_json
from fedgen_jax.interrupt import Failed, Stopped
from fedgen_jax.privacy import Message
from fedgen_jax.run import Trained
from fedgen_jax.statistics import check_unchanged, keep_statistics
from fedgen_jax.summary import framed, parameters_of
from fedgen_jax.trackers import chosen, tracking
from fedgen_jax.train import check_metrics, check_same_run, keep_lines


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    names: Sequence[str],
    net: Net,
    wait: float = 600.0,
    identities: pathlib.Path | None = None,
    stop: threading.Event | None = None,
) -> dict:
    """Trains between the named centers, or goes on where the last checkpoint ends.

    Returns and writes `deployed.json`.  Every round is saved.  Once `stop` is set it raises Stopped
    before the next one.

    Args:
      config: the settings, which all centers have too.
      names: of all centers that train.
      wait: seconds for which the server waits until all of them are connected.
      identities: the file that names the centers' identities, where `secure.on`.

    Raises ValueError where the settings cannot be deployed, or `workdir` holds another run; Failed,
    a ValueError too, where more than the share `max_left_out` of a round's centers gave nothing
    usable; MayPass where a center does not come.
    """
    check_deployable(config)
    chosen(config)
    workdir, config.devices = expand(workdir), 1
    workdir.mkdir(parents=True, exist_ok=True)
    with alone_in(workdir):
        check_same_run(config, workdir)
        listed = secured.read_identities(identities) if config.secure.on else {}
        if listed and list(listed) != sorted(names):
            raise ValueError(f'{identities}: names {", ".join(listed)}, and not those who train')
        terms = json.dumps(terms_of(config))
        found = meet(net, terms, names, wait)
        done = deployed(config, workdir, names, net, terms, found)
        return _train(done._replace(listed=listed), workdir, found, stop or threading.Event())


def _train(
    done: Deployed, workdir: pathlib.Path, found: Found, stop: threading.Event
) -> dict:
    c, program, clients = done.run.config, done.run.program, len(done.names)
    id_C = np.arange(clients, dtype=np.int32)
    state, private_C = init_run(
        program.algorithm, program.mesh, done.run.key, id_C, program.protection
    )
    keeps = program.algorithm.keeps
    counted_C = np.full(clients, NEVER, np.int32)
    kept = counted_C if keeps else jax.device_get(private_C)
    folder = workdir / 'server' if keeps else workdir
    with checkpoint.manager(folder) as checkpoints:
        first, (state, kept) = checkpoint.restore(checkpoints, (state, kept))
        if keeps:
            counted_C = np.array(kept)
        keep_lines(workdir / 'metrics.jsonl', first, c)

        if first < c.rounds:
            check_unchanged(workdir, done.names)
            (workdir / 'summary.json').unlink(missing_ok=True)  # of a shorter run

        def save(round_, state, counted_C):
            checkpoint.save(checkpoints, round_, (state, counted_C.copy() if keeps else kept))
            checkpoint.finish(checkpoints)  # on disk before a center is told so

        with tracking(c, workdir) as track:
            state, found, told = _rounds(
                done, workdir, found, state, counted_C, first, save, track, stop
            )
    return _finish(done, workdir, found, state, counted_C, told)


OF_KEYS = "each center's own key, whose public half the server's file of identities names"
NEVER = -1  # of a center whose message has not counted yet


def _rounds(
    done: Deployed, workdir, found: Found, state: State, counted_C: np.ndarray, first: int,
    save: Callable, track: Callable, stop: threading.Event,
) -> tuple[State, Found, dict]:
    """Rounds first .. config.rounds - 1.

    counted_C: int32 [C], the rounds that were done when a center's message counted last; changed in
        place.  A center goes on from the private state that it had then.

    Returns the last state, the nodes, and what `deployed.json` tells of these rounds.
    """
    c, step = done.run.config, server_half(done)
    saved = [counted_C.copy()] if first else []  # of the checkpoints that may be met again
    seconds, up, down, left_out = [], 0, 0, 0
    for r in range(first, c.rounds):
        begun = time.monotonic()
        if stop.is_set():
            raise Stopped(f'{workdir}: stopped at round {r}: run again to go on')
        found = greet(done.net, done.terms, found, done.run.classes)
        session = secured.new_session()
        requests = of_state(done, 'round', state, counted_C, saved, round=r, session=session)
        heard = hear(done, found, requests, session)
        for i, reason in heard.why.items():
            say(f'round {r + 1}: {done.names[i]} is left out: {reason}')
        _check_enough(done, heard, r)
        state, metrics = step(state, heard.message, r)
        check_metrics({'left_out_share': 0, **metrics}, 1, r, r + 1, workdir)
        counted_C[heard.counted] = r + 1
        left_out += len(done.names) - len(heard.counted)
        seconds.append(time.monotonic() - begun)
        up, down = max(up, heard.up), max(down, *map(len, requests.values()))
        loss = float(metrics['loss']) if 'loss' in metrics else None
        print(
            f'round {r + 1} of {c.rounds}: {len(heard.counted)} of {len(done.names)} centers, '
            f'{seconds[-1]:.1f} s' + ('' if loss is None else f', loss {loss:.4f}'), flush=True,
        )
        if (r + 1) % c.eval_every == 0 or r + 1 == c.rounds:
            asked = of_state(done, 'score', state, counted_C, split='val')
            line = {
                'round': r + 1, 'seconds': round(sum(seconds), 2), 'loss': loss,
                'left_out': left_out, 'seen': scores_of(done, ask_centers(done, found, asked)),
            }
            append_line(workdir / 'metrics.jsonl', json.dumps(line))
            track(line)
            left_out = 0
        # Each round: it takes as long as its slowest center, anything may end it, and under masks
        # a center agrees to one sum of a round.
        save(r + 1, state, counted_C)
        saved = [*saved, counted_C.copy()][-checkpoint.KEPT:]
    timing = {
        'round_seconds': statistics.median(seconds) if seconds else None,
        'bytes_up': up, 'bytes_down': down,
    }
    return state, found, timing


def of_state(
    done: Deployed, action: str, state: State, counted_C: np.ndarray,
    saved: Sequence[np.ndarray] = (), **more,
) -> dict[str, bytes]:
    """The requests of an action on the server's state, of all centers.

    saved: `counted_C` of the checkpoints that this process wrote or read, and that are kept.
    """
    sent = tree_to_bytes((state.shared, state.protection))

    def request_of(i, name):
        since = None if counted_C[i] == NEVER else int(counted_C[i])
        kept = [int(of_C[i]) for of_C in saved if of_C[i] != NEVER]
        return request(
            done, action, name, state=sent, number=i, since=since, saved=kept, **more
        )

    return {name: request_of(i, name) for i, name in enumerate(done.names)}


class Heard(NamedTuple):
    """What came of a round's requests.

    message: the sum of messages, or of a gathered round all of them, leaves [C, ...].
    counted: the numbers of the centers in it.  why: {number of another: why it is left out}.
    up:      bytes of a center's message, the most.
    """

    message: Message
    counted: list[int]
    why: dict[int, str]
    up: int


def hear(
    done: Deployed, found: Found, requests: Mapping[str, bytes], session: bytes
) -> Heard:
    """Asks for a round's messages; under masks, for their sum in a session of its own.

    Raises Failed where no sum can be taken under masks.
    """
    replies = dict(enumerate(ask_centers(done, found, requests).values()))
    if done.listed:
        return _hear_sum(done, found, replies, session)
    messages, why = usable(done.shapes, replies)
    message = together(done.shapes, messages, len(done.names), is_gathered(done))
    sent = (x.get('message') for x in replies.values())
    up = max((len(x) for x in sent if isinstance(x, bytes)), default=0)
    return Heard(message, sorted(messages), why, up)


def _hear_sum(done, found, replies, session) -> Heard:
    why = {i: str(x['error']) for i, x in replies.items() if 'error' in x}
    adverts = {i: x.get('advert') for i, x in replies.items() if i not in why}
    up = dict.fromkeys(replies, 0)

    def ask(step, given):
        requests = {
            done.names[i]: pack({'action': 'sum', 'session': session, 'step': step, 'given': x})
            for i, x in given.items()
        }
        answers = dict(zip(given, ask_centers(done, found, requests).values()))
        why.update({i: str(x['error']) for i, x in answers.items() if 'error' in x})
        for i, x in answers.items():
            up[i] += len(pack(x))
        return {i: x['reply'] for i, x in answers.items() if 'error' not in x}

    secure = done.run.program.secure
    setup = secured.setup_of(secure, done.listed, session)
    adverts, unsigned = secured.signed_adverts(setup, adverts)
    why |= unsigned
    try:
        message, counted = secured.collect(secure, setup, adverts, ask, done.shapes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        told = '; '.join(f'{done.names[i]}: {x}' for i, x in why.items())
        raise Failed(f'{error} ({told})') from error
    return Heard(message, list(counted), why, max(up.values()))


def _check_enough(done: Deployed, heard: Heard, round_: int) -> None:
    """Raises Failed where too many centers are left out of a round."""
    clients, limit = len(done.names), done.run.config.max_left_out
    left = clients - len(heard.counted)
    if left > limit * clients:
        raise Failed(
            f'round {round_ + 1}: {left} of {clients} centers gave nothing usable '
            f'(max_left_out={limit}): see to them, and run again'
        )


def is_gathered(done: Deployed) -> bool:
    """Whether the server works on all messages, and not on their sum."""
    return done.run.config.robust.rule != 'none' or not done.run.program.algorithm.sum_only


def server_half(done: Deployed) -> Callable[[State, Message, int], tuple[State, dict]]:
    """(state, message, round) -> (state, mean metrics, with whether the state is finite)."""
    program = done.run.program
    move = jax.jit(round_of_server(program.algorithm, program.protection, is_gathered(done)))

    def step(state, message, round_):
        state, metrics = move(state, message, done.run.key, np.int32(round_))
        return state, {**metrics, 'finite': bool(all_finite(state.shared))}

    return step


def scores_of(done: Deployed, replies: Mapping[str, dict]) -> dict | None:
    """{'mean', 'worst', 'centers'} of the scores that centers told; None where none did."""
    run = done.run
    trained = Trained(run.program, None, None, (), (), run.length, run.key)
    return block(trained, told_in(replies))


def _finish(done: Deployed, workdir, found, state, counted_C, told) -> dict:
    """Each center makes its model; their statistics, and what `deployed.json` holds."""
    c, program = done.run.config, done.run.program
    before = read_json(workdir / FILE)
    if told['round_seconds'] is None:  # no round was left to do
        told = {k: before.get(k) for k in told}
    write_json(workdir / FILE, {**before, **told})  # should a center be away now
    replies = ask_centers(
        done, found, of_state(done, 'finish', state, counted_C, split=c.score_on)
    )
    if program.describe:
        length, psi = descriptor_of(program, state.shared, c)
        own = {n: statistic_in(replies[n], n, length, psi) for n in done.names}
        keep_statistics(workdir, own)
    for name, reply in replies.items():
        if 'error' in reply:
            raise Failed(f'{name}: {reply["error"]}: once it is right, run again to finish')
    seen, resolution = scores_of(done, replies), told_in(replies, 'resolution')
    if seen and len({str(of.get('size')) for of in resolution.values()}) > 1:
        say('the masks of some centers are no files, and scored at another size: there is no mean')
        seen |= {'mean': {}, 'worst': {}}
    report = {
        'run': done.token, 'rounds': c.rounds, **told, 'score_on': c.score_on,
        'seen': seen, 'resolution': resolution,
    }
    write_json(workdir / FILE, report)
    summary = workdir / 'summary.json'
    if seen and seen['mean']:
        write_json(summary, summary_of(done, report, state))
    else:
        summary.unlink(missing_ok=True)  # of scores that were told before
    return report


def summary_of(done: Deployed, report: dict, state: State) -> dict:
    """The content of `summary.json`: what centers told; scores of images pooled are nowhere."""
    run, program = done.run, done.run.program
    scores = {
        'seen': {**report['seen'], 'pooled': {}}, 'unseen': None, 'center_model': None,
        'controls': {'shuffled': None, 'sampled': None},
    }
    if program.secure:
        scores['secure'] = told_of(program.secure, OF_KEYS, [], simulated=False)
    cost = {
        **{k: report[k] for k in ('round_seconds', 'bytes_up', 'bytes_down')},
        'compile_seconds': None, 'parameters': parameters_of(program.algorithm, state.shared),
    }
    resolution = next(iter(report['resolution'].values()), None)
    return framed(run, len(done.names), resolution, scores, cost)
