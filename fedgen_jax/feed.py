"""How clients reach the devices: all of them once, or a new cohort for each round.

A cohort is fetched on the host while the round before trains, so that the devices hold two at
most, whatever the number of clients.  Of many processes each fetches what its devices hold.
"""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax.algorithms import pools
from fedgen_jax.canonical import change_from, on_canonical, own_change
from fedgen_jax.data.examples import Examples, of_split, stack
from fedgen_jax.data.virtual import draw_virtual, with_room
from fedgen_jax.engine.cohorts import clients_of
from fedgen_jax.engine.processes import own_rows, place, place_own, to_host
from fedgen_jax.engine.rounds import by_client, pad_clients, shard_clients
from fedgen_jax.program import Program
from fedgen_jax.run import Run, client_ids
from fedgen_jax.step_features import step_features


def all_steps(run: Run, state, private_C, first: int, telling: Callable[[], None]):
    """(advance, its compiled rounds function) where all clients learn in every round.

    advance(state, private_C, first, last) -> (state, private_C, metrics) of rounds first .. last-1.
    telling: called where the function is to be compiled first, and not at hand.
    """
    mesh = run.program.mesh
    clients, length = clients_with_room(run)
    number_C = client_ids(len(clients), run.program)
    id_C = shard_clients(number_C, mesh)
    data_C = stack(clients, length)
    if run.guard and run.guard.own_C:
        data_C = data_C._replace(own=run.guard.own_C)
    data_C = pad_clients(data_C, mesh.size)
    add = step_features(run)
    on_mesh_C = shard_clients(data_C, mesh) if add is None else None

    def arguments(state, private_C, round_):
        here_C = on_mesh_C
        if add:
            here_C = shard_clients(add(data_C, number_C, round_), mesh)
        return state, private_C, here_C, id_C, run.key

    def advance(state, private_C, first, last):
        if add and last != first + 1:
            raise ValueError('rounds with features of their steps are dispatched one at a time')
        return rounds(*arguments(state, private_C, first), np.int32(first), np.int32(last))

    rounds = rounds_of_run(run, arguments(state, private_C, first), telling)
    return advance, rounds


def clients_with_room(run: Run) -> tuple[list[Examples], int]:
    """What each client of a round learns from, and the length that they are padded to.

    It is one length for every choice of held-out centers.
    """
    clients = [training_examples(run, i) for i in range(len(run.seen))]
    if not pools(run.config.algorithm):
        return clients, run.length
    joined = jax.tree.map(lambda *xs: np.concatenate(xs), *clients)
    return [joined], run.length * len(clients)


def cohort_steps(run: Run, state, private_C, first: int, telling: Callable[[], None]):
    """`all_steps`, where each round has a cohort and is dispatched by itself.

    `private_C` are arrays on the host, changed in place.  A virtual center begins its round with a
    fresh private state, which is dropped afterwards.
    """
    algorithm, mesh = run.program.algorithm, run.program.mesh
    first_states = jax.jit(jax.vmap(algorithm.init_private, in_axes=(None, 0)))

    def arguments(state, private_C, c: Cohort):
        private_K = jax.tree.map(lambda x_C: x_C[c.own], private_C)
        if len(c.own) < len(c.number_K):
            fresh_K = to_host(first_states(state, c.number_K))
            private_K = jax.tree.map(
                lambda own, fresh_K: np.concatenate([own, fresh_K[len(own) :]]), private_K, fresh_K
            )
        return state, shard_clients(private_K, mesh), c.data_K, c.id_K, run.key

    def advance(state, private_C, first, last):
        if last != first + 1:
            raise ValueError('rounds with a cohort are dispatched one at a time')
        c = begin.pop() if begin else next(feed)
        state, private_K, metrics = rounds(
            *arguments(state, private_C, c), np.int32(first), np.int32(last)
        )
        for x_C, new_K in zip(jax.tree.leaves(private_C), jax.tree.leaves(to_host(private_K))):
            x_C[c.own] = new_K[: len(c.own)]
        return state, private_C, metrics

    feed = cohorts(run, first)
    begin = [next(feed)]
    rounds = rounds_of_run(run, arguments(state, private_C, *begin), telling)
    return advance, rounds


