"""A convolution as matrix products is the library's, and so are its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.ops.convolution import MIN_FEATURES, conv_as_matmul, convolution

FEW, MANY = 3, MIN_FEATURES  # by patches, by tiles


def assert_close(expected, actual):
    def one(e, a):
        np.testing.assert_allclose(a, e, atol=2e-6 * float(jnp.abs(e).max()))

    jax.tree.map(one, expected, actual)


@pytest.mark.parametrize(
    ('features', 'window', 'size', 'strides', 'padding'),
    [
        (MANY, 3, (8, 10), (1, 1), 'SAME'),
        (MANY, 3, (7, 9), (1, 1), 'SAME'),
        (MANY, 3, (9, 8), (1, 1), [(2, 1), (0, 3)]),
        (FEW, 3, (8, 9), (1, 1), 'SAME'),
        (FEW, 3, (9, 8), (1, 1), 'SAME'),  # 4 columns at once
        (FEW, 5, (9, 10), (1, 1), 'VALID'),  # 2 columns
        (FEW, 3, (8, 9), (2, 2), 'SAME'),
        (FEW, 3, (7, 10), (2, 2), 'VALID'),
        (FEW, 4, (7, 10), (1, 2), 'SAME'),
        (FEW, 4, (9, 8), (1, 1), 'VALID'),
        (FEW, 7, (9, 8), (2, 2), 'SAME'),
        (FEW, 1, (8, 7), (2, 2), 'SAME'),
        (FEW, 3, (8, 7), (2, 1), [(2, 1), (0, 3)]),
    ],
)
def test_conv_as_matmul_is_the_convolution(features, window, size, strides, padding):
    key_x, key_k, key_y = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (2, *size, features))
    kernel = jax.random.normal(key_k, (window, window, features, features + 2))

    def library(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    def ours(x, kernel):
        return conv_as_matmul(x, kernel, strides, padding)

    @jax.jit
    def both(x, kernel):
        expected, pull_expected = jax.vjp(library, x, kernel)
        actual, pull_actual = jax.vjp(ours, x, kernel)
        y = jax.random.normal(key_y, expected.shape)
        return (expected, pull_expected(y)), (actual, pull_actual(y))

    assert_close(*both(x, kernel))


@pytest.mark.parametrize('features', [FEW, MANY])
def test_many_clients_kernels_at_once_are_each_by_itself(features):
    x = jax.random.normal(jax.random.key(0), (2, 3, 7, 8, features))
    kernel = jax.random.normal(jax.random.key(1), (2, 3, 3, features, features))

    def gradients(x, kernel):
        return jax.grad(lambda *a: (conv_as_matmul(*a, (1, 1), 'SAME') ** 2).sum(), (0, 1))(
            x, kernel
        )

    assert_close(jax.lax.map(lambda a: gradients(*a), (x, kernel)),
                 jax.vmap(gradients)(x, kernel))


def test_conv_as_matmul_refuses_groups_and_dilation():
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 2, 4))
    with pytest.raises(ValueError, match='grouped'):
        conv_as_matmul(x, kernel, (1, 1), 'SAME')
    with pytest.raises(ValueError, match='dilated'):
        conv_as_matmul(x[..., :2], kernel, (1, 1), 'SAME', rhs_dilation=(2, 2))


@pytest.mark.parametrize(
    ('window', 'size', 'strides', 'padding'),
    [
        (3, (8, 7), (1, 1), 'SAME'),
        (5, (7, 8), (1, 1), 'SAME'),
        (5, (3, 2), (1, 1), 'SAME'),  # wider than its input
        (3, (8, 7), (2, 2), 'SAME'),
        (5, (7, 8), (2, 2), 'SAME'),
        (3, (9, 8), (2, 1), 'VALID'),
        (3, (8, 8), (3, 2), [(2, 1), (0, 3)]),
    ],
)
def test_depthwise_is_the_convolution(window, size, strides, padding):
    key_x, key_k, key_y = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (2, *size, 4))
    kernel = jax.random.normal(key_k, (window, window, 1, 4))
    options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': 4}

    @jax.jit
    def both(x, kernel):
        expected, pull_expected = jax.vjp(
            lambda *a: jax.lax.conv_general_dilated(*a, strides, padding, **options), x, kernel
        )
        actual, pull_actual = jax.vjp(
            lambda *a: convolution(*a, strides, padding, **options), x, kernel
        )
        y = jax.random.normal(key_y, expected.shape)
        return (expected, pull_expected(y)), (actual, pull_actual(y))

    assert_close(*both(x, kernel))
    lowered = jax.jit(lambda *a: convolution(*a, strides, padding, **options)).lower(x, kernel)
    assert 'stablehlo.convolution' not in lowered.as_text()


def test_a_dilated_depthwise_convolution_is_refused():
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
    with pytest.raises(ValueError, match='dilated'):
        convolution(x, kernel, (1, 1), 'SAME', feature_group_count=4, rhs_dilation=(2, 2))
