"""Words sum as the numbers do, and a number that could leave its word is an error."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.privacy.encode import decode, encode


def trees(clients, scale=1.0):
    rng = np.random.default_rng(0)
    return [
        {'a': (scale * rng.normal(size=(3, 5))).astype(np.float32),
         'b': {'count': np.int32(rng.integers(-9, 9)), 'half': rng.normal(size=2)}}
        for _ in range(clients)
    ]


@pytest.mark.parametrize('word', [32, 64])
@pytest.mark.parametrize('clients', [3, 7, 100])
@pytest.mark.parametrize('bits', [4, 16, 20])
def test_a_sum_of_words_is_the_sum_of_numbers(word, clients, bits):
    sent = trees(clients)
    total = np.sum([encode(t, bits, word, clients) for t in sent], axis=0,
                   dtype=np.dtype(f'uint{word}'))
    back = decode(total, sent[0], bits)
    bound = clients * 2.0 ** -(bits + 1)
    for name, x in (('a', back['a']), ('half', back['b']['half'])):
        exact = sum((t[name] if name == 'a' else t['b'][name]).astype(float) for t in sent)
        assert x.dtype == (np.float32 if name == 'a' else np.float64)
        error = np.abs(x - exact).max()
        assert error <= bound + 1e-6 * np.abs(exact).max()
        assert bits > 4 or error > bound / 100  # rounded indeed
    assert back['b']['count'] == sum(t['b']['count'] for t in sent)  # whole numbers exactly
    assert back['b']['count'].dtype == np.int32


def test_what_a_float32_holds_in_fixed_point_comes_back_to_the_bit():
    x = {'x': np.float32([1.5, -0.25, 2.0**-16, 0, -327.0])}
    np.testing.assert_array_equal(decode(encode(x, 16, 32, 100), x, 16)['x'], x['x'])
    jnp_x = {'x': jnp.asarray(x['x'])}
    np.testing.assert_array_equal(encode(jnp_x, 16, 32, 100), encode(x, 16, 32, 100))
    assert encode({}, 16, 32, 3).size == 0 and decode(np.zeros(0, np.uint32), {}, 16) == {}


@pytest.mark.parametrize('word', [32, 64])
def test_the_largest_number_sums_and_the_next_is_an_error_with_the_leaf_s_name(word):
    clients, bits = 5, 16
    limit = (2 ** (word - 1) - 1) // clients
    for sign in (1, -1):
        tree = {'ok': np.float32(0), 'whole': np.int64(sign * limit)}
        total = clients * encode(tree, bits, word, clients)
        assert decode(total, tree, bits)['whole'] == clients * sign * limit
        with pytest.raises(OverflowError, match=r"\['whole'\].*words of"):
            encode({'whole': np.int64(sign * (limit + 1))}, bits, word, clients)
        above = np.float64(sign * 1.001 * limit / 2**bits)
        with pytest.raises(OverflowError, match=r"\['in'\]\['there'\]"):
            encode({'in': {'there': np.array([0, above])}}, bits, word, clients)
        below = {'x': np.float64(sign * 0.999 * limit / 2**bits)}
        back = decode(clients * encode(below, bits, word, clients), below, bits)
        np.testing.assert_allclose(back['x'], clients * below['x'], rtol=1e-6)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_word(bad):
    with pytest.raises(OverflowError, match='loss'):
        encode({'loss': np.float32([1, bad])}, 16, 32, 3)


def test_other_things_than_numbers_and_other_lengths_are_errors():
    with pytest.raises(TypeError, match='flag'):
        encode({'flag': np.array([True])}, 16, 32, 3)
    with pytest.raises(ValueError, match='3 words for 2 numbers'):
        decode(np.zeros(3, np.uint32), {'x': np.zeros(2, np.float32)}, 16)
