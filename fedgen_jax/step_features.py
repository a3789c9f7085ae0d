"""Features of the images that training steps draw, kept in the cache for other runs.

With a frozen network nearly all time of training goes into passing augmented images through it.
Every method draws these from the same streams (`algorithms.local.query_batch`), and so do other
rates of one method: a run of the same images, seed and steps finds the features that another kept.
"""

import hashlib
import operator
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedgen_jax.data.examples import Examples
from fedgen_jax.data.store import cache_folder, writable
from fedgen_jax.frozen import Frozen, features_of
from fedgen_jax.random import address
from fedgen_jax.recalled import content_of
from fedgen_jax.registry import choose
from fedgen_jax.run import Run

FOLDER = 'features'


def step_features(run: Run) -> Callable[[Examples, np.ndarray, int], Examples] | None:
    """(data_K on the host, the clients' numbers, round) -> data_K with `features` and `steps`.

    None: the run passes images through its network in each step.
    """
    c, frozen = run.config, run.program.frozen
    if choose('data.features', c.data.features, ('made', 'kept')) == 'made':
        return None
    if frozen is None or run.guard or not run.program.algorithm.features:
        return None
    folder = writable(cache_folder(c.data.cache or None) / FOLDER)
    names: dict[Any, bytes] = {}

    def of_client(data, id_, round_):
        key = address(run.key, 'client', np.int32(round_), np.int32(id_))
        shapes = tuple(x.shape for x in jax.tree.leaves(data))
        if shapes not in names:
            names[shapes] = _program_of(frozen, data, key)
        content = names[shapes] + frozen.content + content_of((data, jax.random.key_data(key)))
        file = folder / f'{hashlib.sha256(content).hexdigest()[:32]}.npy'
        return _kept(file, lambda: frozen.of_steps(frozen.variables, data, key))

    def add(data_K, id_K, round_):
        clients = [jax.tree.map(operator.itemgetter(k), data_K) for k in range(len(id_K))]
        steps = [of_client(data, id_, round_) for data, id_ in zip(clients, id_K)]
        features = [features_of(frozen, data.image) for data in clients]
        return data_K._replace(features=np.stack(features), steps=np.stack(steps))

    return add


def _program_of(frozen: Frozen, data: Examples, key: jax.Array) -> bytes:
    """What the features are made by: the program itself, so that other code finds none of them."""
    text = frozen.of_steps.lower(frozen.variables, data, key).as_text()
    return hashlib.sha256(f'{jax.__version__} {jax.default_backend()} {text}'.encode()).digest()


def _kept(file: pathlib.Path, make: Callable[[], jax.Array]) -> np.ndarray:
    """The array in a file, which is made and written, whole or not at all, where there is none."""
    if file.exists():
        return np.load(file)
    made = jax.device_get(make())
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix='.partial', delete=False) as partial:
        np.save(partial, made)
    os.replace(partial.name, file)
    return made
