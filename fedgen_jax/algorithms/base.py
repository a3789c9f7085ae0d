"""What an algorithm is, and what a server does with sums.

An algorithm is written for ONE client.  `engine` maps it over clients, sums the contributions and
knows of devices; nothing here does.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.data.examples import Examples

Tree = Any


class State(NamedTuple):
    """What the server holds between rounds.

    shared:     what it sends to every client, {'theta': ..., 'round': int32, ...}.
    optimizer:  the state of its optimizer, which it keeps.
    protection: the state of `privacy.Protection`; the engine uses it, algorithms pass it on.
    """

    shared: Tree
    optimizer: Tree
    protection: Tree = ()


class Algorithm(NamedTuple):
    """A federated algorithm: pure functions, and what the rest of the code must know of it.

    init:          key -> State.
    init_private:  (state, client_id) -> what never leaves the client.
    client_update: (shared, private, data, key) -> (contribution, private, metrics).  The engine
                   *sums* contributions over clients; each carries its own weight.
    server_update: (state, sum of contributions) -> state.
    describe:      (shared, image uint8 [N, H, W, 3]) -> [N, E], each image's share of its
                   client's statistic; None for algorithms without a descriptor.
    personalize:   (shared, private or None, unlabelled, labelled or None, key, m_E or None) ->
                   variables for the model.  An unseen client has no `private` and, zero-shot,
                   no `labelled`; `m_E` replaces the descriptor of `unlabelled`.  A seen client's
                   `unlabelled` are its training examples, whose targets it may use; an unseen
                   one's targets are never looked at.  The center model of an algorithm with a
                   descriptor has {'id': -1} for `private`: it is nobody's.
    title:         its name for people.
    keeps:         whether a client's private state, or its number, matters from round to round.
                   Centers that are drawn for one round cannot take part where it does.
    server_model:  whether a stranger has a model; else it borrows a seen client's.
    sizes:         {part for people: the entry of `shared` that holds it}, to be counted.
    adapt:         (shared, unlabelled, key, m_E or None, steps, reach) -> (an unseen client's
                   variables after `steps` on the code that they are generated from, without
                   labels; the objective [steps + 1], as `adaptation.descent`); None: no code.
    base:          the algorithm whose model at the server it refines, and keeps as it would be
                   alone; None: there is none.
    sum_only:      False: `server_update` needs every client's contribution by itself, as leaves
                   [C, ...] with exact zeros for padding.  No secure sum can serve it.
    apply:         (variables, x_BxHxWx3) -> outputs of a finished model; None: the model's own.
    down:          shared -> what a client is sent in a round, by the method's own protocol, in
                   shapes alone; None: all of `shared`, which simulated clients are given anyway.
    own:           the entry of a client's private state with weights that stand in place of the
                   server's in its model, at their paths; '': none does.
    unseen:        what its zero-shot model at an unseen center is made from, in a few words for
                   people, beside the server's weights, canonical input and batch statistics.
    features:      whether its steps may have features of the model's frozen layers in place of
                   images: they are those of `Local`, and pass a batch through the model alone,
                   whose frozen layers are as they began.
    """

    init: Callable[[jax.Array], State]
    init_private: Callable[[State, jax.Array], Tree]
    client_update: Callable[[Tree, Tree, Examples, jax.Array], tuple[Tree, Tree, dict]]
    server_update: Callable[[State, Tree], State]
    describe: Callable[[Tree, jax.Array], jax.Array] | None
    personalize: Callable[..., Tree]
    title: str
    keeps: bool
    server_model: bool
    sizes: Mapping[str, str]
    sum_only: bool = True
    adapt: Callable[..., tuple[Tree, jax.Array]] | None = None
    base: 'Algorithm | None' = None
    apply: Callable[[Tree, jax.Array], Any] | None = None
    down: Callable[[Tree], Tree] | None = None
    own: str = ''
    unseen: str = ''
    features: bool = False


def server_step(server: optax.GradientTransformation, state: State, total: Tree) -> State:
    """One step of the server's optimizer along the clients' weighted mean change.

    total: {'weight', 'delta': {entry of shared: sum of weighted changes}}, and 'statistics' where
        the model's are kept from training (`Local.statistics`): their mean is the next round's.
    """
    weight = jnp.maximum(total['weight'], 1e-9)
    learned = {k: state.shared[k] for k in total['delta']}
    gradient = jax.tree.map(lambda d: -d / weight, total['delta'])
    updates, optimizer = server.update(gradient, state.optimizer, learned)
    shared = {**state.shared, **optax.apply_updates(learned, updates)}
    if 'statistics' in total:
        # Where nobody took part, the old ones stay.
        shared['statistics'] = jax.tree.map(
            lambda old, new: jnp.where(total['weight'] > 0, new / weight, old),
            state.shared['statistics'], total['statistics'],
        )
    return next_round(state._replace(shared=shared, optimizer=optimizer))


def next_round(state: State, total: Tree = None) -> State:
    """The state with its round counted."""
    return state._replace(shared={**state.shared, 'round': state.shared['round'] + 1})
