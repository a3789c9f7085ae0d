"""Small runs of any algorithm, on one device, for tests that compare them."""

import jax
import numpy as np
from drawn import centers

from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import stack
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.program import make_algorithm

KEY = jax.random.key(3)
C = 4
# What an algorithm needs beyond `configured`.
NEEDS = {'silobn': {'model.norm': 'batch', 'statistics': 'running'}}


def configured(changes):
    c = base()
    c.model.widths, c.local_steps, c.batch_size, c.fedgen.support = (8,), 2, 4, 4
    c.shifts.acquisition, c.shifts.flips, c.shifts.turns = 0.0, False, False
    c.data.image_size, c.client.lr = 16, 0.1
    c.update_from_flattened_dict(changes)
    return c


def drawn_clients():
    """Three drawn centers and one without examples, [4, 8, ...]."""
    drawn = [c.examples for c in centers(3, 8, 16)]
    drawn = [e._replace(target={'label': e.target['label']}) for e in drawn]
    nobody = jax.tree.map(np.zeros_like, drawn[0])
    return stack([*drawn, nobody])


def of_unequal_sizes(data_C):
    """`drawn_clients` with 8, 7 and 5 examples: weights that round in products."""
    weight_CxN = data_C.weight.copy()
    weight_CxN[1, 7:] = weight_CxN[2, 5:] = 0
    return data_C._replace(weight=weight_CxN)


def roll(changes, data_C, order=range(C), rounds=2):
    """(state, private_C, metrics) after some rounds, on one device, as NumPy."""
    algorithm, _ = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    mesh, order = client_mesh(1), np.array(order)
    data_C = jax.tree.map(lambda x: x[order], data_C)
    data_C, id_C = shard_clients((data_C, order.astype(np.int32)), mesh)
    state, private_C = init_run(algorithm, mesh, KEY, np.arange(C, dtype=np.int32))
    private_C = jax.tree.map(lambda x: x[order], private_C)
    run = make_rounds(algorithm, mesh, 'map')
    return jax.device_get(run(state, private_C, data_C, id_C, KEY, np.int32(0), np.int32(rounds)))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, rtol):
    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * max(np.abs(y).max(), 1e-3))

    jax.tree.map(close, a, b)
