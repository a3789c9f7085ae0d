"""The models' pieces: equal to the library's own where it has them, and neutral at the start."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.models.layers import Input, magnify, max_pool_2x2, max_pool_3x3, norm


@pytest.mark.parametrize('size', [(8, 8), (7, 10)])
def test_max_pool_is_the_library_s_and_so_is_its_gradient(size):
    x = jax.random.normal(jax.random.key(1), (2, *size, 3))
    expected, pull_expected = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
    actual, pull_actual = jax.vjp(max_pool_2x2, x)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(pull_actual(expected)[0], pull_expected(expected)[0])


@pytest.mark.parametrize('size', [(8, 8), (7, 10)])
def test_overlapping_max_pool_is_the_library_s_and_so_is_its_gradient(size):
    x = jax.random.normal(jax.random.key(1), (2, *size, 3))
    expected, pull_expected = jax.vjp(
        lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x
    )
    actual, pull_actual = jax.vjp(max_pool_3x3, x)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_allclose(pull_actual(expected)[0], pull_expected(expected)[0], atol=1e-6)


def test_equal_maxima_share_the_gradient():
    x = jnp.array([[1.0, 2.0], [2.0, 2.0]])[None, :, :, None]
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(x)[0, :, :, 0]
    np.testing.assert_allclose(gradient, [[0, 1 / 3], [1 / 3, 1 / 3]])


def test_magnify_at_one_is_the_identity():
    x = jax.random.uniform(jax.random.key(2), (2, 9, 12, 3))
    np.testing.assert_allclose(magnify(x, jnp.float32(1)), x, atol=1e-6)


def test_magnify_doubles_a_centered_square():
    x = jnp.zeros((1, 24, 24, 1)).at[:, 8:16, 8:16].set(1.0)
    rows, cols = (np.asarray(magnify(x, jnp.float32(2)))[0, :, :, 0].sum(a) for a in (0, 1))
    assert 15 <= (rows > 0).sum() <= 18 and 15 <= (cols > 0).sum() <= 18
    assert magnify(x, jnp.float32(2)).sum() == pytest.approx(4 * 64, rel=0.05)
    assert magnify(x, jnp.float32(0.5)).sum() == pytest.approx(64 / 4, rel=0.05)


def test_magnify_s_gradient_is_the_slope():
    y, x = jnp.mgrid[0:20, 0:20] / 19
    image = (jnp.sin(4 * x) * jnp.cos(3 * y))[None, :, :, None]
    weight = jax.random.normal(jax.random.key(3), image.shape)

    @jax.jit
    def f(zoom):
        return jnp.sum(weight * magnify(image, zoom))

    zoom, step = jnp.float32(1.137), jnp.float32(1e-3)
    slope = (f(zoom + step) - f(zoom - step)) / (2 * step)
    assert jax.grad(f)(zoom) == pytest.approx(float(slope), rel=0.02)


@pytest.mark.parametrize('axis', ['none', 'image', 'channel'])
def test_input_starts_as_the_identity_after_standardization(axis):
    x = jax.random.uniform(jax.random.key(4), (3, 10, 10, 3)) * jnp.array([[[[1.0, 0.5, 0.2]]]])
    y, params = Input(axis).init_with_output(jax.random.key(0), x)
    assert set(params['params']) == {'kernel', 'bias', 'log_zoom'}
    if axis == 'none':
        np.testing.assert_allclose(y, x - 0.5, atol=1e-6)
        return
    axes = {'image': (1, 2, 3), 'channel': (1, 2)}[axis]
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axes), 1, atol=0.05)


def test_input_survives_a_blank_image():
    y, _ = Input('channel').init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    np.testing.assert_allclose(y, 0, atol=1e-5)


def test_unknown_values_are_one_line():
    with pytest.raises(ValueError, match="model.norm='layer': one of") as error:
        norm('layer', True, 'norm_0')
    assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match="model.standardize='pixel': one of") as error:
        Input('pixel').init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert '\n' not in str(error.value)
