"""The processes of a cluster: how they meet, and what one of them does for all.

Every process runs the same program on the same data folder; the mesh spans their devices.  All of
them score, and the first alone writes.  With one process nothing here does anything.
"""

import faulthandler
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fedgen_jax.interrupt import MayPass

Tree = Any

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead


def join(cluster: str) -> None:
    """Joins the other processes; call it before anything else of JAX.

    cluster: 'auto' where JAX finds them by itself (SLURM, Open MPI, TPU pods), or HOST:PORT,ID,NUM:
        where the first one listens, this one's number, and how many.

    Raises ValueError where `cluster` is malformed, MayPass where they do not meet.
    """
    where: dict[str, Any] = {}
    if cluster != 'auto':
        parts = cluster.split(',')
        if len(parts) != 3 or not all(p.isdecimal() for p in parts[1:]):
            raise ValueError(f'--cluster={cluster}: auto, or HOST:PORT,ID,NUM')
        where = {
            'coordinator_address': parts[0],
            'process_id': int(parts[1]),
            'num_processes': int(parts[2]),
        }
    faulthandler.disable()  # JAX ends this process when another dies; its line says it all
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM from us
    try:
        jax.distributed.initialize(
            heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=HEARTBEAT, **where
        )
    except RuntimeError as error:
        raise MayPass(f'--cluster={cluster}: cannot join ({error})') from error


def is_first() -> bool:
    """Whether this process writes."""
    return jax.process_index() == 0


def to_host(tree: Tree) -> Tree:
    """The whole arrays in every process's memory, wherever their parts lie."""

    def whole(x):
        if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, tree)


def place(tree: Tree, sharding: jax.sharding.Sharding) -> Tree:
    """Arrays that every process holds whole, to their places on the mesh; placed ones stay."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(x):
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        return jax.make_array_from_callback(x.shape, sharding, lambda i: np.asarray(x)[i])

    return jax.tree.map(one, tree)


def own_rows(num: int, sharding: jax.sharding.Sharding) -> np.ndarray:
    """int [n], sorted: which of `num` rows, sharded along them, this process's devices hold."""
    indices = sharding.addressable_devices_indices_map((num,)).values()
    parts = {i[0].indices(num) for i in indices if i is not None}
    return np.concatenate([np.arange(*part) for part in sorted(parts)])


def place_own(tree: Tree, num: int, sharding: jax.sharding.Sharding) -> Tree:
    """As `place`, of arrays of `num` rows of which each process holds its `own_rows` alone."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, (num, *x.shape[1:])), tree
    )


def from_first(value: int) -> int:
    """The first process's value, in all of them; they wait for each other."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_of(value: bool) -> bool:
    """Whether it is true in any process; they wait for each other."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.int32(value)).any())
