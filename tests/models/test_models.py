"""The backbones: their shapes, and the layer names by which the generator finds its targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.hypernet.generator import mode_of, shapes_of
from fedgen_jax.models import CNN, MODELS, ResNet

SMALL = {
    'cnn': {'widths': (8,), 'depth': 2},
    'resnet': {'widths': (8, 16), 'depth': 1},
}
X = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))


@pytest.mark.parametrize(
    ('name', 'norm'),
    [('cnn', 'group'), ('cnn', 'batch'), ('cnn', 'instance'), ('resnet', 'batch')],
)
def test_every_norm_runs_and_is_named_for_the_generator(name, norm):
    model = MODELS[name](5, norm=norm, **SMALL[name])
    logits, variables = jax.jit(lambda k, x: model.init_with_output(k, x, train=True))(
        jax.random.key(1), X
    )
    assert logits.shape == (4, 5) and logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert ('batch_stats' in variables) == (norm == 'batch')

    modes = {path: mode_of(path, ('input', 'film', 'lowrank', 'head'))
             for path, _ in shapes_of(variables['params'])}  # fmt: skip
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
