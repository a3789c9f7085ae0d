"""A round's sum under masks: who takes part, what they send, and what the server meets.

All parties are played here, in one process (`privacy.secure`).  Where a client was left out, it
drops out of the sum.  Drawn centers are the server's own: it could compute what they send, so they
are added in the clear and do not count as clients.
"""

import math
import secrets
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.engine.cohorts import Mix
from fedgen_jax.privacy import Message
from fedgen_jax.privacy.commit import digest
from fedgen_jax.privacy.encode import TYPES, decode, encode
from fedgen_jax.privacy.secrets import SIZE
from fedgen_jax.privacy.secure_server import secure_sum
from fedgen_jax.privacy.secure_setup import Setup, check_numbers
from fedgen_jax.privacy.shares import Shares, noisy_words
from fedgen_jax.registry import choose

Tree = Any


class Secure(NamedTuple):
    """How a run's sums are taken.

    own:  centers of the run in a round, and its clients; drawn: drawn ones beside them.
    first_drawn: numbers from here on are drawn centers or padding.
    noisy: whether each center adds a share of noise to its words (`privacy.shares`).
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
    noisy: bool = False

    @property
    def fewest(self) -> int:
        """The least clients of a sum."""
        return max(self.threshold, self.min_honest + self.colluding)

    @property
    def honest(self) -> int:
        """The least of them that show the server nothing."""
        return self.fewest - self.colluding


class Parties(NamedTuple):
    """The centers of a run as parties of its sums.

    secrets: {number: what its identity signs with}; each center holds its own alone.
    listed:  {number: its public identity}, as the server and all centers know them.
    shares:  how they add noise; None: they do not.
    """

    secrets: Mapping[int, bytes]
    listed: Mapping[int, bytes]
    shares: Shares | None = None


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
    threshold = math.ceil(s.threshold * own - 1e-9)  # .55 of 20 is 11, and a bit in floats
    check_numbers(own, threshold, s.min_honest, s.colluding)
    return Secure(
        own, (mix.drawn or 0) if mix else 0, num_seen, threshold, s.min_honest, s.colluding,
        s.bits, s.word, s.distributed_noise,
    )


def summed(
    secure: Secure, message_C: Message, id_C: np.ndarray, sent: Tree, round_: int,
    parties: Parties,
) -> tuple[Message, dict]:
    """`Halves.between`: (the sum of the messages, what it cost), all parties played here.

    A client that was left out drops out of the sum; with noise it sends its share alone, for a sum
    without it would tell that it was left out.
    """
    own = [int(n) for n in id_C if n < secure.first_drawn]
    setup = Setup(
        secrets.token_bytes(SIZE), {n: parties.listed[n] for n in own}, secure.threshold,
        secure.min_honest, secure.colluding,
    )
    row_of, model = {int(n): i for i, n in enumerate(id_C)}, digest(sent)
    took_part_C = np.asarray(message_C.took_part)
    clear = [i for n, i in row_of.items() if n >= secure.first_drawn]
    if secure.noisy:
        if parties.shares is None or took_part_C[clear].any():
            raise ValueError('secure.distributed_noise: a client without a share of the noise')
        words_C, dropped = noisy_words_of(message_C, id_C, model, round_, secure, parties), {}
    else:
        words_C = words_of(message_C, secure)
        dropped = {n: 'masked' for n in own if not took_part_C[row_of[n]]}
    found = secure_sum(
        setup, parties.secrets, model, {n: words_C[row_of[n]] for n in own}, dropped
    )
    total = found.words + words_C[clear].sum(0, dtype=words_C.dtype)
    took_part = took_part_C[[row_of[n] for n in found.survivors] + clear].sum()
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


def noisy_words_of(
    message_C: Message, id_C: np.ndarray, model: bytes, round_: int, secure: Secure,
    parties: Parties,
) -> np.ndarray:
    """Each center's contribution in words uint [C, d], bounded and with its share of the noise.

    model: the hash of what the server sent: other ones never meet the same noise.  Rows of padding
        are 0.

    Raises ValueError where metrics would go without noise.
    """
    shares = parties.shares
    assert shares
    if jax.tree.leaves(message_C.metrics):
        raise ValueError('secure.distributed_noise: metrics have no bound, so none may be sent')

    def of(i, n):
        row = jax.tree.map(lambda x: x[i], _numbers(message_C))
        key = shares.key_of(n, round_, model)
        word = TYPES[secure.word]
        return noisy_words(row, shares.clip, shares.variance, key, secure.bits, word)

    rows = {i: of(i, int(n)) for i, n in enumerate(id_C) if n < secure.first_drawn}
    none = np.zeros_like(next(iter(rows.values())))
    return np.stack([rows.get(i, none) for i in range(len(id_C))])


def message_of(words: np.ndarray, took_part: int, like_C: Message, secure: Secure) -> Message:
    """The summed message that a sum of `words_of` stands for."""
    like = jax.tree.map(lambda x: x[0], _numbers(like_C))
    return Message(**decode(words, like, secure.bits), took_part=np.float32(took_part))


def _numbers(message):
    """What of a message is summed under masks."""
    return {'contribution': message.contribution, 'metrics': message.metrics}


def told_of(secure: Secure, identities: str, costs: list[dict], simulated: bool = True) -> dict:
    """What `summary.json` tells of a run's sums.

    identities: where they come from.  costs: of rounds of this process.
    simulated: whether all parties are in this process.
    """
    fields = ('threshold', 'min_honest', 'colluding', 'bits', 'word')
    return {
        'clients': secure.own,
        'drawn': secure.drawn,
        'identities': identities,
        'distributed_noise': secure.noisy,
        **{k: getattr(secure, k) for k in fields},
        'server_saw': [
            'of each center: public keys, letters between centers that it cannot read, masked '
            'words, and whether it sent them',
            ('of a round: the sum of bounded contributions, with noise, over at least '
             if secure.noisy else
             'of a round: the sum of contributions, weights and losses over at least ')
            + f'{secure.fewest} centers',
        ],
        'not_covered': [
            'scores of each center, which are sent in the clear',
            'what the sums themselves tell, of few centers or from round to round',
            'one crafted model for all centers',
            *(['all parties live in one process here, and the folder of the run holds files of all']
              if simulated else []),
        ],
        'a_round': {k: statistics.median(c[k] for c in costs) for k in costs[0]} if costs else None,
    }