class Cohort(NamedTuple):
    """A round's clients.

    number_K: their numbers, sorted, of an empty place that of no client.
    own:  those that are centers of the run, which come first; the others are virtual.
    id_K, data_K: numbers and examples on the mesh.
    """

    number_K: np.ndarray
    own: np.ndarray
    id_K: jax.Array
    data_K: Examples


def cohorts(run: Run, first: int) -> Iterator[Cohort]:
    """The cohorts of rounds `first`, `first` + 1, ... to the run's last."""
    mix, sharding, examples_of = run.mix, by_client(run.program.mesh), keeping(run)
    length = max(run.length, run.drawing.num_examples if run.drawing else 0)
    num_own, num_drawn = len(run.seen), run.config.data.virtual
    add = step_features(run)

    def cohort_of(round_):
        if run.guard and run.guard.cohort:
            return run.guard.cohort(round_)
        return clients_of(run.key, round_, num_own, num_drawn, mix)

    def fetch(round_):
        number_K = cohort_of(round_)
        here = [examples_of(int(i)) for i in number_K[own_rows(mix.size, sharding)]]
        data_K = stack(here, length)
        if add:
            data_K = add(data_K, number_K[own_rows(mix.size, sharding)], round_)
        data_K = place_own(data_K, mix.size, sharding)
        own = number_K[number_K < len(run.seen)]
        return Cohort(number_K, own, place(number_K, sharding), data_K)

    rounds = range(first, run.config.rounds)
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        following = [one.submit(fetch, r) for r in rounds[:1]]
        for r in rounds:
            current = following.pop().result()
            following = [one.submit(fetch, r + 1)] if r + 1 in rounds else []
            yield current


KEPT = 2**29  # bytes of clients that are kept once they are drawn, or moved to canonical input


def keeping(run: Run) -> Callable[[int], Examples]:
    """`training_examples` by number; those that take work are kept if all of them have room."""
    kept: dict[int, Examples] = {}
    first = 0 if run.program.input else len(run.seen)
    number_of = len(run.seen) + run.config.data.virtual - first

    def examples_of(number):
        if number in kept:
            return kept[number]
        examples = training_examples(run, number)
        if number >= first:
            size = sum(x.nbytes for x in jax.tree.leaves(examples))
            if size * number_of <= KEPT:
                kept[number] = examples
        return examples

    return examples_of


def training_examples(run: Run, number: int) -> Examples:
    """What a client learns from, on canonical input where the run has one.

    A virtual center is drawn here.  Beyond all clients are places of a cohort that nobody has.
    """
    if number >= len(run.seen) + run.config.data.virtual:
        return jax.tree.map(np.zeros_like, training_examples(run, 0))
    if run.drawing and number >= len(run.seen):
        examples = draw_virtual(run.drawing, number - len(run.seen))
    else:
        examples = of_split(run.seen[number], 'train')
        examples = with_room(examples, run.drawing.room) if run.drawing else examples
    made = run.program.input
    change = own_change(made, run.reference, examples)
    if made and run.guard and run.guard.moments:
        change = change_from(made, run.reference, run.guard.moments[run.seen[number].name])
    examples = on_canonical(made, change, examples)
    if run.guard and run.guard.own_C:
        examples = examples._replace(own=jax.tree.map(lambda x: x[number], run.guard.own_C))
    return examples


_COMPILED: dict[tuple, Any] = {}


def compiled(program: Program, args, telling: Callable[[], None] = lambda: None) -> Any:
    """The rounds function compiled ahead of time, once for each program and shapes."""
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(args))
    found = (program.rounds, shapes)
    if found not in _COMPILED:
        if len(_COMPILED) == 8:  # a long sweep has many
            del _COMPILED[next(iter(_COMPILED))]
        telling()
        _COMPILED[found] = program.rounds.lower(*args, np.int32(0), np.int32(1)).compile()
    return _COMPILED[found]


def rounds_of_run(run: Run, args, telling: Callable[[], None]) -> Any:
    """`compiled`, with the run's own parties where its sums are taken under masks."""
    rounds = compiled(run.program, args, telling)
    return rounds._replace(parties=run.parties) if run.program.secure else rounds
