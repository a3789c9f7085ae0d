"""Masks between pairs of clients, which cancel in the sum, and each client's own.

References:
    Bonawitz et al. 2017, Practical secure aggregation for privacy-preserving machine learning, CCS.
    Pasquini et al. 2022, Eluding secure aggregation in federated learning via model inconsistency,
    CCS (the remedy: masks that depend on what the server sent).
"""

import secrets
from collections.abc import Mapping

import numpy as np

from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.secrets import SIZE, stream_key

FIELD = 'secure.on'  # whose package it is, in a message


def draw_key() -> bytes:
    """A private key of X25519 (RFC 7748), 32 bytes of the system's."""
    return secrets.token_bytes(SIZE)


def public_key(private: bytes) -> bytes:
    """The public key [32] of a private one."""
    return _x25519().X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, peer: bytes, *info: str | bytes | int) -> bytes:
    """The key [32] that two clients share, for this `info`: HKDF of the point both can compute.

    Raises ValueError where the peer's public key is one of those whose point is always zero.
    """
    x = _x25519()
    own = x.X25519PrivateKey.from_private_bytes(private)
    return stream_key(own.exchange(x.X25519PublicKey.from_public_bytes(peer)), *info)


def keystream(key: bytes, size: int, dtype: np.dtype) -> np.ndarray:
    """`size` uniform words of a key: ChaCha20 (RFC 8439), from its counter 0 and nonce 0.

    A key is for one stream, so the nonce needs not vary.
    """
    algorithms = extra('cryptography.hazmat.primitives.ciphers.algorithms', FIELD)
    ciphers = extra('cryptography.hazmat.primitives.ciphers', FIELD)
    cipher = ciphers.Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None)
    data = cipher.encryptor().update(bytes(size * np.dtype(dtype).itemsize))
    return np.frombuffer(data, np.dtype(dtype).newbyteorder('<')).astype(dtype)


def mask(words: np.ndarray, me: int, peers: Mapping[int, bytes], own: bytes) -> np.ndarray:
    """words + own mask + masks of pairs [d], modulo the word's size.

    Of each pair the client with the smaller number adds what the other takes away.

    peers: {number: the key that `agree` gives with it, for this round and what the server sent}.
    own:   the key of the client's own mask, which hides its words should the others' come off.
    """
    masked = words + keystream(own, len(words), words.dtype)
    for number, key in peers.items():
        if number == me:
            raise ValueError(f'client {me} is no peer of its own')
        stream = keystream(key, len(words), words.dtype)
        masked = masked + stream if me < number else masked - stream
    return masked


def _x25519():
    return extra('cryptography.hazmat.primitives.asymmetric.x25519', FIELD)
