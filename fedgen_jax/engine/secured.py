"""Rounds whose sum is taken under masks (`privacy.secure`): the server meets no center's message.

A round is two dispatches.  The clients' half returns their messages one by one, the sum is taken on
the host, and the server's half steps on it.  Contributions and metrics go through the same sum.

Where a client was left out, it drops out of the sum.  Drawn centers are the server's own: it could
compute what they send, so they are added in the clear and do not count as clients.
"""

import functools
import math
import secrets
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.engine.cohorts import Mix
from fedgen_jax.engine.rounds import (
    all_finite,
    by_client,
    make_rounds,
    round_of_clients,
    round_of_server,
    share_left_out,
)
from fedgen_jax.privacy import Message, Protection, nothing
from fedgen_jax.privacy.commit import digest
from fedgen_jax.privacy.encode import TYPES, decode, encode
from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.secrets import SIZE
from fedgen_jax.privacy.secure_server import secure_sum
from fedgen_jax.privacy.secure_setup import Setup, check_numbers
from fedgen_jax.registry import choose

Tree = Any


class Secure(NamedTuple):
    """How a run's sums are taken.

    own:  centers of the run in a round, and its clients; drawn: drawn ones beside them.
    first_drawn: numbers from here on are drawn centers or padding.
    The others are the fields of `config.secure`, the threshold as a number of clients.
    """

    own: int
    drawn: int
    first_drawn: int
    threshold: int
    min_honest: int
    colluding: int
    bits: int
    word: int


def secure_of(c: ConfigDict, num_seen: int, mix: Mix | None) -> Secure | None:
    """How a configuration has its sums taken; None: in the clear.

    Raises ValueError where they could not be, or would protect nobody.
    """
    s = c.secure
    if not s.on:
        return None
    if mix and mix.drawn is None and c.data.virtual:
        raise ValueError(
            'secure.on: drawn centers are no clients of a sum, and without data.virtual_share a '
            "round's own ones may be few: set it"
        )
    choose('secure.word', str(s.word), [str(w) for w in TYPES])
    if not 0 < s.bits < s.word - 2:
        raise ValueError(f'secure.bits={s.bits}: from 1 to {s.word - 3}, of a word of {s.word}')
    own = mix.size - (mix.drawn or 0) if mix else num_seen
    threshold = math.ceil(s.threshold * own)
    check_numbers(own, threshold, s.min_honest, s.colluding)
    return Secure(
        own, (mix.drawn or 0) if mix else 0, num_seen, threshold, s.min_honest, s.colluding,
        s.bits, s.word,
    )


class Parties(NamedTuple):
    """The centers of a run as parties of its sums.

    secrets: {number: what its identity signs with}; each center holds its own alone.
    listed:  {number: its public identity}, as the server and all centers know them.
    """

    secrets: Mapping[int, bytes]
    listed: Mapping[int, bytes]


class Halves(NamedTuple):
    """Both halves of a round and the sum between them: wrapped, lowered or compiled, as the stages
    of what `rounds.make_rounds` returns.

    clients: (state, private_C, data_C, id_C, key, round) -> (messages, leaves [C, ...]; how many
             were left out; private_C).
    server:  (state, their sum, key, round) -> (state, mean metrics, whether the state is finite).
    between: (messages, id_C, what the server sent, parties) -> (their sum, what it cost).
    parties: of the run, whose rounds these are; a program serves several runs, and has none.
    """

    clients: Any
    server: Any
    between: Callable[[Message, np.ndarray, Tree, Parties], tuple[Message, dict]]
    parties: Parties | None = None

    def lower(self, *args) -> 'Halves':
        if jax.process_count() > 1:
            raise ValueError('secure.on: plays all parties in one process: start without --cluster')
        extra('cryptography', 'secure.on')
        *of_clients, _ = args
        state, *_, key, first = of_clients
        message_C = jax.eval_shape(self.clients, *of_clients)[0]
        message = jax.tree.map(lambda s: np.zeros(s.shape[1:], s.dtype), message_C)
        server = self.server.lower(state, message, key, first)
        return self._replace(clients=self.clients.lower(*of_clients), server=server)

    def compile(self) -> 'Halves':
        return self._replace(clients=self.clients.compile(), server=self.server.compile())

    def memory_analysis(self):
        return self.clients.memory_analysis()

    def cost_analysis(self):
        return self.clients.cost_analysis()

    def __call__(self, state, private_C, data_C, id_C, key, first, last):
        """As `rounds.make_rounds`; metrics 'secure': what the sums of these rounds cost."""
        if self.parties is None:
            raise ValueError('secure.on: these rounds have no parties, so nobody can sign')
        left_out, worst, costs, mean, finite = 0.0, 0.0, [], {}, True
        for r in range(int(first), int(last)):
            message_C, left, private_C = self.clients(
                state, private_C, data_C, id_C, key, np.int32(r)
            )
            message_C, ids, left = jax.device_get((message_C, id_C, left))
            sent = jax.device_get((state.shared, state.protection))
            message, cost = self.between(message_C, ids, sent, self.parties)
            worst = max(worst, float(share_left_out(message, left)))
            left_out += float(left)
            state, mean, finite = self.server(state, message, key, np.int32(r))
            costs.append(cost)
        told = {'left_out': left_out, 'left_out_share': worst, 'finite': finite, 'secure': costs}
        return state, private_C, {**mean, **told}


