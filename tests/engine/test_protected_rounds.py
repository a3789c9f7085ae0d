"""Protections in a round: every message passes, and a gathered round shows each by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rolling import KEY, C, assert_close, assert_same, dice, run, start

from fedgen_jax.engine.rounds import client_mesh, make_rounds, pad_clients
from fedgen_jax.privacy import Protection, nothing
from fedgen_jax.random import address, stream


def test_the_seam_before_the_sum_sees_every_contribution(cells):
    """A protection meets each client's message once, with a key of its own; padding's never."""

    def replace(state, message, key, client_id, id_K):
        noise = jnp.full((C, 3), jax.random.uniform(key))
        return message._replace(contribution={**message.contribution, 'noise': noise})

    mesh = client_mesh(2)
    rounds = make_rounds(dice(), mesh, '3', nothing()._replace(client=replace))
    [(state, _)], _ = run(rounds, start(dice(), mesh, pad_clients(cells, C)), 0, 1)
    real = range(len(cells.weight))
    keys = [stream(address(KEY, 'client', 0, i), 'protect') for i in real]
    expected = sum(float(jax.random.uniform(k)) for k in keys)
    np.testing.assert_allclose(state.shared['noise'], expected, rtol=1e-5)


def test_a_protection_knows_the_round_s_clients_and_keeps_a_state(cells):
    """Masks between pairs cancel in the sum; the server's side counts rounds in its state."""

    def client(state, message, key, client_id, id_K):
        # Of each pair the one adds what the other takes away; numbers that are exact in float32.
        sign_K = jnp.sign(id_K - client_id).astype(jnp.float32)
        pair_K = (jnp.minimum(id_K, client_id) * 7 + jnp.maximum(id_K, client_id)) % 16
        mask = jnp.sum(jnp.where(id_K < 5, sign_K * pair_K.astype(jnp.float32), 0))
        index = message.contribution['index'] + mask
        return message._replace(contribution={**message.contribution, 'index': index})

    protection = Protection(
        lambda: jnp.int32(0), client, lambda state, message, key: (message, state + 1),
        lambda s: s, lambda *_: {},
    )
    mesh = client_mesh(2)
    data_C = pad_clients(cells, C)
    masked, plain = (
        run(make_rounds(dice(), mesh, 'map', p), start(dice(), mesh, data_C, p), 0, 3)[0][0][0]
        for p in (protection, nothing())
    )
    np.testing.assert_array_equal(masked.shared['index'], plain.shared['index'])
    assert masked.protection == 3 and plain.protection == ()


@pytest.mark.parametrize('num_devices', [1, 4])
def test_a_gathered_round_shows_each_message_and_sums_to_the_same(cells, num_devices):
    mesh, data_C = client_mesh(num_devices), pad_clients(cells, C)
    [(expected, kept)], metrics = run(
        make_rounds(dice(), mesh, 'map'), start(dice(), mesh, data_C), 0, 2
    )

    def server(state, message, key):
        assert all(len(x) == C for x in jax.tree.leaves(message))
        return message, state

    looking = nothing()._replace(server=server)
    rounds = make_rounds(dice(), mesh, '2', looking, gathered=True)
    [(state, private_C)], metrics_too = run(rounds, start(dice(), mesh, data_C), 0, 2)
    assert_close(state.shared, expected.shared)
    assert_same(private_C, kept)
    assert_close(metrics, metrics_too)


def test_an_algorithm_that_is_not_sum_only_meets_every_contribution(cells):
    """The median over clients, which no sum gives; padding's are exact zeros."""

    def median(state, contribution_C):
        mean_Cx3 = contribution_C['mean'][:5]
        return state._replace(shared={**state.shared, 'mean': jnp.median(mean_Cx3, 0)})

    algorithm = dice()._replace(server_update=median, sum_only=False)
    mesh = client_mesh(2)
    [(state, _)], _ = run(
        make_rounds(algorithm, mesh, 'map'), start(algorithm, mesh, pad_clients(cells, C)), 0, 1
    )
    means = []
    for i in range(5):
        noise = jax.random.normal(stream(address(KEY, 'client', 0, i), 'noise'), (3,))
        means.append(cells.image[i].astype(np.float32).mean((0, 1, 2)) * noise)
    np.testing.assert_allclose(state.shared['mean'], np.median(means, 0), rtol=1e-4)
