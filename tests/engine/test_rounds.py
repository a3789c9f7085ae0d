"""Rounds: the same on any devices and any `client_map`, compiled once, summing and nothing else."""

import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.local import batch_loss, draw_indices, query_batch, weigh
from fedgen_jax.engine.rounds import (
    client_mesh,
    init_run,
    make_rounds,
    pad_clients,
    shard_clients,
    suitable_devices,
)
from fedgen_jax.privacy import Protection, nothing
from fedgen_jax.program import make_algorithm, num_bytes
from fedgen_jax.random import address, stream
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


# ------------------------------------------------------------------ what the engine itself promises


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
    )  # fmt: skip


@pytest.mark.parametrize(
    ('clients', 'padded', 'num'),
    [(1, True, 1), (6, True, 1), (20, True, 5), (64, True, 8), (10_000, True, 8),
     (20, False, 5), (256, False, 8), (55, False, 5), (99, False, 3)],
)  # fmt: skip
def test_many_clients_take_a_cpu_s_cores_as_devices(clients, padded, num):
    """On the eight of these tests."""
    assert suitable_devices(clients, padded) == num


def roll(cells, num_devices, client_map):
    mesh = client_mesh(num_devices)
    rounds = make_rounds(dice(), mesh, client_map)
    return run(rounds, start(dice(), mesh, pad_clients(cells, C)), 0, 3)


@pytest.fixture(scope='module')
def rolled(cells):
    return roll(cells, 1, 'map')


@pytest.mark.parametrize(
    ('num_devices', 'client_map'),
    [(1, 'vmap'), (1, '3'), (2, 'map'), (2, '2'), (2, '3'), (4, 'map'), (4, 'vmap')],
)
def test_draws_are_identical_on_any_devices_and_map(cells, rolled, num_devices, client_map):
    ([(state, private_C)], metrics), ([(state_1, private_1)], metrics_1) = (
        roll(cells, num_devices, client_map), rolled,
    )  # fmt: skip
    assert_same(private_C, private_1)
    for name in ('noise', 'index'):
        np.testing.assert_array_equal(state.shared[name], state_1.shared[name])
    assert_close(state.shared['mean'], state_1.shared['mean'])
    assert_close(metrics, metrics_1)


def test_padding_clients_add_exactly_nothing(cells, rolled):
    ([(state, _)], metrics) = rolled
    assert not state.shared['noise'][5:].any() and state.shared['noise'][:5].all()
    assert np.isfinite(state.shared['mean']).all()  # theirs was 0 / 0
    assert metrics['loss'] == pytest.approx(np.arange(5).mean())  # and they are not in the mean
    mesh = client_mesh(1)
    [(unpadded, _)], _ = run(make_rounds(dice(), mesh, 'map'), start(dice(), mesh, cells), 0, 3)
    np.testing.assert_array_equal(unpadded.shared['noise'], state.shared['noise'])
    assert_close(unpadded.shared['mean'], state.shared['mean'])


@pytest.mark.parametrize('where', ['contribution', 'private', 'loss'])
def test_a_client_that_is_not_finite_is_left_out_and_counted(cells, where):
    bad, sick_round = 2, 1

    def broken(shared, private, data, key):
        contribution, new, metrics = dice().client_update(shared, private, data, key)
        sick = (private['id'] == bad) & (shared['round'] == sick_round)
        ill = jnp.where(sick, jnp.nan if where != 'loss' else jnp.inf, 0.0)
        if where == 'contribution':
            contribution = {**contribution, 'mean': contribution['mean'] + ill}
        if where == 'private':
            new = {**new, 'noise': new['noise'] + ill}
        return contribution, new, {'loss': metrics['loss'] + ill if where == 'loss' else 0.0 * ill}

    def counted(algorithm):
        """The same, with the round in what the server sends."""
        init = algorithm.init
        return algorithm._replace(
            init=lambda key: State({**init(key).shared, 'round': jnp.int32(0)}, ()),
            client_update=broken,
            server_update=lambda state, total: state._replace(
                shared={**{k: 0.5 * state.shared[k] + t for k, t in total.items()},
                        'round': state.shared['round'] + 1},
            ),
        )

    mesh = client_mesh(2)
    algorithm = counted(dice())
    rounds = make_rounds(algorithm, mesh, 'map')
    data_C = pad_clients(cells, C)
    states, metrics = run(rounds, start(algorithm, mesh, data_C), 0, sick_round)
    (state, private_C), *_ = states
    assert metrics['left_out'] == 0
    states, metrics = run(rounds, start(algorithm, mesh, data_C), 0, 3)
    assert metrics['left_out'] == 1 and metrics['left_out_share'] == pytest.approx(1 / 5)
    assert np.isfinite(metrics['loss'])
    after, private_after = states[0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    # It added nothing in its sick round: what is left is of rounds 0 and 2, with 1/4 and 1 (its
    # row of `noise` decays by half a round).
    healthy, _ = run(make_rounds(dice(), mesh, 'map'), start(dice(), mesh, data_C), 0, 3)
    missing = healthy[0][0].shared['noise'] - after.shared['noise']
    assert np.abs(missing[bad]).max() > 1e-3 and np.abs(np.delete(missing, bad, 0)).max() == 0


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
    )  # fmt: skip
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


