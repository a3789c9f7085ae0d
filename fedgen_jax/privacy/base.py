"""The seam between a client and the sum.

All that leaves a client in a round is one `Message`, and passes its `Protection`; so does the
descriptor's statistic, which leaves once training has ended.  Protections chain, as optax's
transformations do.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.random import stream

Tree = Any


LARGEST = 1e3  # norm of a client's metrics where contributions are clipped


class Message(NamedTuple):
    """What a client sends in a round, or the sum of it over clients.

    contribution: what the algorithm's server works on.
    metrics:      {name: float32}, for the log alone.
    took_part:    1 of a client whose numbers count, 0 of padding and of one that was left out;
                  summed, how many.  The engine's own: what a protection makes of it at the client
                  is replaced.
    """

    contribution: Tree
    metrics: Tree
    took_part: Any = np.float32(1)


class Protection(NamedTuple):
    """Pure functions on both sides of the sum.

    init:      () -> state, which the server holds (`State.protection`) and checkpoints keep.
    client:    (state, message, key, client_id, id_K) -> message, at one client.  id_K: the round's
               clients, padding among them, for masks between pairs.  A client that was left out
               sends zeros through it; what padding makes of its zeros is dropped.
    server:    (state, message, key) -> (message, state), once a round, on the sum; in a gathered
               round (`engine.rounds.make_rounds`) on all messages, leaves [C, ...].
    statistic: a center's `Statistic` -> the one that it releases; on the host.
    spent:     (rounds, cohort, num_clients) -> what `summary.json` tells of it, as JSON.
    """

    init: Callable[[], Tree]
    client: Callable[[Tree, Message, jax.Array, jax.Array, jax.Array], Message]
    server: Callable[[Tree, Message, jax.Array], tuple[Message, Tree]]
    statistic: Callable[[Statistic], Statistic]
    spent: Callable[[int, int, int], dict]


def chain(*parts: Protection) -> Protection:
    """The parts one after another at the client, and back in the opposite order at the server.

    What the last did to a message is undone first.  The state is a tuple, one entry a part.
    """

    def init():
        return tuple(p.init() for p in parts)

    def client(state, message, key, client_id, id_K):
        for i, (p, s) in enumerate(zip(parts, state)):
            message = p.client(s, message, stream(key, str(i)), client_id, id_K)
        return message

    def server(state, message, key):
        new = list(state)
        for i in reversed(range(len(parts))):
            message, new[i] = parts[i].server(state[i], message, stream(key, str(i)))
        return message, tuple(new)

    def statistic(s):
        for p in parts:
            s = p.statistic(s)
        return s

    def spent(rounds, cohort, num_clients):
        told = {}
        for p in parts:
            told |= p.spent(rounds, cohort, num_clients)
        return told

    return Protection(init, client, server, statistic, spent)


@functools.cache
def nothing() -> Protection:
    """No protection: the chain of no parts."""
    return chain()


def clip_contribution(tree: Tree, limit: jax.Array | float) -> tuple[Tree, jax.Array]:
    """(the tree, no longer than `limit`; whether it was within it)."""
    norm = optax.tree.norm(tree)
    factor = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), tree), norm <= limit


def clip(limit: float) -> Protection:
    """Shrinks a client's whole contribution to a norm of at most `limit`.

    A contribution carries its weight, which shrinks with it: a client that is clipped counts less,
    and no client moves the sum by more than `limit`.  By itself this is no privacy, but what noise
    needs before it.  A descriptor's statistic is bounded by its making (`hypernet.descriptor`).
    Metrics are for the log, and have a bound that only one who would drown all others meets.
    """
    if not limit > 0:
        raise ValueError(f'privacy.clip={limit}: a norm above 0; 0 in the configuration: no clip')

    def client(state, message, key, client_id, id_K):
        contribution, _ = clip_contribution(message.contribution, limit)
        metrics, _ = clip_contribution(message.metrics, LARGEST)
        return message._replace(contribution=contribution, metrics=metrics)

    return Protection(
        init=lambda: (),
        client=client,
        server=lambda state, message, key: (message, state),
        statistic=lambda s: s,
        spent=lambda rounds, cohort, num_clients: {'clip': limit},
    )
