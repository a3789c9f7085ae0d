"""What travels, as bytes: msgpack of numbers, text and arrays, which can hold no code."""

from typing import Any

import jax
import numpy as np
from flax import serialization

from fedgen_jax.hypernet.descriptor import Statistic

Tree = Any


def pack(record: dict[str, Any]) -> bytes:
    """A record of text, numbers, bytes, lists and dicts of these."""
    return serialization.msgpack_serialize(record)


def unpack(data: bytes) -> dict[str, Any]:
    """The record again; ValueError where the bytes are none."""
    try:
        found = serialization.msgpack_restore(data)
    except Exception as error:  # the reader raises nearly every type on malformed bytes
        raise ValueError(f'a message of {len(data)} bytes is damaged') from error
    if not isinstance(found, dict):
        raise ValueError(f'a message of {len(data)} bytes is no record')
    return found


def tree_to_bytes(tree: Tree) -> bytes:
    """A pytree of arrays."""
    on_host = jax.tree.map(np.asarray, jax.device_get(tree))
    return serialization.msgpack_serialize(serialization.to_state_dict(on_host))


def tree_from_bytes(like: Tree, data: bytes, what: str) -> Tree:
    """The pytree again, as NumPy arrays of the structure, shapes and types of `like`.

    like: arrays, or their shapes.  what: its name, for a message.

    Raises ValueError where it is another one.
    """
    try:
        found = serialization.from_state_dict(like, unpack(data))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{what}: {" ".join(str(error).split())[:200]}') from error
    wanted, got = (jax.tree_util.tree_leaves_with_path(t) for t in (like, found))
    for (path, x), (path_got, y) in zip(wanted, got):
        same = path == path_got and isinstance(y, np.ndarray | np.generic)
        if not (same and y.shape == x.shape and y.dtype == x.dtype):
            raise ValueError(
                f'{what}: {jax.tree_util.keystr(path)} is no {x.dtype} {list(x.shape)}: another '
                'version of the code or of the configuration'
            )
    if len(wanted) != len(got):
        raise ValueError(f'{what}: {len(got)} arrays, and {len(wanted)} are expected')
    return jax.tree.map(np.asarray, found)


def from_statistic(s: Statistic) -> dict[str, Any]:
    """A statistic as a record."""
    return s._asdict()


def to_statistic(record: dict[str, Any], length: int, psi: str) -> Statistic:
    """The statistic again.

    length: E of the numbers that it must have.  psi: of the network that must have made it.

    Raises ValueError where it is none of these.
    """
    total, count = record.get('total'), record.get('count')
    total = np.asarray(total)
    right = total.shape == (length,) and total.dtype == np.int64
    if not (right and isinstance(count, int) and count > 0):
        raise ValueError(f'a statistic is int64 [{length}] of at least one image: this is none')
    if record.get('psi') != psi or record.get('unit') != 'image' or record.get('variance') != 0:
        raise ValueError(f'a statistic is not that of the images under the network {psi}')
    return Statistic(total, count, psi)