@pytest.mark.real
def test_real_images_are_summed_as_drawn_ones(real_cells):
    expected = roll(real_cells, 1, 'map')
    ([(state, private_C)], metrics) = roll(real_cells, 4, 'vmap')
    ([(state_1, private_1)], metrics_1) = expected
    assert_same(private_C, private_1)
    assert_close((state.shared, metrics), (state_1.shared, metrics_1))


# ------------------------------------------------------------------------ with learning algorithms


@pytest.fixture(scope='module')
def fedgen_4(tiny, cells):
    """FedGen on four devices: (rounds, fresh start)."""
    algorithm, _ = make_algorithm(tiny({'shifts.acquisition': 0.0}), 16, 'abcde', 5)
    mesh = client_mesh(4)
    return make_rounds(algorithm, mesh), lambda: start(algorithm, mesh, pad_clients(cells, C))


def test_one_compilation_serves_a_run_and_dispatches_are_equal_to_the_bit(fedgen_4):
    rounds, begin = fedgen_4
    one_by_one, _ = run(rounds, begin(), 0, 1, 2, 3, 4)
    together, _ = run(rounds, begin(), 0, 3, 4)
    assert_same(one_by_one[2], together[0])
    assert_same(one_by_one[3], together[1])
    assert rounds._cache_size() == 1
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one_by_one[0][0].shared['phi'],
                         one_by_one[3][0].shared['phi'])  # fmt: skip
    assert max(jax.tree.leaves(moved)) > 0


def test_buffers_are_donated_and_do_not_pile_up(fedgen_4):
    rounds, begin = fedgen_4
    state, private_C, data_C, id_C = begin()
    held = []
    gc.collect()
    for r in range(4):
        old = jax.tree.leaves((state, private_C))
        state, private_C, metrics = rounds(
            state, private_C, data_C, id_C, KEY, np.int32(r), np.int32(r + 1)
        )
        assert all(x.is_deleted() for x in old)
        assert not any(x.is_deleted() for x in jax.tree.leaves((data_C, id_C)))
        jax.block_until_ready(metrics)
        del old
        held.append(sum(x.nbytes for x in jax.live_arrays()))
    assert held[1] == held[2] == held[3]


def collectives(rounds, started):
    """(kinds of collectives, bytes all-reduced a device and round) of the compiled rounds."""
    text = rounds.lower(*started, KEY, np.int32(0), np.int32(1)).compile().as_text()
    kinds = set(re.findall(
        r'(all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|all-reduce)'
        r'(?:-start)?\(', text,
    ))  # fmt: skip
    total = 0
    for result in re.findall(r'= (.*?) all-reduce(?:-start)?\(', text):
        for shape in re.findall(r'(?:f32|s32|u32)\[([\d,]*)\]', result):
            total += 4 * int(np.prod([int(n) for n in shape.split(',') if n]))
    return kinds, total


def test_only_sums_cross_devices(fedgen_4):
    rounds, begin = fedgen_4
    assert collectives(rounds, begin())[0] == {'all-reduce'}


