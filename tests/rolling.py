"""Rounds in tests: how they start and run, and an algorithm that shows what it drew."""

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.draws import draw_indices
from fedgen_jax.algorithms.local import weigh
from fedgen_jax.engine.rounds import (
    client_mesh,
    init_run,
    make_rounds,
    pad_clients,
    shard_clients,
)
from fedgen_jax.random import stream
from fedgen_jax.tasks import classification

KEY = jax.random.key(7)
C = 8  # clients after padding: 5 real ones, and a multiple of every mesh here


def start(algorithm, mesh, data_C, protection=None):
    """(state, private_C, data_C, id_C), placed on the mesh."""
    id_C = np.arange(len(data_C.weight), dtype=np.int32)
    begun = init_run(algorithm, mesh, KEY, id_C, protection)
    return *begun, *shard_clients((data_C, id_C), mesh)


def run(rounds, started, *stops):
    """The states at every stop (the first is where it begins), as NumPy, and the last metrics."""
    state, private_C, data_C, id_C = started
    states = []
    for first, last in zip(stops, stops[1:]):
        state, private_C, metrics = rounds(
            state, private_C, data_C, id_C, KEY, np.int32(first), np.int32(last)
        )
        states.append(jax.device_get((state, private_C)))
    return states, jax.device_get(metrics)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, rtol=1e-5):
    """Relative to the largest number of each array: what summing in another order may change."""

    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * np.abs(y).max())

    jax.tree.map(close, a, b)


def dice():
    """An algorithm that sends what it drew, each client in its own row, and a sum of floats."""
    task = classification('abcde')

    def client_update(shared, private, data, key):
        noise = jax.random.normal(stream(key, 'noise'), (3,))
        index = draw_indices(task, data, stream(key, 'query'), 4, None)
        mean = data.image.astype(jnp.float32).mean((0, 1, 2)) * noise
        row = jax.nn.one_hot(private['id'], C)[:, None]
        real = (data.weight.sum() > 0).astype(jnp.float32)
        drawn = {'noise': row * noise[None], 'index': row * index[None].astype(jnp.float32)}
        loss = jnp.where(real > 0, private['id'].astype(jnp.float32), jnp.nan)
        private = {**private, 'noise': noise}
        return weigh(real, {**drawn, 'mean': mean / real}), private, {'loss': loss}

    def init(key):
        zeros = {'noise': jnp.zeros((C, 3)), 'index': jnp.zeros((C, 4)), 'mean': jnp.zeros(3)}
        return State(zeros, ())

    def init_private(state, client_id):
        return {'id': client_id, 'noise': jnp.zeros(3)}

    def server_update(state, total):
        return state._replace(shared=jax.tree.map(lambda s, t: 0.5 * s + t, state.shared, total))

    return Algorithm(
        init, init_private, client_update, server_update, None, None,
        title='dice', keeps=True, server_model=False, sizes={},
    )


def roll(cells, num_devices, client_map):
    mesh = client_mesh(num_devices)
    rounds = make_rounds(dice(), mesh, client_map)
    return run(rounds, start(dice(), mesh, pad_clients(cells, C)), 0, 3)
