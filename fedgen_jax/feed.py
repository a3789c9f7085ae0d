"""How clients reach the devices: all of them once, or a cohort a round.

A cohort is fetched on the host while the round before trains, so that the devices hold one (and
the next, on its way), whatever the number of clients.
"""

import concurrent.futures
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax.data import synthetic
from fedgen_jax.data.federated import TARGETS, Examples, stack
from fedgen_jax.engine.processes import to_host
from fedgen_jax.engine.rounds import cohort, shard_clients
from fedgen_jax.evaluate import of_split
from fedgen_jax.program import Program
from fedgen_jax.run import Run, client_ids, training_data


def all_steps(run: Run, state, private_C, first: int):
    """(advance, the arguments it is compiled for) where all clients learn in every round.

    advance(state, private_C, first, last) -> (state, private_C, metrics) of rounds first .. last-1.
    """
    id_C = shard_clients(client_ids(len(run.seen), run.program), run.program.mesh)
    data_C = training_data(run)

    def advance(state, private_C, first, last):
        args = (state, private_C, data_C, id_C, run.key)
        return compiled(run.program, args)(*args, np.int32(first), np.int32(last))

    return advance, (state, private_C, data_C, id_C, run.key)


def cohort_steps(run: Run, state, private_C, first: int):
    """The same where each round has a cohort; `private_C` are arrays of the host, changed in place.

    A virtual center's private state is a first one, and is dropped.
    """
    algorithm, mesh, num_seen = run.program.algorithm, run.program.mesh, len(run.seen)
    first_states = jax.jit(jax.vmap(algorithm.init_private, in_axes=(None, 0)))

    def arguments(state, private_C, c: Cohort):
        own_K = c.number_K < num_seen

        def put(fresh_K, x_C):
            fresh_K = np.array(fresh_K)
            fresh_K[own_K] = x_C[c.number_K[own_K]]
            return fresh_K

        fresh_K = to_host(first_states(state, c.number_K))
        private_K = shard_clients(jax.tree.map(put, fresh_K, private_C), mesh)
        return state, private_K, c.data_K, c.id_K, run.key

    feed = cohorts(run, first)
    begin = next(feed)
    feed = itertools.chain([begin], feed)

    def advance(state, private_C, first, last):
        if last != first + 1:
            raise ValueError('rounds with a cohort are dispatched one at a time')
        c = next(feed)
        args = arguments(state, private_C, c)
        state, private_K, metrics = compiled(run.program, args)(
            *args, np.int32(first), np.int32(last)
        )
        own_K = c.number_K < num_seen
        for x_C, new_K in zip(jax.tree.leaves(private_C), jax.tree.leaves(to_host(private_K))):
            x_C[c.number_K[own_K]] = new_K[own_K]
        return state, private_C, metrics

    return advance, arguments(state, private_C, begin)


class Cohort(NamedTuple):
    """A round's clients: their numbers, on the host and on the mesh, and their examples there."""

    number_K: np.ndarray
    id_K: jax.Array
    data_K: Examples


def cohorts(run: Run, first: int) -> Iterator[Cohort]:
    """The cohorts of rounds `first`, `first` + 1, ... to the run's last."""
    size, virtual = run.config.cohort, run.config.data.virtual

    def fetch(round_):
        number_K = cohort(run.key, round_, len(run.seen) + virtual, size).astype(np.int32)
        data_K = stack([training_examples(run, i) for i in number_K], run.length)
        return Cohort(number_K, *shard_clients((number_K, data_K), run.program.mesh))

    rounds = range(first, run.config.rounds)
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        following = [one.submit(fetch, r) for r in rounds[:1]]
        for r in rounds:
            current = following.pop().result()
            following = [one.submit(fetch, r + 1)] if r + 1 in rounds else []
            yield current


def training_examples(run: Run, number: int) -> Examples:
    """What a client learns from; a virtual center is drawn here and stored nowhere."""
    if number < len(run.seen):
        return of_split(run.seen[number], 'train')
    d = run.config.data
    drawn = synthetic.draw_client(
        jax.random.key(run.config.seed), d.centers + number - len(run.seen), d.examples,
        d.image_size, spread=d.spread,
    )  # fmt: skip
    image, target, weight = jax.device_get(drawn)
    return Examples(image, {k: target[k] for k in TARGETS[run.program.task.target]}, weight)


_COMPILED = {}


def compiled(program: Program, args) -> Any:
    """The rounds function compiled ahead of time, once for each program and shapes."""
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(args))
    found = (program.rounds, shapes)
    if found not in _COMPILED:
        _COMPILED[found] = program.rounds.lower(*args, np.int32(0), np.int32(1)).compile()
    return _COMPILED[found]
