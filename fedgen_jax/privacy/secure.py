"""Secure sums, a client's side: the server learns the sum of the clients' words, and no other.

References:
    Bonawitz et al. 2017, Practical secure aggregation for privacy-preserving machine learning, CCS
    (figure 4, with its protection against a server that does not follow the protocol).
    Pasquini et al. 2022, Eluding secure aggregation in federated learning via model inconsistency,
    CCS (masks that depend on what the server sent).

Five messages, in functions of bytes that know no sockets; `secure_server` is the other side.

    advertise   two public keys, the hash of what the server sent, signed
    share       shares of the mask key and of the own mask's seed, encrypted to each peer
    masked      words + own mask + masks of pairs, which cancel
    agree       who sent its words, signed: all clients answer for the same survivors
    unmask      of each peer one share: of the seed if it sent its words, of the key if it dropped

A client is a value: it passes from message to message, and each function returns the next one.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.privacy import commit, masks, shamir
from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.secrets import SIZE, stream_key
from fedgen_jax.privacy.secure_setup import Setup, check_enough, check_setup
from fedgen_jax.privacy.wire import number_in, pack, unpack

SHARE = 66  # bytes of a share: 521 bits


class Advert(NamedTuple):
    """What a client makes known of itself.  seed: the hash of its own mask's seed."""

    number: int
    digest: bytes
    mask_key: bytes
    channel_key: bytes
    seed: bytes


class Client(NamedTuple):
    """A client between two messages.

    stage:    the message that it sent last.
    digest:   of what the server sent it.
    adverts:  of all who take part.  context: their hash, with the session's.
    held:     {peer: (share of its mask key, share of its seed)} of those who shared.
    alive:    who sent its words, as the server says.
    """

    setup: Setup
    number: int
    digest: bytes
    stage: str
    mask_key: bytes
    channel_key: bytes
    seed: bytes
    sent: bytes
    adverts: Mapping[int, Advert] = {}
    context: bytes = b''
    held: Mapping[int, tuple[bytes, bytes]] = {}
    alive: frozenset[int] = frozenset()


def advertise(setup: Setup, number: int, secret: bytes, digest: bytes) -> tuple[Client, bytes]:
    """A client begins: (client, its message to all).

    secret: its identity's, `setup.identities[number] == commit.identity(secret)`.
    digest: `commit.digest` of what the server sent.
    """
    check_setup(setup)
    mask_key, channel_key, seed = masks.draw_key(), masks.draw_key(), secrets.token_bytes(SIZE)
    keys = masks.public_key(mask_key), masks.public_key(channel_key)
    body = pack([number, digest, *keys, hashlib.sha256(seed).digest()])
    message = pack([body, commit.sign(secret, _signed(setup, body))])
    client = Client(setup, number, digest, 'advertise', mask_key, channel_key, seed, message)
    return client, message


def share(client: Client, messages: Sequence[bytes]) -> tuple[Client, dict[int, bytes]]:
    """(client, {peer: its message to that peer}), given all that was advertised.

    Raises ValueError where a signature is not its client's, the server sent the clients different
    things, or too few take part.
    """
    _after(client, 'advertise')
    setup = client.setup
    if client.sent not in messages:
        raise ValueError(f'client {client.number}: the server left its own keys out')
    adverts = read_adverts(setup, messages)
    commit.check_same(client.digest, {n: a.digest for n, a in adverts.items()})
    check_enough(setup, len(adverts), 'take part')
    context = context_of(setup, messages)
    shares = [
        [y.to_bytes(SHARE, 'big') for _, y in shamir.split(
            int.from_bytes(secret, 'big'), setup.threshold, len(adverts))]
        for secret in (client.mask_key, client.seed)
    ]
    pairs = dict(zip(sorted(adverts), zip(*shares)))
    client = client._replace(
        stage='share', adverts=adverts, context=context,
        held={client.number: pairs[client.number]},
    )
    letters = {
        peer: _cipher(client, client.number, peer).encrypt(
            bytes(12), pack(pair), pack([client.number, peer]))
        for peer, pair in pairs.items() if peer != client.number
    }
    return client, letters


