"""What ties a client's masks to what the server sent it, and a message to its sender."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.masks import FIELD

Tree = Any


def digest(tree: Tree) -> bytes:
    """SHA-256 [32] of a tree's paths, types, shapes and numbers.

    All 256 bits stay, for a server makes both of two models that it would like to look alike.
    """
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        x = np.ascontiguousarray(leaf)
        for part in (jax.tree_util.keystr(path), str(x.dtype), str(x.shape)):
            found.update(len(part.encode()).to_bytes(8, 'big') + part.encode())
        found.update(x.tobytes())
    return found.digest()


def identity(secret: bytes) -> bytes:
    """The public identity [32] of a center: its Ed25519 key (RFC 8032), from 32 secret bytes."""
    return _private(secret).public_key().public_bytes_raw()


def sign(secret: bytes, data: bytes) -> bytes:
    """The signature [64] of a center under data."""
    return _private(secret).sign(data)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the center of this identity signed the data."""
    ed25519 = extra('cryptography.hazmat.primitives.asymmetric.ed25519', FIELD)
    exceptions = extra('cryptography.exceptions', FIELD)
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (exceptions.InvalidSignature, ValueError):
        return False
    return True


def check_same(own: bytes, others: Mapping[int, bytes]) -> None:
    """Raises ValueError where another client was sent something else than this one."""
    different = sorted(number for number, found in others.items() if found != own)
    if different:
        raise ValueError(
            f'the server sent clients {", ".join(map(str, different))} another model than this '
            'client: nothing is sent'
        )


def _private(secret):
    ed25519 = extra('cryptography.hazmat.primitives.asymmetric.ed25519', FIELD)
    return ed25519.Ed25519PrivateKey.from_private_bytes(secret)
