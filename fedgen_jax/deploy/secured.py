"""A round's sum under masks between hospitals: `privacy.secure`'s five messages as requests.

A center holds what it needs between the messages in memory: one that is started again drops out of
the sum.  It knows its peers by a list of identities of its own, which no server can change.

    FOLDER/sums.json   {a round of a run, or of a model: whose sum the center has agreed to}

A center's message of a round is the same each time, so that two sums of one round over different
centers would differ by the message of the one that is missing: it agrees to one of them.
"""

import pathlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax.data.check import say
from fedgen_jax.data.folder.words import listed as words_of
from fedgen_jax.deploy.terms import Refused
from fedgen_jax.deploy.wire import pack
from fedgen_jax.engine.sums import Secure, message_of
from fedgen_jax.files import read_json, write_json
from fedgen_jax.privacy import Message, commit, secure
from fedgen_jax.privacy.encode import TYPES, encode
from fedgen_jax.privacy.secrets import FILE, SIZE, create_secret, read_secret, stream_key
from fedgen_jax.privacy.secure_server import route, unmasked
from fedgen_jax.privacy.secure_setup import Setup, check_enough

Tree = Any


class Party(NamedTuple):
    """A center in a sum, between two messages.

    secret: its identity's.  once: names of the round, each of which has one sum.
    names:  of all centers, in the order of their numbers.
    """

    client: secure.Client
    secret: bytes
    words: np.ndarray
    once: tuple[str, ...]
    names: tuple[str, ...]


OF_ONE = ('center', 'number', 'since', 'saved')  # of a request, what differs between centers
_PARTIES: dict[pathlib.Path, Party] = {}  # by the center's folder: it is in one sum at a time


def new_identity(folder: pathlib.Path) -> bytes:
    """The public identity [32] of a center, whose `secret.key` is drawn if there is none."""
    if not (folder / FILE).exists():
        create_secret(folder)
    return commit.identity(identity_secret(folder))


def identity_secret(folder: pathlib.Path) -> bytes:
    """What a center's identity signs with, from `secret.key` in its folder."""
    return stream_key(read_secret(folder), 'identity')


def check_listed(folder: pathlib.Path, listed: Mapping[str, bytes], name: str) -> None:
    """Raises ValueError where the list does not have a center with the identity that it has."""
    if name not in listed:
        raise ValueError(f'the list of identities has no {name!r}: {", ".join(listed)}')
    if listed[name] != commit.identity(identity_secret(folder)):
        raise ValueError(
            f'the list of identities has another one for {name!r} than {folder / FILE} gives: is '
            'it the same --site as with --identity?'
        )


def read_identities(file: pathlib.Path | None) -> dict[str, bytes]:
    """{center: its public identity}, sorted; ValueError where the file is not such a list."""
    if file is None:
        raise ValueError('secure.on: pass --identities: the file with the identity of each center')
    found = read_json(file)
    try:
        listed = {name: bytes.fromhex(key) for name, key in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f'{file}: is not {{"CENTER": "IDENTITY", ...}} ({error})') from error
    return dict(sorted(listed.items()))


def setup_of(secure_: Secure, listed: Mapping[str, bytes], session: bytes) -> Setup:
    """What all parties know before a sum; a center's number is its place in the list."""
    numbered = dict(enumerate(listed.values()))
    return Setup(
        session, numbered, secure_.threshold, secure_.min_honest, secure_.colluding
    )


def begin(
    folder: pathlib.Path, listed: Mapping[str, bytes], name: str, secure_: Secure, asked: dict,
    sent: Tree, message: Message,
) -> dict:
    """A center's first message {'advert'}: its message itself waits here, to be masked.

    sent: the server's state.  All else that it told of the round must be alike at all centers too,
        but for `OF_ONE`.

    Raises Refused where its numbers cannot be summed, or the server counts other centers.
    """
    names = list(listed)
    if name not in names or asked['number'] != names.index(name) or len(names) != asked['clients']:
        raise Refused(f'the list of identities has other centers than the run: {", ".join(names)}')
    if message.took_part != 1:
        raise Refused('its own numbers were NaN or infinite')
    try:
        words = encode(_numbers(message), secure_.bits, secure_.word, len(names))
    except OverflowError as error:
        say(str(error))  # a number of the message is in it
        raise Refused('secure.bits: its numbers do not fit their words') from error
    secret, setup = identity_secret(folder), setup_of(secure_, listed, asked['session'])
    common = {k: x for k, x in asked.items() if k not in OF_ONE}
    digest = commit.digest([np.frombuffer(pack({**common, 'state': b''}), np.uint8), sent])
    client, advert = secure.advertise(setup, asked['number'], secret, digest)
    model = commit.digest(jax.tree.map(_unsigned_zeros, sent)).hex()
    once = tuple(f'{x}, round {asked["round"]}' for x in (asked['run'], model))
    _PARTIES[folder] = Party(client, secret, words, once, tuple(names))
    return {'advert': advert}


