"""Canonical input of whole centers, on the host."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.canonical.base import Canonical, Change, change_of, moments, moved
from fedgen_jax.data.examples import Examples, pad, take
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.recalled import recalled

CHUNK = 64


class Input(NamedTuple):
    """A program's canonical input, compiled.

    moments: uint8 [N, H, W, 3] -> [N, M].
    change:  (mean [M], reference [M]) -> Change.
    move:    (change, examples) -> examples.
    release: what a center's statistic passes before it leaves the center.
    edge:    what surrounds a shrunk image.
    """

    moments: Callable
    change: Callable
    move: Callable
    release: Callable[[Statistic], Statistic]
    edge: str


def make_input(
    canonical: Canonical,
    zoom: tuple[float, float],
    edge: str,
    release: Callable,
    size: int = 0,
) -> Input:
    """See `Input`."""
    return Input(
        jax.jit(lambda x: moments(canonical, x)),
        jax.jit(lambda own, reference: change_of(canonical, own, reference, zoom)),
        jax.jit(lambda change, examples: moved(canonical, change, examples, edge, size)),
        release,
        edge,
    )


def mean_moments(made: Input, clients: Iterable[Examples]) -> np.ndarray:
    """The mean moments [M] of clients together, from the sum of what each releases."""
    sums = []
    for examples in clients:
        vectors_NxM = moments_of(made, examples)
        weight_N = np.asarray(examples.weight)
        sums.append(made.release(descriptor.statistic(vectors_NxM, weight_N, 'moments')))
    return descriptor.mean(descriptor.pool(sums))


def moments_of(made: Input, examples: Examples) -> np.ndarray:
    """float32 [N, M]: each image's moments.

    They are kept by the images' content: each model of a center begins with those of all its
    images, and they take longer than many a model's answers.
    """
    own = [recalled(made.moments, made.moments, x.image) for x in _chunks(examples)]
    return np.concatenate(own)[: len(examples.weight)]


def own_change(made: Input | None, reference_M, unlabelled: Examples) -> Change | None:
    """The change of the center whose unlabelled images these are."""
    if made is None:
        return None
    if not np.any(np.asarray(unlabelled.weight) > 0):
        return jax.device_get(made.change(reference_M, reference_M))
    return jax.device_get(made.change(mean_moments(made, [unlabelled]), reference_M))


def change_from(made: Input, reference_M, mean_M: np.ndarray) -> Change:
    """The change of a center whose mean moments [M] are given, as those that it released."""
    return jax.device_get(made.change(np.asarray(mean_M, np.float32), reference_M))


def on_canonical(made: Input | None, change: Change | None, examples: Examples) -> Examples:
    """Examples of a center after its change, on the host."""
    if made is None:
        return examples
    parts = [recalled(made.move, made.move, change, x) for x in _chunks(examples)]
    return take(jax.tree.map(lambda *x: np.concatenate(x), *parts), slice(len(examples.weight)))


def _chunks(examples: Examples):
    """Chunks of one size, the last one padded, so that they compile once."""
    for i in range(0, max(len(examples.weight), 1), CHUNK):
        part = take(examples, slice(i, i + CHUNK))
        yield pad(jax.tree.map(np.asarray, part), CHUNK)
