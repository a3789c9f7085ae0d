"""What a function made of the same arrays before, in this process."""

import collections
import hashlib
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

KEPT = 2**28  # bytes of outputs that are kept; those that nobody asked for longest go
_KNOWN: collections.OrderedDict[tuple, Any] = collections.OrderedDict()
_LOCK = threading.Lock()
_bytes = 0


def recalled(name: Hashable, fn: Callable, *args: Any) -> Any:
    """fn(*args) on the host, kept by the content of the arguments, which are pytrees of arrays.

    name: stands for the function; all of the same name return the same.
    What it returns is shared: nobody may write into it.
    """
    global _bytes
    key = name, content_of(args)
    with _LOCK:
        if key in _KNOWN:
            _KNOWN.move_to_end(key)
            return _KNOWN[key]
    found = jax.device_get(fn(*args))
    with _LOCK:
        if key not in _KNOWN:
            _KNOWN[key] = found
            _bytes += _size(found)
        while _bytes > KEPT and len(_KNOWN) > 1:
            _bytes -= _size(_KNOWN.popitem(last=False)[1])
    return found


def content_of(tree: Any) -> bytes:
    """A hash of a pytree's structure and numbers."""
    leaves, form = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    digest = hashlib.blake2b(repr((form, [(x.shape, x.dtype) for x in leaves])).encode())
    for leaf in leaves:
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _size(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))
