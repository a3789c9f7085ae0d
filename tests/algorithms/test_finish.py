"""Statistics of finished models, the class mix that they are of, and the prior in the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.algorithms.draws import class_shares, images_of
from fedgen_jax.algorithms.finish import finish, learn_alone
from fedgen_jax.algorithms.learning import Learning, learn
from fedgen_jax.algorithms.local import (
    Local,
    Steps,
    apply_model,
    batch_at,
    batch_loss,
    center_statistics,
    init_model,
    task_gradient,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.models import CNN
from fedgen_jax.shifts import chain
from fedgen_jax.tasks import classification

STEPS = Steps(3, optax.sgd(0.1))
KEY = jax.random.key(0)
LAST = 'last_features'


def local(**changes):
    fields = {
        'model': CNN(3, widths=(8,), norm='batch', last='batch'), 'task': classification('abc'),
        'image_size': 16, 'plain': chain(), 'shift': chain(), 'optimizer': optax.sgd(0.1),
        'schedule': lambda round_: 1.0, 'steps': 2, 'batch': 4, 'prevalence': 'natural',
        'weighting': 'examples', 'finetune': STEPS, 'alone': STEPS, 'oracle': STEPS, **changes,
    }
    return Local(**fields)


@functools.cache
def variables():
    return jax.jit(local().model.init)(KEY, jnp.zeros((1, 16, 16, 3)))


def gray(levels, noise=8):
    """Images of one gray level each, with a little noise."""
    rng = np.random.default_rng(0)
    grain = rng.integers(-noise, noise, (len(levels), 16, 16, 3))
    image = np.array(levels)[:, None, None, None] + grain
    return Examples(image.astype(np.uint8), {'label': np.zeros(len(levels), np.int32)},
                    np.ones(len(levels), np.float32))


def test_last_statistics_are_the_center_s_own_and_the_others_training_s():
    v, data = variables(), gray([40, 90, 200, 120] * 8)
    done = jax.jit(functools.partial(finish, local(statistics='last')))(
        v['params'], data, None, KEY, v['batch_stats']
    )['batch_stats']
    for name, kept in v['batch_stats'].items():
        same = jax.tree.map(np.array_equal, done[name], kept)
        assert all(jax.tree.leaves(same)) == (name != LAST)
    # Under them the center's own features have mean 0 and variance 1.
    found = {}
    with jax.disable_jit(), pytest.MonkeyPatch.context() as patch:
        patch.setattr('flax.linen.Dense.__call__', lambda self, x: found.setdefault('x', x))
        local().model.apply({'params': v['params'], 'batch_stats': done}, images_of(data.image))
    alive = found['x'].std(0) > 1e-3
    np.testing.assert_allclose(found['x'].mean(0), 0, atol=0.2)
    assert alive.any() and np.abs(found['x'].std(0)[alive] - 1).max() < 0.3


def test_the_center_s_statistics_normalize_its_features_in_training_too():
    """Unlike the batch's, they leave a batch of one image what it is."""
    made = local(model=CNN(3, widths=(8,), norm='group', last='center'))
    v = jax.jit(made.model.init)(KEY, jnp.zeros((1, 16, 16, 3)))
    data = jax.tree.map(jnp.asarray, gray([40, 90, 200, 120] * 8, noise=40))
    of_center = jax.jit(lambda data: center_statistics(made, v['params'], data, KEY))(data)
    served = jax.jit(lambda data: finish(made, v['params'], data, None, KEY))(data)['batch_stats']
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0.05), served[LAST], of_center)

    x = images_of(data.image)
    trained, _ = apply_model(made, v['params'], x[:1], of_center)
    finished = {'params': v['params'], 'batch_stats': {LAST: of_center}}
    np.testing.assert_allclose(trained, made.model.apply(finished, x, train=False)[:1], rtol=5e-3)
    by_itself, _ = apply_model(local(), variables()['params'], x[:1])
    np.testing.assert_allclose(by_itself, by_itself * 0, atol=1e-6)  # a batch of one is its mean