@pytest.mark.parametrize('num_devices', [2, 4, 8])
def test_what_crosses_devices_is_one_contribution(tiny, cells, num_devices):
    """However many devices, clients and examples there are: no client's data travel."""
    algorithm, _ = make_algorithm(
        tiny({'algorithm': 'fedavg', 'shifts.acquisition': 0.0, 'shifts.flips': False,
              'shifts.turns': False}),
        16, 'abcde', 5,
    )
    mesh = client_mesh(num_devices)
    more = jax.tree.map(lambda x: np.concatenate([x, x, x], 1), pad_clients(cells, 16))  # C and N
    for data_C in (pad_clients(cells, C), more):
        started = start(algorithm, mesh, data_C)
        kinds, total = collectives(make_rounds(algorithm, mesh), started)
        one = jax.tree.map(lambda x: x[0], (started[1], started[2]))
        contribution = jax.eval_shape(algorithm.client_update, started[0].shared, *one, KEY)[0]
        assert kinds == {'all-reduce'}
        # And the loss, who was there, and who was left out.
        assert total == num_bytes(contribution) + 12


@pytest.fixture(scope='module')
def fedavg_shifted(tiny, cells):
    """FedAvg with every shift on: (algorithm, local, rounds on one device)."""
    algorithm, local = make_algorithm(tiny({'algorithm': 'fedavg'}), 16, 'abcde', 5)
    return algorithm, local, make_rounds(algorithm, client_mesh(1), 'map')


def test_devices_and_maps_agree_when_learning(fedavg_shifted, cells):
    algorithm, _, rounds_1 = fedavg_shifted
    data_C = pad_clients(cells, C)
    mesh = client_mesh(4)
    rounds_4 = make_rounds(algorithm, mesh, 'vmap')
    [(state_1, _)], metrics_1 = run(rounds_1, start(algorithm, client_mesh(1), data_C), 0, 1)
    [(state_4, _)], metrics_4 = run(rounds_4, start(algorithm, mesh, data_C), 0, 1)
    # T steps of training on sums in another order: a little above one sum's rounding.
    assert_close(state_1.shared, state_4.shared, 3e-5)
    assert_close(metrics_1, metrics_4)


def test_fedavg_of_one_client_is_plain_sgd(fedavg_shifted, cells):
    algorithm, local, rounds = fedavg_shifted
    alone = cells._replace(weight=cells.weight * (np.arange(5) == 2)[:, None].astype(np.float32))
    started = start(algorithm, client_mesh(1), pad_clients(alone, C))
    theta = jax.tree.map(jnp.copy, started[0].shared['theta'])
    data = jax.tree.map(lambda x: jnp.asarray(x[2]), alone)

    @jax.jit
    def gradient(theta, key):
        batch, _ = query_batch(local, data, key)
        return jax.grad(lambda p: batch_loss(local, p, batch)[0])(theta)

    sgd = optax.sgd(0.05, momentum=0.9)
    for r in range(2):
        moments = sgd.init(theta)
        key = stream(address(KEY, 'client', r, 2), 'learn')
        for t in range(local.steps):
            updates, moments = sgd.update(gradient(theta, jax.random.fold_in(key, t)), moments)
            theta = optax.apply_updates(theta, updates)
    [(state, _)], _ = run(rounds, started, 0, 2)
    assert_close(state.shared['theta'], jax.device_get(theta), 2e-5)


@pytest.mark.parametrize('local_update', ['meta', 'weights'])
def test_fedgen_without_generator_is_fedavg_to_the_bit(fedavg_shifted, tiny, cells, local_update):
    algorithm, _, rounds = fedavg_shifted
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    [(expected, _)], metrics_avg = run(rounds, start(algorithm, mesh, data_C), 0, 2)
    changes = {'fedgen.local': local_update, 'fedgen.modes': ()}
    off, _ = make_algorithm(tiny(changes), 16, 'abcde', 5)
    [(actual, _)], metrics = run(make_rounds(off, mesh, 'map'), start(off, mesh, data_C), 0, 2)
    assert_same(actual.shared['theta'], expected.shared['theta'])
    assert not jax.tree.leaves((actual.shared['phi'], actual.shared['psi']))
    assert_same(metrics, metrics_avg)
