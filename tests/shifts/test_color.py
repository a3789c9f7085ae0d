"""Color shifts go in the direction that their arguments say."""

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax import shifts

IMAGE = jax.random.uniform(jax.random.key(0), (16, 16, 3), minval=0.2, maxval=0.8)
KEY = jax.random.key(1)


def apply(shift, image=IMAGE):
    return shift.apply(shift.sample(KEY), KEY, image, {})[0]


def test_gamma_is_the_power_and_darkens_above_one():
    np.testing.assert_allclose(apply(shifts.gamma(2, 2)), IMAGE**2, rtol=1e-5)
    assert (apply(shifts.gamma(1.4, 1.4)) < IMAGE).all()
    assert (apply(shifts.gamma(0.7, 0.7)) > IMAGE).all()


def test_brightness_and_contrast():
    np.testing.assert_allclose(apply(shifts.brightness(0.1, 0.1)), IMAGE + 0.1, rtol=1e-5)
    flat = apply(shifts.contrast(0.5, 0.5))
    np.testing.assert_allclose(flat.std(), 0.5 * IMAGE.std(), rtol=1e-4)
    np.testing.assert_allclose(flat.mean(), IMAGE.mean(), rtol=1e-4)


def test_color_matrix_is_the_matrix_product():
    shift = shifts.color_matrix(0.05, 0.05, 0.02)
    matrix, bias = shift.sample(KEY)
    assert jnp.abs(matrix - jnp.eye(3)).max() <= 0.05
    assert jnp.abs(bias).max() <= 0.02
    expected = np.asarray(IMAGE) @ np.asarray(matrix) + np.asarray(bias)
    np.testing.assert_allclose(apply(shift), expected, rtol=1e-5)


def test_a_stain_changes_along_its_own_color():
    """Twice the hematoxylin: the change of optical density is hematoxylin's own direction."""
    shift = shifts.hed_stain()
    hematoxylin, eosin, _ = np.asarray(shifts.color.HED, np.float32)
    image = jnp.broadcast_to(jnp.exp(-(0.5 * hematoxylin + 0.3 * eosin))[None, None], (2, 2, 3))
    params = jnp.array([2.0, 1.0, 1.0]), jnp.zeros(3)
    out = shift.apply(params, KEY, image, {})[0]
    change = np.asarray(jnp.log(image + 1 / 255) - jnp.log(out + 1 / 255))[0, 0]
    cosine = change @ hematoxylin / np.linalg.norm(change) / np.linalg.norm(hematoxylin)
    assert cosine > 0.999
    np.testing.assert_allclose(np.linalg.norm(change), 0.5, atol=0.02)