def masked(
    client: Client, letters: Mapping[int, bytes], words: np.ndarray
) -> tuple[Client, bytes]:
    """(client, its masked words), given the letters {sender: message} that peers shared.

    words: uint32 or uint64 [d] (`encode.encode`).

    Raises ValueError where a letter was changed, or too few shared.
    """
    _after(client, 'share')
    check_enough(client.setup, len(letters) + 1, 'shared their secrets')
    exceptions = extra('cryptography.exceptions', masks.FIELD)
    held = dict(client.held)
    for sender, letter in letters.items():
        try:
            data = _cipher(client, sender, client.number).decrypt(
                bytes(12), letter, pack([sender, client.number]))
        except (KeyError, exceptions.InvalidTag) as error:
            raise ValueError(f'client {sender}: its shares are not its own') from error
        key_share, seed_share = unpack(data, 2)
        held[sender] = key_share, seed_share
    peers = {
        n: pair_key(client.mask_key, client.adverts[n], client.context, client.digest)
        for n in held if n != client.number
    }
    own = own_key(client.seed, client.context)
    sent = masks.mask(words, client.number, peers, own)
    return client._replace(stage='masked', held=held), sent.tobytes()


def agree(client: Client, secret: bytes, survivors: Sequence[int]) -> tuple[Client, bytes]:
    """(client, its signature under who sent its words), given what the server says of that.

    secret: its identity's.

    Raises ValueError where it is not among them itself, or they are too few or not those who
    shared.
    """
    _after(client, 'masked')
    alive = frozenset(survivors)
    if client.number not in alive or not alive <= client.held.keys():
        raise ValueError(f'client {client.number}: {sorted(alive)} are not those who took part')
    check_enough(client.setup, len(alive), 'sent their words')
    client = client._replace(stage='agree', alive=alive)
    return client, commit.sign(secret, _survivors(client))


def unmask(client: Client, signatures: Mapping[int, bytes]) -> tuple[Client, bytes]:
    """(client, one share of each peer), given what the survivors signed {survivor: signature}.

    Of a peer both shares together take all its masks off, so a client gives one of them, once: the
    seed's of who is alive, else the key's.  More than half of the clients agree on who is alive,
    so no other half gives the other share.

    Raises ValueError where too few signed the same survivors.
    """
    _after(client, 'agree')
    identities, data = client.setup.identities, _survivors(client)
    agreed = [
        n for n, x in signatures.items()
        if n in client.alive and commit.verify(identities[n], x, data)
    ]
    check_enough(client.setup, len(agreed), 'agree on who sent their words')
    parts: list[bytes | int] = []
    for number, (key_share, seed_share) in sorted(client.held.items()):
        parts += [number, seed_share if number in client.alive else key_share]
    return client._replace(stage='unmask', held={}), pack(parts)


def read_adverts(setup: Setup, messages: Sequence[bytes]) -> dict[int, Advert]:
    """{number: what it advertised}; ValueError where a signature is not its client's."""
    found: dict[int, Advert] = {}
    for message in messages:
        body, signature = unpack(message, 2)
        first, *parts = unpack(body, 5)
        number = number_in(first)
        known = number in setup.identities and number not in found
        if not known or not commit.verify(
            setup.identities[number], signature, _signed(setup, body)
        ):
            raise ValueError(f'client {number}: its keys are not signed by it for this sum')
        found[number] = Advert(number, *parts)
    return found


def context_of(setup: Setup, messages: Sequence[bytes]) -> bytes:
    """The hash [32] of a sum's session and of all that was advertised in it."""
    return hashlib.sha256(pack([setup.session, *sorted(messages)])).digest()


def pair_key(mask_key: bytes, peer: Advert, context: bytes, digest: bytes) -> bytes:
    """The key of a pair's mask.

    It depends on what the server sent: masks of clients that were sent different things do not
    cancel, and their sum is noise.
    """
    return masks.agree(mask_key, peer.mask_key, 'mask', context, digest)


def own_key(seed: bytes, context: bytes) -> bytes:
    """The key of a client's own mask."""
    return stream_key(seed, 'own', context)


def _signed(setup, body):
    """What is signed: in no other sum, and for no other cohort, is it valid."""
    cohort = pack(part for member in sorted(setup.identities.items()) for part in member)
    return pack([b'advertise', setup.session, cohort, body])


def _survivors(client):
    return pack([b'survivors', client.context, *sorted(client.alive)])


def _cipher(client, sender, receiver):
    """The cipher of one letter; its key is used once, so the nonce needs not vary."""
    aead = extra('cryptography.hazmat.primitives.ciphers.aead', masks.FIELD)
    peer = client.adverts[receiver if sender == client.number else sender]
    key = masks.agree(
        client.channel_key, peer.channel_key, 'letter', client.context, sender, receiver
    )
    return aead.ChaCha20Poly1305(key)


def _after(client, stage):
    if client.stage != stage:
        raise ValueError(
            f'client {client.number}: asked for what follows {stage!r} after {client.stage!r}: '
            'each message is sent once'
        )
