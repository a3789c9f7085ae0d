"""Cohorts: each round's clients, fetched on the host while the round before trains.

The devices hold one cohort (and the next, on its way), whatever the number of clients.
"""

import concurrent.futures
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.data import synthetic
from fedgen_jax.data.federated import TARGETS, Examples, stack
from fedgen_jax.engine.rounds import cohort, shard_clients
from fedgen_jax.evaluate import of_split
from fedgen_jax.run import Run


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