def rounds_of(
    c: ConfigDict,
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    protection: Protection,
    secure: Secure | None,
) -> jax.stages.Wrapped | Halves:
    """A configuration's rounds: in the clear, gathered for a robust rule, or under masks.

    Raises ValueError where the algorithm takes more than the sum that a rule replaces.
    """
    if secure:
        return make_secured_rounds(algorithm, mesh, c.client_map, protection, secure)
    gathered = c.robust.rule != 'none'
    if gathered and not algorithm.sum_only:
        raise ValueError(
            f'robust.rule={c.robust.rule!r}: replaces a sum, and {algorithm.title} takes none'
        )
    return make_rounds(algorithm, mesh, c.client_map, protection, gathered)


def make_secured_rounds(
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    client_map: str,
    protection: Protection | None,
    secure: Secure,
) -> Halves:
    """`rounds.make_rounds` with sums under masks.

    Raises ValueError where the algorithm needs more than sums.
    """
    if not algorithm.sum_only:
        raise ValueError(
            f'secure.on: {algorithm.title} needs every contribution by itself, which masks hide'
        )
    protection = protection or nothing()
    clients = round_of_clients(algorithm, mesh, client_map, protection, gathered=True)
    move = round_of_server(algorithm, protection, gathered=False)

    def server(state, message, key, round_):
        state, mean = move(state, message, key, round_)
        return state, mean, all_finite(state.shared)

    everywhere, by = NamedSharding(mesh, P()), by_client(mesh)
    return Halves(
        jax.jit(clients, donate_argnums=1, out_shardings=(by, everywhere, by)),
        jax.jit(server, donate_argnums=0, out_shardings=everywhere),
        functools.partial(summed, secure),
    )


def summed(
    secure: Secure, message_C: Message, id_C: np.ndarray, sent: Tree, parties: Parties
) -> tuple[Message, dict]:
    """`Halves.between`: (the sum of the messages, what it cost), all parties played here."""
    own = [int(n) for n in id_C if n < secure.first_drawn]
    setup = Setup(
        secrets.token_bytes(SIZE), {n: parties.listed[n] for n in own}, secure.threshold,
        secure.min_honest, secure.colluding,
    )
    words_C = words_of(message_C, secure)
    row_of = {int(n): i for i, n in enumerate(id_C)}
    dropped = {n: 'masked' for n in own if not message_C.took_part[row_of[n]]}
    found = secure_sum(
        setup, parties.secrets, digest(sent), {n: words_C[row_of[n]] for n in own}, dropped
    )
    clear = [i for n, i in row_of.items() if n >= secure.first_drawn]
    total = found.words + words_C[clear].sum(0, dtype=words_C.dtype)
    took_part = len(found.survivors) + message_C.took_part[clear].sum()
    cost = {**found.seconds, 'bytes_up': found.up, 'bytes_down': found.down}
    return message_of(total, took_part, message_C, secure), cost


def words_of(message_C: Message, secure: Secure) -> np.ndarray:
    """Each message in words, uint [C, d]: contribution and metrics.

    Raises ValueError where a number does not fit its word.
    """
    tree_C = _numbers(message_C)
    clients = len(message_C.took_part)

    def of(i):
        row = jax.tree.map(lambda x: x[i], tree_C)
        return encode(row, secure.bits, secure.word, clients)

    try:
        return np.stack([of(i) for i in range(clients)])
    except OverflowError as error:
        raise ValueError(
            f'secure.on: {error}: lower secure.bits={secure.bits}, or set secure.word=64'
        ) from error


def message_of(words: np.ndarray, took_part: int, like_C: Message, secure: Secure) -> Message:
    """The summed message that a sum of `words_of` stands for."""
    like = jax.tree.map(lambda x: x[0], _numbers(like_C))
    return Message(**decode(words, like, secure.bits), took_part=np.float32(took_part))


def _numbers(message):
    """What of a message is summed under masks."""
    return {'contribution': message.contribution, 'metrics': message.metrics}


def told_of(secure: Secure, identities: str, costs: list[dict]) -> dict:
    """What `summary.json` tells of a run's sums.

    identities: where they come from.  costs: of rounds of this process.
    """
    fewest = max(secure.threshold, secure.min_honest + secure.colluding)
    fields = ('threshold', 'min_honest', 'colluding', 'bits', 'word')
    return {
        'clients': secure.own,
        'drawn': secure.drawn,
        'identities': identities,
        **{k: getattr(secure, k) for k in fields},
        'server_saw': [
            'of each center: public keys, letters between centers that it cannot read, masked '
            'words, and whether it sent them',
            f'of a round: the sum of contributions, weights and losses over at least {fewest} '
            'centers',
        ],
        'not_covered': [
            'scores of each center, which are sent in the clear',
            'what the sums themselves tell, of few centers or from round to round',
            'one crafted model for all centers',
            'all parties live in one process here, and the folder of the run holds files of all',
        ],
        'a_round': {k: statistics.median(c[k] for c in costs) for k in costs[0]} if costs else None,
    }
