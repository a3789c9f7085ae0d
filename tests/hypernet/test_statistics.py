"""The additive statistic: exact sums, exact removal, and refusals in one line."""

import numpy as np
import pytest

from fedgen_jax.hypernet import descriptor as d

RNG = np.random.default_rng(0)


def vectors(n):
    x = RNG.normal(size=(n, 40)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def of(x, psi='psi'):
    return d.statistic(x, np.ones(len(x)), psi)


def same(a, b):
    return np.array_equal(a.total, b.total) and a[1:] == b[1:]


def test_the_pool_is_the_statistic_of_the_union_in_any_order():
    parts = [vectors(n) for n in (7, 1, 300, 20)]
    whole = of(np.concatenate(parts))
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        assert same(d.pool(of(parts[i]) for i in order), whole)
    assert same(of(RNG.permutation(np.concatenate(parts))), whole)


def test_add_then_remove_is_the_identity():
    a, b = of(vectors(50)), of(vectors(3))
    assert same(d.remove(d.add(a, b), b), a)
    nobody = d.remove(a, a)
    assert nobody.count == 0 and not nobody.total.any()


def test_update_is_the_pool_of_the_new():
    a, b, c, new_b = (of(vectors(n)) for n in (5, 6, 7, 8))
    assert same(d.update(d.pool([a, b, c]), b, new_b), d.pool([a, new_b, c]))


def test_padding_and_order_do_not_matter():
    x = vectors(10)
    padded = np.concatenate([x[::-1], np.full((4, 40), np.nan, np.float32)])
    assert same(d.statistic(padded, np.repeat([1.0, 0.0], [10, 4]), 'psi'), of(x))


def test_one_image_moves_the_sum_by_at_most_one():
    x, extra = vectors(100), vectors(1)
    moved = (of(np.concatenate([x, extra])).total - of(x).total) / d.FIXED_POINT
    assert np.linalg.norm(moved) <= 1 + 40**0.5 * 0.5 / d.FIXED_POINT


def test_the_mean_is_the_descriptor():
    x = vectors(30)
    np.testing.assert_allclose(d.mean(of(x)), x.mean(0), atol=1 / d.FIXED_POINT)
    assert d.mean(of(x)).dtype == np.float32


@pytest.mark.parametrize(
    'mistake',
    [
        lambda a, b: d.add(a, b._replace(psi='other')),
        lambda a, b: d.remove(a, b._replace(psi='other')),
        lambda a, b: d.pool([a, b, b._replace(psi='other')]),
        lambda a, b: d.remove(b, a),
        lambda a, b: d.mean(d.remove(a, a)),
    ],
    ids=['add', 'remove', 'pool', 'more than there is', 'empty'],
)
def test_mistakes_are_one_line(mistake):
    with pytest.raises(ValueError) as error:
        mistake(of(vectors(5)), of(vectors(4)))
    assert '\n' not in str(error.value)


def test_the_hash_tells_networks_apart():
    tree = {'a': np.ones(3, np.float32), 'b': {'c': np.zeros(2, np.float32)}}
    assert d.hash_of(tree) == d.hash_of({'b': {'c': np.zeros(2, np.float32)}, 'a': tree['a']})
    assert d.hash_of(tree) != d.hash_of({**tree, 'a': np.array([1, 1, 1 + 1e-6], np.float32)})
    assert d.hash_of(tree) != d.hash_of({'b': tree['b'], 'c': tree['a']})
