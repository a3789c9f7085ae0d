"""Secure sums, the server's side, and a whole sum of parties in one process.

See `secure` for the protocol.  The server sees public keys, letters that it cannot read, masked
words, and of each client one of its two secrets.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.privacy import masks, secure, shamir
from fedgen_jax.privacy.encode import TYPES
from fedgen_jax.privacy.secrets import SIZE
from fedgen_jax.privacy.secure_setup import Setup, check_enough
from fedgen_jax.privacy.wire import number_in, pack, unpack

MESSAGES = ('advertise', 'share', 'masked', 'agree', 'unmask')


class Sum(NamedTuple):
    """A sum that ended.

    words:     uint32 or uint64 [d], of the survivors alone.
    survivors: who sent its words.
    seconds:   {'keys': keys and shares of all clients, 'mask': of one client, 'agree': signatures
               and answers of all clients, 'unmask': the server's}.
    up, down:  bytes that a client sends and receives, the mean over those who remained.
    """

    words: np.ndarray
    survivors: tuple[int, ...]
    seconds: dict[str, float]
    up: float
    down: float


class Bill(NamedTuple):
    """Bytes that each client has sent and received so far, {number: bytes}, changed in place."""

    up: dict[int, int]
    down: dict[int, int]


def route(letters: Mapping[int, Mapping[int, bytes]]) -> dict[int, dict[int, bytes]]:
    """{receiver: {sender: letter}} of {sender: {receiver: letter}}, among those who sent any."""
    return {
        to: {sender: sent[to] for sender, sent in letters.items() if sender != to}
        for to in letters
    }


def unmasked(
    setup: Setup,
    adverts: Sequence[bytes],
    shared: Sequence[int],
    words: Mapping[int, bytes],
    answers: Mapping[int, bytes],
    word: int,
) -> np.ndarray:
    """The sum of the survivors' words, uint32 or uint64 [d].

    Args:
      shared: who sent its shares to its peers.
      words: {survivor: its masked words}.
      answers: {who of them gave its shares: those}.

    Raises ValueError where too few answered, or a secret that they give together is not that which
    its client announced.
    """
    check_enough(setup, len(answers), 'gave their shares')
    known = secure.read_adverts(setup, adverts)
    context = secure.context_of(setup, adverts)
    number_at = {n: i + 1 for i, n in enumerate(sorted(known))}  # whose share lies at which x
    given = {n: dict(_pairs(data)) for n, data in answers.items()}

    def secret_of(number):
        shares = [
            (number_at[n], int.from_bytes(shares_of[number], 'big'))
            for n, shares_of in given.items()
        ]
        joined = shamir.join(shares[: setup.threshold])
        _check(joined < 2 ** (8 * SIZE), number)
        return joined.to_bytes(SIZE, 'big')

    dtype = TYPES[word]
    total = np.sum([np.frombuffer(x, dtype) for x in words.values()], axis=0, dtype=dtype)
    for number in words:
        seed = secret_of(number)
        _check(known[number].seed == hashlib.sha256(seed).digest(), number)
        total = total - masks.keystream(secure.own_key(seed, context), len(total), dtype)
    for number in sorted(set(shared) - words.keys()):
        key = secret_of(number)
        _check(known[number].mask_key == masks.public_key(key), number)
        for peer in words:
            pair = secure.pair_key(key, known[peer], context, known[number].digest)
            stream = masks.keystream(pair, len(total), dtype)
            # The survivor's mask of this pair comes off.
            total = total - stream if peer < number else total + stream
    return total


def secure_sum(
    setup: Setup,
    secrets: Mapping[int, bytes],
    digest: bytes,
    words: Mapping[int, np.ndarray],
    dropped: Mapping[int, str] | None = None,
) -> Sum:
    """Plays all parties: each client of `words` and the server.

    Args:
      secrets: {number: the secret of its identity}.
      digest: of what the server sent to all.
      words: {number: uint32 or uint64 [d]}.
      dropped: {number: the first of `MESSAGES` that it does not send}.

    Raises ValueError where fewer clients remain than a sum needs.
    """
    dropped, bill = dropped or {}, Bill(dict.fromkeys(words, 0), dict.fromkeys(words, 0))

    def sends(number, message):
        first_missing = dropped.get(number)
        return first_missing is None or MESSAGES.index(message) < MESSAGES.index(first_missing)

    (clients, adverts, letters), keys = _timed(
        _shared, setup, secrets, digest, tuple(words), sends, bill
    )
    (clients, sent), mask = _timed(_masked, clients, letters, words, sends, bill)
    survivors = tuple(sorted(sent))
    check_enough(setup, len(survivors), 'sent their words')
    answers, agreed = _timed(_answered, clients, secrets, survivors, sends, bill)
    word = 8 * next(iter(words.values())).itemsize
    total, unmask = _timed(unmasked, setup, adverts, tuple(letters), sent, answers, word)
    seconds = {'keys': keys, 'mask': mask / len(sent), 'agree': agreed, 'unmask': unmask}
    means = (float(np.mean([x[n] for n in survivors])) for x in bill)
    return Sum(total, survivors, seconds, *means)


def _shared(setup, secrets, digest, numbers, sends, bill):
    """Keys and shares: (clients, all that was advertised, {sender: {receiver: letter}})."""
    clients, adverts = {}, {}
    for n in numbers:
        if sends(n, 'advertise'):
            clients[n], adverts[n] = secure.advertise(setup, n, secrets[n], digest)
            bill.up[n] += len(adverts[n])
    to_all = list(adverts.values())
    check_enough(setup, len(to_all), 'take part')
    letters = {}
    for n in adverts:
        bill.down[n] += sum(map(len, to_all))
        if sends(n, 'share'):
            clients[n], letters[n] = secure.share(clients[n], to_all)
            bill.up[n] += sum(map(len, letters[n].values()))
    return clients, to_all, letters


def _masked(clients, letters, words, sends, bill):
    """(clients, {number: its masked words})."""
    clients, sent = dict(clients), {}
    for n, received in route(letters).items():
        bill.down[n] += sum(map(len, received.values()))
        if sends(n, 'masked'):
            clients[n], sent[n] = secure.masked(clients[n], received, words[n])
            bill.up[n] += len(sent[n])
    return clients, sent


def _answered(clients, secrets, survivors, sends, bill):
    """{number: its shares of its peers' secrets}, of those who give them."""
    clients, signed, answers = dict(clients), {}, {}
    for n in survivors:
        bill.down[n] += len(pack(survivors))
        if sends(n, 'agree'):
            clients[n], signed[n] = secure.agree(clients[n], secrets[n], survivors)
            bill.up[n] += len(signed[n])
    for n in signed:
        bill.down[n] += sum(map(len, signed.values()))
        if sends(n, 'unmask'):
            clients[n], answers[n] = secure.unmask(clients[n], signed)
            bill.up[n] += len(answers[n])
    return answers


def _timed(of, *args):
    """(what a function returns, seconds)."""
    clock = time.perf_counter()
    return of(*args), time.perf_counter() - clock


def _pairs(data):
    parts = unpack(data)
    return ((number_in(n), share) for n, share in zip(parts[::2], parts[1::2]))


def _check(right, number):
    if not right:
        raise ValueError(
            f'client {number}: the secret that its peers gave back is not its own: nothing is '
            'summed'
        )