def proceed(folder: pathlib.Path, asked: dict) -> dict:
    """A center's next message of a sum.

    Raises Refused where it is in no such sum, ValueError where something does not fit, which it
    tells at the center.
    """
    party = _PARTIES.pop(folder, None)
    if party is None or party.client.setup.session != asked['session']:
        raise Refused('it is not in this sum')
    if asked['step'] not in _STEPS:
        raise Refused(f'there is no step {asked["step"]!r} of a sum')
    client, reply = _STEPS[asked['step']](party, asked['given'])
    if asked['step'] == 'agree':
        _agree_once(folder, party, asked['given'])
    _PARTIES[folder] = party._replace(client=client)
    return {'reply': reply}


def _unsigned_zeros(x):
    """-0.0 is another number of the hash, and the same one of every message."""
    x = np.asarray(x)
    return x + np.zeros((), x.dtype) if np.issubdtype(x.dtype, np.floating) else x


def _agree_once(folder, party, survivors):
    """Notes whose sum this is, before the server hears that it is agreed to; raises Refused where
    it was another's.
    """
    file, summed = folder / 'sums.json', sorted(survivors)
    known = read_json(file) if file.is_file() else {}
    other = [known[name] for name in party.once if known.get(name, summed) != summed]
    if other:
        whose = ', '.join(party.names[n] if n < len(party.names) else str(n) for n in other[0])
        raise Refused(
            f'it has agreed to a sum of this round over other centers ({whose}), from which a '
            'second one would tell a message: bring these back, or train in another --workdir '
            'with another config.seed'
        )
    write_json(file, {**known, **dict.fromkeys(party.once, summed)})


def _share(party, given):
    client, letters = secure.share(party.client, given)
    return client, _named(letters)


def _masked(party, given):
    return secure.masked(party.client, _numbered(given), party.words)


def _agree(party, given):
    return secure.agree(party.client, party.secret, given)


def _unmask(party, given):
    return secure.unmask(party.client, _numbered(given))


_STEPS: dict[str, Callable] = {
    'share': _share, 'masked': _masked, 'agree': _agree, 'unmask': _unmask
}


def collect(
    secure_: Secure,
    setup: Setup,
    adverts: Mapping[int, bytes],
    ask: Callable[[str, Mapping[int, Any]], Mapping[int, Any]],
    like: Message,
) -> tuple[Message, tuple[int, ...]]:
    """The server's side: (the sum of messages, who is in it).

    Args:
      adverts: {number: what a center advertised}.
      ask: (step, {number: what it is given}) -> {number: its reply} of those who replied.
      like: a message, as shapes.

    Raises ValueError where fewer centers remain than a sum needs, or what they give does not fit.
    """
    to_all = list(adverts.values())
    check_enough(setup, len(to_all), 'take part')
    shared = {n: _numbered(x) for n, x in ask('share', dict.fromkeys(adverts, to_all)).items()}
    received = {n: _named(x) for n, x in route(shared).items()}
    words = _of_length(ask('masked', received), like, secure_.word)
    survivors = tuple(sorted(words))
    check_enough(setup, len(survivors), 'sent their words')
    signed = ask('agree', dict.fromkeys(survivors, list(survivors)))
    answers = ask('unmask', dict.fromkeys(signed, _named(signed)))
    total = unmasked(setup, to_all, tuple(shared), words, answers, secure_.word)
    like_1 = jax.tree.map(lambda s: np.zeros((1, *s.shape), s.dtype), like)
    return message_of(total, len(survivors), like_1, secure_), survivors


def _of_length(replies: Mapping[int, Any], like: Message, word: int) -> dict[int, bytes]:
    """The masked words that can be summed: others would be agreed to, and never be a sum."""
    size = sum(x.size for x in jax.tree.leaves(_numbers(like))) * TYPES[word].itemsize
    found = {n: x for n, x in replies.items() if isinstance(x, bytes) and len(x) == size}
    if other := sorted(replies.keys() - found.keys()):
        say(f'masked words of another length, of centers number {words_of(other)}: left out')
    return found


def signed_adverts(
    setup: Setup, adverts: Mapping[int, Any]
) -> tuple[dict[int, bytes], dict[int, str]]:
    """({number: its advert}, {number: why it is left out}): one that is not signed stops nobody."""
    found, why = {}, {}
    for number, advert in adverts.items():
        try:
            if list(secure.read_adverts(setup, [advert])) != [number]:
                raise ValueError('they are of another center')
            found[number] = advert
        except (ValueError, TypeError):
            why[number] = (
                'its keys are not signed for this sum: it has another list of identities, or not '
                'the secret of the one that is listed'
            )
    return found, why


def new_session() -> bytes:
    """Bytes that no other sum has."""
    return secrets.token_bytes(SIZE)


def _numbers(message):
    """What of a message is summed under masks, as `engine.sums`."""
    return {'contribution': message.contribution, 'metrics': message.metrics}


def _named(of: Mapping[int, Any]) -> dict[str, Any]:
    return {str(n): x for n, x in of.items()}


def _numbered(of: Mapping[str, Any]) -> dict[int, Any]:
    return {int(n): x for n, x in of.items()}
