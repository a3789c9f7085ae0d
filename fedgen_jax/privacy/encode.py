"""Trees of numbers as words that can be masked, and their sum back.

A number v becomes round(v 2^bits) modulo 2^word, so that sums of words are sums of numbers, as long
as none leaves the word.  That could not be seen in a sum, so each client checks its own numbers:
|v| 2^bits <= (2^(word-1) - 1) // clients.  Whole numbers go as they are, without `bits`.

A number is off by 2^-(bits+1) at most, a sum over C clients by C times as much.
"""

from typing import Any

import jax
import numpy as np

Tree = Any

TYPES: dict[int, np.dtype] = {32: np.dtype(np.uint32), 64: np.dtype(np.uint64)}  # of a word


def encode(tree: Tree, bits: int, word: int, clients: int) -> np.ndarray:
    """The numbers of a tree as words, uint32 or uint64 [d], in the order of its leaves.

    clients: the most that may be summed.

    Raises OverflowError, with the leaf's name, where a number could leave the word in a sum or is
    not finite; TypeError where a leaf holds no numbers.
    """
    limit = (2 ** (word - 1) - 1) // clients
    parts = [
        _units(jax.tree_util.keystr(path), np.asarray(x), bits, word, limit).ravel()
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]
    signed = np.concatenate([np.zeros(0, np.int64), *parts])
    return signed.astype(np.uint64).astype(TYPES[word])


def decode(words: np.ndarray, like: Tree, bits: int) -> Tree:
    """The tree that a sum of words stands for, in the shapes and types of `like`."""
    signed = words.view(np.dtype(f'int{8 * words.itemsize}'))
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([int(np.prod(x.shape)) for x in leaves])
    if len(signed) != (ends[-1] if leaves else 0):
        raise ValueError(f'{len(signed)} words for {ends[-1] if leaves else 0} numbers')
    parts = np.split(signed, ends[:-1]) if leaves else []
    return jax.tree.unflatten(
        structure, [_number(x, part, bits).reshape(x.shape) for x, part in zip(leaves, parts)]
    )


def _units(name, x, bits, word, limit):
    """int64, in units of the word."""
    if np.issubdtype(x.dtype, np.integer):
        largest = max((abs(int(v)) for v in (x.min(), x.max())), default=0) if x.size else 0
        if largest > limit:
            raise OverflowError(_too_large(name, largest, limit, word))
        return x.astype(np.int64)
    if not jax.dtypes.issubdtype(x.dtype, np.floating):
        raise TypeError(f'{name}: {x.dtype}, and only numbers can be summed under masks')
    scaled = np.rint(x.astype(np.float64) * 2.0**bits)
    largest = np.abs(scaled).max(initial=0.0)
    if not np.isfinite(largest) or int(largest) > limit:
        raise OverflowError(_too_large(name, largest / 2**bits, limit / 2**bits, word))
    return scaled.astype(np.int64)


def _too_large(name, largest, limit, word):
    return f'{name}: {largest:.6g}, and words of {word} bits can sum numbers up to {limit:.6g}'


def _number(like, signed, bits):
    if np.issubdtype(like.dtype, np.integer):
        return signed.astype(like.dtype)
    return (signed / 2.0**bits).astype(like.dtype)
