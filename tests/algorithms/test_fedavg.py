"""The server's optimizers are those of their papers, and local learning stays local."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.common import base
from fedgen_jax.algorithms.base import State, server_step
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.data.examples import Examples
from fedgen_jax.program import make_algorithm

CHANGES = [np.array([1.0, -2.0, 0.5]), np.array([0.5, 0.5, 0.5]), np.array([-1.0, 0.0, 2.0])]


def serve(changes, **fields):
    """theta after the server has met sums of these mean changes, under a total weight of 4."""
    c = ConfigDict({'optimizer': 'sgd', 'lr': 1.0, 'momentum': 0.0, **fields})
    server = optimizer('server', c)
    theta = {'theta': jnp.zeros(3)}
    state = State({**theta, 'pooled': jnp.ones(2), 'round': jnp.int32(0)}, server.init(theta))
    for delta in changes:
        total = {'weight': jnp.float32(4), 'delta': {'theta': jnp.array(4 * delta, jnp.float32)}}
        state = server_step(server, state, total)
    np.testing.assert_array_equal(state.shared['pooled'], 1)  # only what was sent moves
    assert state.shared['round'] == len(changes)
    return np.asarray(state.shared['theta'])


def test_fedavg_is_the_weighted_mean():
    np.testing.assert_allclose(serve(CHANGES), sum(CHANGES), rtol=1e-6)


def test_fedavgm_is_the_paper_s():
    theta, velocity = 0, 0
    for delta in CHANGES:
        velocity = 0.9 * velocity + delta
        theta = theta + 0.5 * velocity
    np.testing.assert_allclose(serve(CHANGES, lr=0.5, momentum=0.9), theta, rtol=1e-6)


def test_fedadam_is_the_paper_s():
    theta, first, second = 0, 0, 1e-6
    for delta in CHANGES:
        first, second = 0.9 * first + 0.1 * delta, 0.99 * second + 0.01 * delta**2
        theta = theta + 0.1 * first / (np.sqrt(second) + 1e-3)
    np.testing.assert_allclose(serve(CHANGES, optimizer='fedadam', lr=0.1), theta, rtol=1e-4)


def test_a_round_in_which_nobody_took_part_changes_nothing():
    server = optimizer('server', base().server)
    theta = {'theta': jnp.ones(3)}
    total = {'weight': jnp.float32(0), 'delta': {'theta': jnp.zeros(3)}}
    state = server_step(server, State({**theta, 'round': jnp.int32(0)}, server.init(theta)), total)
    np.testing.assert_array_equal(state.shared['theta'], 1)


def test_local_learning_sends_nothing_and_keeps_its_own_model():
    c = base()
    c.algorithm, c.model.widths, c.local_steps, c.shifts.acquisition = 'local_only', (8,), 1, 0.0
    algorithm, _ = make_algorithm(c, 16, 'abc', 2)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    private = jax.eval_shape(algorithm.init_private, state, jnp.int32(0))
    image, label = np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.int32)
    data = Examples(image, {'label': label}, np.ones(4, np.float32))
    sent, kept, _ = jax.eval_shape(
        algorithm.client_update, state.shared, private, data, jax.random.key(0)
    )
    assert not jax.tree.leaves(sent)
    assert kept == private and 'theta' in kept


def test_unknown_optimizer_names_its_field():
    with pytest.raises(ValueError, match="server.optimizer='yogi': one of sgd, adam, fedadam"):
        serve([], optimizer='yogi')