def test_what_learns_alone_begins_each_time_with_the_center_s_statistics():
    """`learn` takes them itself: the loss is that under them, not under first ones."""
    made = local(model=CNN(3, widths=(8,), norm='group', last='center'), optimizer=optax.sgd(0.0))
    v = jax.jit(made.model.init)(KEY, jnp.zeros((1, 16, 16, 3)))
    data = jax.tree.map(jnp.asarray, gray([40, 90, 200, 120] * 8, noise=40))
    data = data._replace(target={'label': jnp.arange(32) % 3})

    def without(params, batch, tau, key):
        return task_gradient(made)(params, batch._replace(last=v['batch_stats'][LAST]), tau, key)

    loss = jax.jit(lambda data, gradient: learn(
        Learning(made, v['params'], 1.0, gradient), data, KEY
    ).loss, static_argnums=1)
    assert abs(loss(data, None) - loss(data, without)) > 1e-4


def test_weight_decay_draws_kernels_that_learn_to_zero():
    made = local(model=CNN(3, widths=(8,)), decay=0.5, optimizer=optax.sgd(0.1))
    none = made._replace(decay=0.0)
    params = init_model(made, KEY)
    data = jax.tree.map(jnp.asarray, gray([40, 90, 200, 120]))
    batch = batch_at(made, data, jnp.arange(4), KEY, ())
    (_, with_decay), (_, without) = (
        task_gradient(x, frozen=lambda path: path[0] == 'input')(params, batch, (), KEY)
        for x in (made, none)
    )
    flat = jax.tree_util.tree_leaves_with_path(with_decay)
    for (path, g), g0, x in zip(flat, jax.tree.leaves(without), jax.tree.leaves(params)):
        decays = path[-1].key == 'kernel' and path[0].key != 'input'
        np.testing.assert_allclose(g - g0, 0.5 * x if decays else 0 * x, atol=1e-6)


def test_last_statistics_need_a_model_that_has_them():
    plain = local(model=CNN(3, widths=(8,), norm='batch'), statistics='last')
    v = jax.jit(plain.model.init)(KEY, jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(ValueError, match=r'model.last=batch') as error:
        finish(plain, v['params'], gray([1, 200]), None, KEY, v['batch_stats'])
    assert '\n' not in str(error.value)


def test_balanced_statistics_weigh_the_predicted_classes_alike():
    """Nine dark images to one bright: balanced statistics come nearer to even ones."""
    model = CNN(3, widths=(8,), norm='batch', standardize='none')
    made = local(model=model, finetune=Steps(60, optax.sgd(0.1, momentum=0.9)), batch=16)
    data, even = gray([30] * 90 + [220] * 10, noise=30), gray([30] * 50 + [220] * 50, noise=30)
    label = np.array([0] * 50 + [1] * 50, np.int32)
    first = jax.jit(model.init)(KEY, jnp.zeros((1, 16, 16, 3)))['params']
    learned = jax.jit(learn_alone, static_argnums=(0, 4))
    params, _ = learned(made, first, even._replace(target={'label': label}), KEY, made.finetune)

    def mean_of(examples, mix):
        done = finish(made._replace(mix=mix), params, examples, None, KEY)
        return done['batch_stats']['norm_0_0']['mean']

    natural, balanced = (mean_of(data, mix) for mix in ('natural', 'balanced'))
    target = mean_of(even, 'natural')
    # One step of it: the first predictions are made under the statistics of the wrong mix.
    assert np.abs(balanced - target).max() < 0.75 * np.abs(natural - target).max()


def test_the_prior_is_added_to_the_logits_of_the_loss():
    data = gray([10, 60, 110, 160])
    data = data._replace(target={'label': np.array([0, 0, 0, 1], np.int32)})
    share_K = class_shares(local().task, data)
    np.testing.assert_allclose(share_K, np.array([3.5, 1.5, 0.5]) / 5.5, rtol=1e-6)
    made = local(prior=True)
    batch = batch_at(made, jax.tree.map(jnp.asarray, data), jnp.arange(4), KEY, ())
    params = variables()['params']
    logits, _ = apply_model(made, params, batch.image)
    expected = optax.softmax_cross_entropy_with_integer_labels(
        logits + jnp.log(share_K)[None], batch.target['label']
    ).mean()
    np.testing.assert_allclose(batch_loss(made, params, batch)[0], expected, rtol=1e-5)
