"""Mapping over clients: every way of doing it is the same sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from fedgen_jax.engine.clients import client_map_of, group_size, map_clients
from fedgen_jax.engine.cohorts import cohort
from fedgen_jax.random import address, stream

MAPS = ['map', 'vmap', '2', '3', '7', '100']


@pytest.mark.parametrize('client_map', MAPS)
def test_the_sum_and_what_is_kept(client_map):
    x_Cx3, n_C = jnp.arange(21.0).reshape(7, 3), jnp.arange(7)

    def client(x, n):
        return {'sum': 2 * x, 'count': n}, {'own': x[0], 'key': n + 1}

    summed, kept_C = jax.jit(lambda *args: map_clients(client, client_map, *args))(x_Cx3, n_C)
    np.testing.assert_array_equal(summed['sum'], 2 * x_Cx3.sum(0))  # small integers: exact
    assert summed['count'] == 21 and summed['count'].dtype == n_C.dtype
    np.testing.assert_array_equal(kept_C['own'], x_Cx3[:, 0])
    np.testing.assert_array_equal(kept_C['key'], n_C + 1)


@pytest.mark.parametrize('client_map', ['map', '2'])
def test_memory_does_not_grow_with_clients(client_map):
    """The sum is accumulated group by group: an outer product here is 160 kB, each input 800 B."""

    def temporary(num_clients):
        fn = jax.jit(lambda x: map_clients(lambda x: (jnp.outer(x, x), ()), client_map, x)[0])
        x = jax.ShapeDtypeStruct((num_clients, 200), jnp.float32)
        return fn.lower(x).compile().memory_analysis().temp_size_in_bytes

    assert temporary(32) < temporary(4) + 2 * 32 * 800


@pytest.mark.parametrize('value', ['all', 'auto', '0', '-1', '1.5', ''])
def test_unknown_client_map_is_one_line(value):
    with pytest.raises(ValueError, match='client_map=.*one of') as error:
        group_size(value, 4)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('backend', 'pixels', 'trained', 'expected'), [
    ('cpu', 28, 'all', 'map'), ('gpu', 28, 'all', 'vmap'), ('gpu', 96, 'all', 'map'),
    ('gpu', 96, 'head', 'vmap'), ('gpu', 96, 'pointwise', 'map'), ('cpu', 96, 'head', 'map'),
])
def test_auto_groups_no_convolutions(monkeypatch, backend, pixels, trained, expected):
    """On an accelerator clients run at once where their kernels are one, or images are small."""
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    model = {'name': 'resnet', **({} if trained == 'all' else {'trained': trained})}
    c = ConfigDict({'client_map': 'auto', 'model': model})
    assert client_map_of(c, pixels) == expected
    c.client_map = '3'
    assert client_map_of(c, pixels) == '3'


def test_every_draw_has_its_own_address():
    key = jax.random.key(0)
    keys = [
        jax.random.key_data(address(key, name, r, c)).tolist()
        for name in ('client', 'cohort', 'init') for r in (0, 1, 2) for c in (0, 1, 2)
    ]
    assert len({tuple(k) for k in keys}) == len(keys)
    assert jax.random.key_data(stream(key, 'shift')).tolist() != (
        jax.random.key_data(stream(key, 'query')).tolist()
    )


def test_a_cohort_is_a_pure_function_of_key_and_round():
    key = jax.random.key(3)
    cohorts = [cohort(key, r, 10, 4) for r in range(40)]
    for r, chosen in enumerate(cohorts):
        assert len(chosen) == 4 and (np.diff(chosen) > 0).all()  # sorted, without repeats
        assert chosen.min() >= 0 and chosen.max() < 10
        np.testing.assert_array_equal(cohort(key, r, 10, 4), chosen)
    assert len({tuple(c) for c in cohorts}) > 30
    share = np.bincount(np.concatenate(cohorts), minlength=10) / 40
    assert share.min() > 0.15 and share.max() < 0.65  # everyone's turn comes: 0.4 expected
    np.testing.assert_array_equal(cohort(key, 0, 10, 10), np.arange(10))
    assert any((cohort(jax.random.key(4), r, 10, 4) != c).any() for r, c in enumerate(cohorts))
