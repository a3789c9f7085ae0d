"""What an algorithm is, and what all of them share: a client's local learning.

An algorithm is written for ONE client.  `engine` maps it over clients, sums the contributions and
knows of devices; nothing here does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.data.examples import Examples

Tree = Any


class State(NamedTuple):
    """What the server holds between rounds.

    shared:    what it sends to every client, {'theta': ..., 'round': int32, ...}.
    optimizer: its optimizer's state, which it keeps.
    """

    shared: Tree
    optimizer: Tree


class Algorithm(NamedTuple):
    """A federated algorithm, as pure functions.

    init:          key -> State.
    init_private:  (state, client_id) -> what never leaves the client.
    client_update: (shared, private, data, key) -> (contribution, private, metrics).  The engine
                   *sums* contributions over clients; each carries its own weight.
    server_update: (state, sum of contributions) -> state.
    describe:      (shared, image uint8 [N, H, W, 3]) -> [N, E], each image's share of its
                   client's statistic; None for algorithms without a descriptor.
    personalize:   (shared, private or None, unlabelled, labelled or None, key, m_E or None) ->
                   variables for the model.  An unseen client has no `private` and, zero-shot,
                   no `labelled`; `m_E` replaces the descriptor of `unlabelled`.
    """

    init: Callable[[jax.Array], State]
    init_private: Callable[[State, jax.Array], Tree]
    client_update: Callable[[Tree, Tree, Examples, jax.Array], tuple[Tree, Tree, dict]]
    server_update: Callable[[State, Tree], State]
    describe: Callable[[Tree, jax.Array], jax.Array] | None
    personalize: Callable[..., Tree]


def server_step(server: optax.GradientTransformation, state: State, total) -> State:
    """One step of the server's optimizer, the mean change being the negative gradient."""
    weight = jnp.maximum(total['weight'], 1e-9)
    learned = {k: state.shared[k] for k in total['delta']}
    gradient = jax.tree.map(lambda d: -d / weight, total['delta'])
    updates, optimizer = server.update(gradient, state.optimizer, learned)
    return next_round(State({**state.shared, **optax.apply_updates(learned, updates)}, optimizer))


def next_round(state: State, total=None) -> State:
    """The state with its round counted."""
    return state._replace(shared={**state.shared, 'round': state.shared['round'] + 1})
