"""What of EfficientNet-Lite0 learns, and what of its sizes and maps is as published."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.hypernet.generator import shapes_of
from fedgen_jax.models import MODELS
from fedgen_jax.models.roles import frozen_of

NAMES = [name for name in MODELS if name.startswith('efficientnet')]


@functools.cache
def shapes(name):
    """{path: shape} of a network's weights."""
    blank = jnp.zeros((1, 32, 32, 3))
    found = jax.eval_shape(MODELS[name](5).init, jax.random.key(0), blank)['params']
    return {path: shape for path, shape, _ in shapes_of(found)}


def test_the_original_has_4_65_million_weights():
    own = {p: shape for p, shape in shapes('efficientnet_lite0').items()
           if p[0] not in ('input', 'norm_means')}
    assert own.pop(('head', 'kernel')) == (24 + 40 + 80 + 112 + 192 + 1280, 5)
    assert own.pop(('head', 'bias')) == (5,)
    trunk = sum(int(np.prod(shape)) for shape in own.values())
    assert trunk + 1280 * 1000 + 1000 == 4652008  # with the original's head


@pytest.mark.parametrize('name', NAMES)
def test_trained_says_what_is_frozen(name):
    paths = set(shapes(name))

    def frozen(trained):
        return set(filter(frozen_of(MODELS[name](5, trained=trained)), paths))

    trunk = {p for p in paths if p[0] in ('input', 'trunk', 'conv_end', 'norm_end')}
    depthwise = {p for p in paths if 'conv_depthwise' in p}
    kernels = {p for p in trunk if p[-1] == 'kernel' and p[0] != 'input'}
    assert len(depthwise) == 16
    assert frozen('all') == set()
    assert frozen('pointwise') == depthwise
    assert frozen('adapters') == kernels > depthwise
    assert frozen('head') == trunk > kernels


def test_instance_normalization_is_refused():
    model, blank = MODELS['efficientnet_lite0'](5, norm='instance'), jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match="model.norm='instance': one of batch, group"):
        model.init(jax.random.key(0), blank)


def test_an_unknown_value_is_one_line():
    with pytest.raises(ValueError, match="model.trained='none': one of all, pointwise") as error:
        frozen_of(MODELS['efficientnet_lite0'](5, trained='none'))(('head', 'kernel'))
    assert '\n' not in str(error.value)
