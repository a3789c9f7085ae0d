"""Rounds on a mesh: every client learns, the contributions are summed, the server steps.

Everything about devices is here: `shard_map` over a `clients` axis, the sum over it, donation, and
several rounds in one dispatch.  What a client sends passes a `Protection` on both sides of the sum.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.data.examples import Examples
from fedgen_jax.engine.clients import group_size, map_clients, traced_once
from fedgen_jax.engine.processes import place
from fedgen_jax.privacy import Message, Protection, nothing
from fedgen_jax.random import address, stream

Tree = Any


def client_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
    """A mesh with one axis, `clients`, over the first `num_devices` devices (default: all)."""
    devices = jax.devices()[:num_devices]
    if num_devices and len(devices) < num_devices:
        raise ValueError(f'devices={num_devices}: there are {len(devices)}; 0 chooses')
    if {d.process_index for d in devices} != set(range(jax.process_count())):
        raise ValueError(f'devices={num_devices}: leaves processes without a device; 0 chooses')
    axes = (AxisType.Auto,)
    return jax.make_mesh((len(devices),), ('clients',), axis_types=axes, devices=devices)


# What is the same in all steps is not moved out of their loop.  Of several that learn in one loop
# (`algorithms.learning`) each would get a copy of its own, and the compiler could not tell any more
# that they make the same features of a batch.
COMPILER = {'xla_disable_hlo_passes': 'while-loop-invariant-code-motion'}
CLIENTS_A_CORE = 4  # that are worth a CPU device of their own


def suitable_devices(num_clients: int, padded: bool) -> int | None:
    """How many devices a round is spread over; None: all devices of all processes.

    All accelerators, but no more than there are clients.  On a CPU each core is a device
    (`launch.cli`): cores with clients of their own are faster than cores that share every
    operation.  A few clients, which would not divide evenly, stay on one device, whose operations
    use all cores.

    padded: whether clients without examples may fill up the last device; else it divides them.
    """
    if jax.process_count() > 1:
        return None
    num = len(jax.devices())
    if jax.default_backend() == 'cpu':
        num = min(num, max(1, num_clients // CLIENTS_A_CORE))
    if padded:
        return min(num, num_clients)
    return next(n for n in range(num, 0, -1) if num_clients % n == 0)


def make_rounds(
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    client_map: str = 'map',
    protection: Protection | None = None,
    gathered: bool = False,
) -> jax.stages.Wrapped:
    """The compiled loop over rounds.

    Returns rounds(state, private_C, data_C, id_C, key, first, last) -> (state, private_C,
    {metric: mean over the clients of the last of them}), for rounds first .. last - 1.  `state` and
    `private_C` are donated.  The bounds are traced: a whole run is one compilation.  C is a
    multiple of the mesh's devices (`pad_clients`).

    A client whose contribution, private state or metrics are not all finite is left out of that
    round: it adds exact zeros, and its private state stays as it was.  Two more metrics report it:
    'left_out', their number, summed over rounds, and 'left_out_share', the largest share of a
    round's clients.  'finite' tells whether what the server sends next is.

    protection: what all messages pass, between a client and the sum and after it; default: none.
    gathered: every client's message is kept, as leaves [C, ...], so that memory grows with C.
        `protection.server` receives them, and then they are summed.  An algorithm that is not
        `sum_only` turns this on, and its `server_update` receives them unsummed.
    """
    protection = protection or nothing()
    gathered = gathered or not algorithm.sum_only
    one_round = traced_once(round_of_clients(algorithm, mesh, client_map, protection, gathered))
    move = round_of_server(algorithm, protection, gathered)

    def rounds(state, private_C, data_C, id_C, key, first, last):
        def body(r, carry):
            state, private_C, _, left_out, worst = carry
            message, left, private_C = one_round(state, private_C, data_C, id_C, key, r)
            worst = jnp.maximum(worst, share_left_out(message, left))
            state, mean = move(state, message, key, r)
            return state, private_C, mean, left_out + left, worst

        message, _, _ = jax.eval_shape(one_round, state, private_C, data_C, id_C, key, first)
        shapes = jax.eval_shape(lambda x: move(state, x, key, first)[1], message)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        none = jnp.zeros(())
        state, private_C, means, left_out, worst = jax.lax.fori_loop(
            first, last, body, (state, private_C, zeros, none, none)
        )
        told = {'left_out': left_out, 'left_out_share': worst, 'finite': all_finite(state.shared)}
        return state, private_C, {**means, **told}

    everywhere = NamedSharding(mesh, P())
    return jax.jit(
        rounds, donate_argnums=(0, 1), out_shardings=(everywhere, by_client(mesh), everywhere),
        compiler_options=COMPILER,
    )


def round_of_clients(
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    client_map: str,
    protection: Protection,
    gathered: bool,
) -> Callable:
    """What clients do in a round, mapped over the mesh.

    Returns (state, private_C, data_C, id_C, key, round) -> (the sum of their messages; gathered:
    the messages themselves, leaves [C, ...]; how many were left out; private_C).
    """
    group_size(client_map, 1)  # a mistake is told now, not when the first round is traced

    def vary(x):
        return jax.lax.pcast(x, ('clients',), to='varying')

    def on_device(sent, private_C, data_C, id_C, key, round_):
        # A gradient with respect to a replicated value is silently summed over the mesh.
        (shared, protected, id_K), key, round_ = jax.tree.map(vary, (sent, key, round_))

        def one_client(private, data, client_id):
            draw = address(key, 'client', round_, client_id)
            contribution, new, metrics = algorithm.client_update(shared, private, data, draw)
            real = data.weight.sum() > 0
            sane = all_finite((contribution, new, metrics))
            # A client that is left out still masks and adds noise to its zeros; padding does not.
            message = protection.client(
                protected, keep_if(sane, Message(contribution, metrics)),
                stream(draw, 'protect'), client_id, id_K,
            )
            message = keep_if(real, message._replace(took_part=sane.astype(jnp.float32)))
            private = jax.tree.map(lambda a, b: jnp.where(sane, a, b), new, private)
            left = (real & ~sane).astype(jnp.float32)
            return (left, private, message) if gathered else ((message, left), private)

        def client(*args):
            first, *kept = one_client(*args)
            return first, tuple(kept)

        summed, kept_C = map_clients(client, client_map, private_C, data_C, id_C, vary=vary)
        return jax.lax.psum(summed, 'clients'), kept_C

    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(P(), P('clients'), P('clients'), P('clients'), P(), P()),
        out_specs=(P(), P('clients')),
    )

    def one_round(state, private_C, data_C, id_C, key, round_):
        sent = state.shared, state.protection, id_C
        summed, kept_C = mapped(sent, private_C, data_C, id_C, key, round_)
        if gathered:
            private_C, message_C = kept_C
            return message_C, summed, private_C
        return *summed, *kept_C

    return one_round


def round_of_server(algorithm: Algorithm, protection: Protection, gathered: bool) -> Callable:
    """What the server does with what `round_of_clients` returns.

    Returns (state, messages, key, round) -> (state, the clients' mean metrics).
    """

    def total(tree):
        return jax.tree.map(lambda x_C: x_C.sum(0), tree) if gathered else tree

    def move(state, message, key, round_):
        count = jnp.maximum(message.took_part.sum(), 1)
        key_r = jax.random.fold_in(stream(key, 'protect'), round_)
        message, protected = protection.server(state.protection, message, key_r)
        state = state._replace(protection=protected)
        sent = message.contribution
        state = algorithm.server_update(state, total(sent) if algorithm.sum_only else sent)
        return state, jax.tree.map(lambda x: x / count, total(message.metrics))

    return move


def share_left_out(message: Message, left: jax.Array) -> jax.Array:
    """The share of a round's clients that were left out."""
    return left / jnp.maximum(message.took_part.sum() + left, 1)


def all_finite(tree: Tree) -> jax.Array:
    """Whether no number of a tree is NaN or infinite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in floats]))


def keep_if(condition: jax.Array, tree: Tree) -> Tree:
    """The tree, or exact zeros."""
    return jax.tree.map(lambda x: jnp.where(condition, x, 0), tree)


def pad_clients(data_C: Examples, multiple: int) -> Examples:
    """Adds clients without examples until C is a multiple of `multiple`."""
    missing = -len(data_C.weight) % multiple
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]), data_C
    )


def by_client(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Of arrays that lead with C: each device holds as many clients as the next."""
    return NamedSharding(mesh, P('clients'))


def shard_clients(tree_C: Tree, mesh: jax.sharding.Mesh) -> Tree:
    """Places arrays on the host that lead with C over the mesh."""
    return place(tree_C, by_client(mesh))


def init_run(
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    key: jax.Array,
    id_C: np.ndarray,
    protection: Protection | None = None,
) -> tuple[State, Tree]:
    """The first state, replicated, and every client's private state, sharded."""
    init = jax.jit(_first_state(algorithm, protection), out_shardings=NamedSharding(mesh, P()))
    state = init(stream(key, 'init'))
    return state, init_private(algorithm, mesh, state, id_C)


def _first_state(algorithm, protection):
    return _same_first_state(algorithm.init, (protection or nothing()).init)


# JAX finds a program again by its function: these are the same ones at each call, so that all runs
# and centers of a process compile their first states once.
@functools.lru_cache(maxsize=8)
def _same_first_state(init, protect):
    return lambda key: init(key)._replace(protection=protect())


@functools.lru_cache(maxsize=8)
def _private_of_all(init_private):
    return jax.vmap(init_private, in_axes=(None, 0))


def shapes_of_run(
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    num_clients: int,
    protection: Protection | None = None,
) -> tuple[State, Tree]:
    """What `init_run` gives, as shapes alone: the state's with their places, the private states'
    as empty arrays on the host."""
    state = jax.eval_shape(_first_state(algorithm, protection), jax.random.key(0))
    of_all = _private_of_all(algorithm.init_private)
    private_C = jax.eval_shape(of_all, state, jnp.zeros(num_clients, jnp.int32))
    everywhere = NamedSharding(mesh, P())
    placed = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=everywhere), state
    )
    return placed, jax.tree.map(lambda s: np.empty(s.shape, s.dtype), private_C)


def init_private(algorithm: Algorithm, mesh, state: State, id_C: np.ndarray) -> Tree:
    """The first private states of clients, sharded."""
    of_all = _private_of_all(algorithm.init_private)
    return jax.jit(of_all, out_shardings=by_client(mesh))(state, shard_clients(id_C, mesh))
