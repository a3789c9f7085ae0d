"""Rounds: the same on any devices and any `client_map`, compiled once, summing and nothing else."""

import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rolling import KEY, C, assert_close, assert_same, dice, roll, run, start

from fedgen_jax.algorithms.base import State
from fedgen_jax.algorithms.local import batch_loss, query_batch
from fedgen_jax.engine.rounds import (
    client_mesh,
    make_rounds,
    pad_clients,
    suitable_devices,
)
from fedgen_jax.program import make_algorithm, num_bytes
from fedgen_jax.random import address, stream

# ------------------------------------------------------------------ what the engine itself promises


@pytest.mark.parametrize(
    ('clients', 'padded', 'num'),
    [(1, True, 1), (6, True, 1), (20, True, 5), (64, True, 8), (10_000, True, 8),
     (20, False, 5), (256, False, 8), (55, False, 5), (99, False, 3)],
)
def test_many_clients_take_a_cpu_s_cores_as_devices(clients, padded, num):
    """On the eight of these tests."""
    assert suitable_devices(clients, padded) == num


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
    )
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
                         one_by_one[3][0].shared['phi'])
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
    ))
    total = 0
    for result in re.findall(r'= (.*?) all-reduce(?:-start)?\(', text):
        for shape in re.findall(r'(?:f32|s32|u32)\[([\d,]*)\]', result):
            total += 4 * int(np.prod([int(n) for n in shape.split(',') if n]))
    return kinds, total


def test_only_sums_cross_devices(fedgen_4):
    rounds, begin = fedgen_4
    assert collectives(rounds, begin())[0] == {'all-reduce'}


@pytest.mark.parametrize(
    'num_devices', [4, *(pytest.param(x, marks=pytest.mark.extended) for x in (2, 8))]
)
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
    changes = {'fedgen.theta': 'joint', 'fedgen.local': local_update, 'fedgen.modes': ()}
    off, _ = make_algorithm(tiny(changes), 16, 'abcde', 5)
    [(actual, _)], metrics = run(make_rounds(off, mesh, 'map'), start(off, mesh, data_C), 0, 2)
    assert_same(actual.shared['theta'], expected.shared['theta'])
    assert not jax.tree.leaves((actual.shared['phi'], actual.shared['psi']))
    assert_same(metrics, metrics_avg)
