"""Maps a function of one client over many, and sums what is to be summed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

Tree = Any


def map_clients(
    fn: Callable[..., tuple[Tree, Tree]],
    client_map: str,
    *args_C: Tree,
    vary: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[Tree, Tree]:
    """fn(client's args) -> (summed, kept); returns (sum over clients, kept with a leading C).

    The sum is accumulated over groups of clients, so that its memory does not grow with C.

    client_map: 'vmap', all clients at once; 'map', one after another; or a number k, in groups of
        k at once.
    vary: inside `shard_map`, marks the sum's zeros as varying over the mesh, as later sums do.
    """
    num_clients = len(jax.tree.leaves(args_C)[0])
    k = group_size(client_map, num_clients)

    @traced_once
    def group(args_K):
        if k == 1:
            summed, kept = fn(*jax.tree.map(lambda x: x[0], args_K))
            return summed, jax.tree.map(lambda x: x[None], kept)
        summed_K, kept_K = jax.vmap(fn)(*args_K)
        return jax.tree.map(lambda x: x.sum(0), summed_K), kept_K

    def body(total, args_K):
        summed, kept_K = group(args_K)
        return jax.tree.map(jnp.add, total, summed), kept_K

    whole = num_clients // k * k
    args_GxK = jax.tree.map(lambda x: x[:whole].reshape(-1, k, *x.shape[1:]), args_C)
    if whole == k:
        total, kept_C = group(jax.tree.map(lambda x: x[0], args_GxK))
    else:
        shapes, _ = jax.eval_shape(group, jax.tree.map(lambda x: x[0], args_GxK))
        zeros = jax.tree.map(lambda s: vary(jnp.zeros(s.shape, s.dtype)), shapes)
        total, kept_GxK = jax.lax.scan(body, zeros, args_GxK)
        kept_C = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept_GxK)
    if whole < num_clients:
        rest_C = jax.tree.map(lambda x: x[whole:], args_C)
        summed, kept_rest = map_clients(fn, str(num_clients - whole), *rest_C)
        total = jax.tree.map(jnp.add, total, summed)
        kept_C = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), kept_C, kept_rest)
    return total, kept_C


def traced_once(fn: Callable) -> Callable:
    """The same function, whose jaxpr is kept for the next call with arguments of the same shapes.

    To look at its shapes first (`jax.eval_shape`) then costs nothing.
    """
    return jax.jit(fn, inline=True)


def client_map_of(c: ConfigDict, image_size: int) -> str:
    """`c.client_map`; for 'auto' what was the fastest (`benchmarks/maps.py`, `device.py`).

    That is 'vmap' on an accelerator, where images are too small to fill it, or where clients share
    the kernels of a network that is not trained.  Kernels of their own make `vmap`'s convolutions
    grouped ones, which are slow: 2 to 10 times on an H200.
    """
    if c.client_map != 'auto':
        return c.client_map
    shared = c.model.get('trained', 'all') in ('adapters', 'head')
    at_once = jax.default_backend() != 'cpu' and (shared or image_size < 32)
    return 'vmap' if at_once else 'map'


def group_size(client_map: str, num_clients: int) -> int:
    """How many clients run at once."""
    if client_map == 'vmap':
        return num_clients
    if client_map == 'map':
        return 1
    if str(client_map).isdecimal() and int(client_map) > 0:
        return min(int(client_map), num_clients)
    raise ValueError(f'client_map={client_map!r}: one of auto, vmap, map, or a number of clients')
