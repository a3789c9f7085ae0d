"""Randomness: every use has its own named stream, and every draw its own address.

    draw = fold_in(fold_in(fold_in(key, STREAM), round), client_id)

so a draw depends on neither devices, processes, client order nor `client_map`, and switching one
use off leaves the others' draws as they were.
"""

import zlib

import jax


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a named stream."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def address(key: jax.Array, name: str, round_: jax.Array, client_id: jax.Array) -> jax.Array:
    """The key of a client in a round, on a named stream."""
    return jax.random.fold_in(jax.random.fold_in(stream(key, name), round_), client_id)
