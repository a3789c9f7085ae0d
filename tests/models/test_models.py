"""The backbones: their shapes, and the layer names by which the generator finds its targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fedgen_jax.hypernet.generator import mode_of, shapes_of
from fedgen_jax.models import CNN, MODELS, ResNet

SMALL = {
    'cnn': {'widths': (8,), 'depth': 2},
    'resnet': {'widths': (8, 16), 'depth': 1},
    'unet': {'widths': (8, 16), 'depth': 1},
    'detector': {'widths': (8, 16), 'depth': 1},
    'efficientnet_lite0': {'widths': (8, 8, 8), 'repeats': (1, 1, 1)},
    'efficientnet_lite0_unet': {'widths': (8,) * 7, 'repeats': (1,) * 7, 'up': (8,) * 5},
    'efficientnet_lite0_detector': {'widths': (8,) * 7, 'repeats': (1,) * 7, 'up': (8,) * 3},
}
LARGER = ('efficientnet_lite0_unet', 'efficientnet_lite0_detector')  # they halve five times
OUT = {
    'cnn': (), 'resnet': (), 'unet': (16, 16), 'detector': (4, 4), 'efficientnet_lite0': (),
    'efficientnet_lite0_unet': (32, 32), 'efficientnet_lite0_detector': (8, 8),
}
DEEP = ('resnet', 'efficientnet_lite0')
X = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))


@pytest.mark.parametrize(
    ('name', 'norm'),
    [
        ('cnn', 'group'), ('cnn', 'batch'), ('cnn', 'instance'), ('resnet', 'batch'),
        ('unet', 'group'), ('unet', 'batch'), ('detector', 'group'), ('detector', 'batch'),
        ('efficientnet_lite0', 'group'), ('efficientnet_lite0', 'batch'),
        pytest.param('efficientnet_lite0_unet', 'batch', marks=pytest.mark.extended),
        pytest.param('efficientnet_lite0_detector', 'batch', marks=pytest.mark.extended),
    ],
)
def test_every_norm_runs_and_is_named_for_the_generator(name, norm):
    model = MODELS[name](5, norm=norm, **SMALL[name])
    logits, variables = jax.jit(lambda k, x: model.init_with_output(k, x, train=True))(
        jax.random.key(1), jnp.tile(X[:2], (1, 2, 2, 1)) if name in LARGER else X
    )
    assert logits.shape[1:] == (*OUT[name], 5) and logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert ('batch_stats' in variables) == (norm == 'batch')

    modes = {path: mode_of(role, ('input', 'film', 'lowrank', 'head'))
             for path, _, role in shapes_of(variables['params'])}
    assert None not in modes.values()  # nothing of a model is out of the generator's reach
    assert {p[-1] for p, m in modes.items() if m == 'film'} == {'scale', 'bias'}
    assert {p[-1] for p, m in modes.items() if m == 'lowrank'} == {'kernel'}
    assert {p for p, m in modes.items() if m == 'head'} == {('head', 'kernel'), ('head', 'bias')}
    assert {p[0] for p, m in modes.items() if m == 'input'} == {'input'}


@pytest.mark.parametrize('norm', ['group', 'instance'])
def test_without_batch_norm_an_image_s_output_ignores_the_others(norm):
    model = CNN(5, norm=norm, **SMALL['cnn'])
    variables = jax.jit(model.init)(jax.random.key(1), X)
    apply = jax.jit(lambda x: model.apply(variables, x, train=True))
    together = apply(X)
    apart = apply(jnp.concatenate([X[:1], jnp.ones_like(X[1:])]))
    np.testing.assert_allclose(together[0], apart[0], atol=1e-5)
    assert np.abs(together[1] - apart[1]).max() > 1e-3


def test_batch_norm_in_training_uses_the_batch_and_leaves_its_statistics():
    model = CNN(5, norm='batch', **SMALL['cnn'])
    variables = jax.jit(model.init)(jax.random.key(1), X)
    train = jax.jit(lambda v: model.apply(v, X, train=True, mutable=['batch_stats']))
    score = jax.jit(lambda v: model.apply(v, X, train=False))
    trained, new = train(variables)
    # No memory of earlier batches: scored with what it left, the batch scores as in training.
    np.testing.assert_allclose(score({**variables, **new}), trained, atol=1e-4)
    assert np.abs(score(variables) - trained).max() > 1e-3


def test_resnet_18_has_11_2_million_weights():
    shapes = jax.eval_shape(ResNet(5).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    count = sum(x.size for x in jax.tree.leaves(shapes['params']))
    assert count == pytest.approx(11.2e6, rel=0.005)


@pytest.mark.parametrize('name', ['unet', 'detector'])
def test_outputs_lie_where_the_image_changed(name):
    model = MODELS[name](5, widths=(8, 8, 8), norm='group', standardize='none')
    x = jnp.zeros((1, 64, 64, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    apply = jax.jit(lambda x: model.apply(variables, x))
    change = np.abs(apply(x.at[:, 8:12, 40:44].set(1.0)) - apply(x)).max(-1)[0]
    row, col = np.unravel_index(change.argmax(), change.shape)
    cell = 64 // change.shape[0]
    assert abs(row * cell - 10) <= 12 and abs(col * cell - 42) <= 12


def test_sizes_that_do_not_halve_are_named():
    model = MODELS['unet'](3, widths=(8, 8, 8))
    with pytest.raises(ValueError, match='data.image_size=30: .* multiple of 4'):
        model.init(jax.random.key(0), jnp.zeros((1, 30, 30, 3)))


def test_a_detector_of_one_level_is_refused():
    model = MODELS['detector'](7, widths=(8,))
    with pytest.raises(ValueError, match='model.widths=.* at least 2 levels'):
        model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_a_detector_starts_with_little_heat():
    model = MODELS['detector'](7, **SMALL['detector'])
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    out, _ = jax.jit(lambda k: model.init_with_output(k, x))(jax.random.key(1))
    assert jax.nn.sigmoid(out[..., :3]).mean() < 0.2


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.extended) if name in DEEP else name
    for name in MODELS if name not in LARGER
])
def test_bfloat16_products_have_float32_weights_outputs_and_gradients(name):
    with jax.numpy_dtype_promotion('standard'):  # Flax's normalizations promote
        check_bfloat16(name)


def check_bfloat16(name):
    x = jnp.tile(X, (1, 2, 2, 1))
    full, half = (MODELS[name](5, norm='batch', dtype=d, **SMALL[name])
                  for d in ('float32', 'bfloat16'))
    variables = jax.jit(lambda k: half.init(k, x, train=True))(jax.random.key(1))
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    head = variables['params']['head']
    if not head['kernel'].any():  # nothing would reach the rest
        head['kernel'] = 0.05 * jax.random.normal(jax.random.key(2), head['kernel'].shape)

    def loss(params, model):
        out, new = model.apply({'params': params}, x, train=True, mutable=['batch_stats'])
        assert out.dtype == jnp.float32
        assert {a.dtype for a in jax.tree.leaves(new)} == {jnp.dtype('float32')}
        return jnp.mean((out - 1) ** 2)

    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    a, grads = step(variables['params'], full)
    b, half_grads = step(variables['params'], half)
    assert a != b and b == pytest.approx(float(a), rel=0.05)
    assert {h.dtype for h in jax.tree.leaves(half_grads)} == {jnp.dtype('float32')}
    share = 0.2
    if name == 'efficientnet_lite0':
        # ReLU6 ends on both sides: rounding the image alone moves gradients by 0.2 in float32, and
        # that of the magnification, a small sum of large terms, by more.
        share, (grads, half_grads) = 0.5, map(head_and_rest, (grads, half_grads))
    for g, h in zip(jax.tree.leaves(grads), jax.tree.leaves(half_grads)):
        assert np.linalg.norm(g - h) <= share * np.linalg.norm(g) + 1e-4


def head_and_rest(tree):
    rest = {k: v for k, v in tree.items() if k != 'head'}
    return ravel_pytree(tree['head'])[0], ravel_pytree(rest)[0]


def test_an_unknown_type_is_one_line():
    with pytest.raises(ValueError, match="model.dtype='float16': one of"):
        CNN(5, dtype='float16').init(jax.random.key(0), X)
