"""Local learning: what is drawn, what a client weighs, and what its finished model is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.common import base
from fedgen_jax.algorithms.draws import class_mix, draw_indices, images_of
from fedgen_jax.algorithms.finish import finish, learn_alone
from fedgen_jax.algorithms.learning import Learning, learn
from fedgen_jax.algorithms.local import (
    Batch,
    Local,
    Steps,
    apply_model,
    batch_loss,
    client_weight,
    init_model,
    weigh,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.models import CNN
from fedgen_jax.program import make_algorithm
from fedgen_jax.shifts import chain
from fedgen_jax.tasks import classification

TASK = classification('abcd')


def examples(labels, padding=0, size=16):
    """Random images with these labels, and padding that has label 0."""
    n = len(labels) + padding
    image = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)
    label = np.array([*labels, *[0] * padding], np.int32)
    return Examples(image, {'label': label}, (np.arange(n) < len(labels)).astype(np.float32))


def draws(data, size, mix_K, times):
    """int [times, size]."""
    one = jax.jit(jax.vmap(lambda k: draw_indices(TASK, data, k, size, mix_K)))
    return np.asarray(one(jax.random.split(jax.random.key(0), times)))


def test_without_a_mix_every_example_comes_once_before_any_repeats():
    drawn = draws(examples([0] * 7, padding=5), 17, None, 50)
    assert drawn.max() == 6
    for row in drawn:
        for lap in (row[:7], row[7:14]):
            assert sorted(lap) == list(range(7))
        assert len(set(row[14:])) == 3
    first = np.bincount(drawn[:, 0], minlength=7)
    assert (first > 0).all()  # any example may come first


def test_with_a_mix_padding_is_never_drawn():
    data = examples([0, 1, 1, 2], padding=20)
    for mix in (np.full(4, 0.25), np.array([0, 0, 0, 1.0]), np.array([0.0, 0, 1, 0])):
        drawn = draws(data, 16, jnp.array(mix, jnp.float32), 200)
        assert drawn.max() <= 3
    assert (drawn == 3).all()  # the last mix names class 2 alone


def test_a_balanced_mix_gives_the_classes_that_exist_equal_shares():
    labels = [0] * 20 + [1] * 4 + [2]  # and none of class 3
    drawn = draws(examples(labels, padding=7), 10, class_mix(None, 'balanced', 4), 600)
    share = np.bincount(np.array(labels)[drawn].ravel(), minlength=4) / drawn.size
    four_sigma = 4 * (2 / 9 / drawn.size) ** 0.5
    np.testing.assert_allclose(share, [1 / 3, 1 / 3, 1 / 3, 0], atol=four_sigma)
    within = np.bincount(drawn.ravel(), minlength=25)[:20] / drawn.size
    np.testing.assert_allclose(within, 1 / 60, atol=0.01)  # and each example of a class its part


def test_unlabelled_examples_are_drawn_only_where_nothing_is_labelled():
    mix_K = class_mix(None, 'balanced', 4)
    assert (draws(examples([-1, -1, 3, -1]), 8, mix_K, 100) == 2).all()
    assert set(draws(examples([-1, -1, -1], padding=4), 8, mix_K, 100).ravel()) == {0, 1, 2}


def test_class_mixes():
    assert class_mix(None, 'natural', 4) is None
    a, b = (class_mix(jax.random.key(i), 'mixed', 4) for i in (0, 1))
    assert a.sum() == pytest.approx(1) and (a >= 0).all() and np.abs(a - b).max() > 0.01


def test_weighing_is_exact_zero_where_the_weight_is():
    tree = {'x': jnp.array([jnp.nan, jnp.inf, 2.0])}
    np.testing.assert_array_equal(weigh(jnp.float32(0), tree)['x'], 0)
    np.testing.assert_array_equal(weigh(jnp.float32(3), tree)['x'][2], 6)


STEPS = Steps(3, optax.sgd(0.1))


def local(norm='group', weighting='examples'):
    return Local(
        model=CNN(4, widths=(8,), norm=norm), task=TASK, image_size=16, plain=chain(),
        shift=chain(), optimizer=optax.sgd(0.1), schedule=lambda round_: 1.0, steps=2, batch=4,
        prevalence='natural', weighting=weighting, finetune=STEPS, alone=STEPS, oracle=STEPS,
    )


def test_client_weights():
    data, nobody = examples([0, 1, 2], padding=2), examples([], padding=3)
    assert client_weight(local(), data) == 3 and client_weight(local(), nobody) == 0
    uniform = local(weighting='uniform')
    assert client_weight(uniform, data) == 1 and client_weight(uniform, nobody) == 0


@pytest.mark.parametrize(
    ('make', 'field'),
    [
        (lambda: class_mix(None, 'even', 4), 'prevalence'),
        (lambda: client_weight(local(weighting='size'), examples([0])), 'weighting'),
    ],
)
def test_unknown_values_are_one_line(make, field):
    with pytest.raises(ValueError, match=f'{field}=.*: one of') as error:
        make()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('algorithm', 'fedbest'),
        ('fedgen.local', 'gradients'),
        ('task', 'regression'),
        ('model.name', 'vit'),
        ('model.norm', 'layer'),
        ('model.standardize', 'pixel'),
        ('client.optimizer', 'lion'),
        ('server.optimizer', 'lion'),
        ('shifts.preset', 'moonlight'),
        ('statistics', 'theirs'),
        ('prevalence', 'even'),
        ('weighting', 'size'),
        ('fedgen.descriptor', 'random'),
        ('fedgen.modes', ('film', 'flim')),
        ('fedgen.support_prevalence', 'other'),
    ],
)
def test_unknown_values_of_a_configuration_are_one_line_naming_the_field(field, value):
    c = base()
    c.update_from_flattened_dict({field: value})
    c.model.widths = (8,)
    data = examples([0, 1])
    with pytest.raises(ValueError) as error:
        algorithm, _ = make_algorithm(c, 16, 'abcd', 2)
        shared = jax.eval_shape(algorithm.init, jax.random.key(0)).shared
        private = {'id': jnp.int32(0)}
        jax.eval_shape(algorithm.client_update, shared, private, data, jax.random.key(0))
    message = str(error.value)
    assert field.split('.')[-1] + '=' in message and 'one of' in message and '\n' not in message
    assert (value if isinstance(value, str) else 'flim') in message


def test_a_finished_model_s_batch_statistics_are_of_the_center_s_real_images():
    batch = local(norm='batch')
    theta = init_model(batch, jax.random.key(0))
    data, other = examples([0] * 6, padding=3), examples([0] * 6, padding=3)
    other.image[6:] = 255  # padding
    done = jax.jit(lambda data: finish(batch, theta, data, None, jax.random.key(1)))
    a, b = done(data)['batch_stats'], done(other)['batch_stats']
    jax.tree.map(np.testing.assert_array_equal, a, b)
    other.image[0] = 255
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), a, done(other)['batch_stats'])
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_finetuning_needs_labels_and_lowers_their_loss():
    group = local()
    theta = init_model(group, jax.random.key(0))
    data = examples([0, 1, 2, 3])
    done = jax.jit(lambda labelled: finish(group, theta, data, labelled, jax.random.key(1)))

    def loss(variables):
        logits = group.model.apply(variables, data.image.astype(np.float32) / 255)
        return TASK.loss(logits, data.target, data.weight)

    jax.tree.map(np.testing.assert_array_equal, done(None)['params'], theta)
    assert loss(done(data)) < loss(done(None)) - 0.01


def test_frozen_statistics_are_the_start_s_in_training_too():
    batch = local(norm='batch')
    start = batch.model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    start = {**start, 'batch_stats': jax.tree.map(lambda x: x + 0.3, start['batch_stats'])}
    frozen = batch._replace(statistics='frozen', start=start)
    x = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    outputs, kept = apply_model(frozen, start['params'], x)
    np.testing.assert_array_equal(outputs, batch.model.apply(start, x, train=False))
    assert kept == {}
    theta = init_model(frozen, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, theta, start['params'])
    done = finish(frozen, theta, examples([0, 1]), None, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, done['batch_stats'], start['batch_stats'])
    with pytest.raises(ValueError, match="'frozen': needs those of start.weights"):
        apply_model(batch._replace(statistics='frozen'), theta, x)


class HeadAlone(CNN):
    """A network of which only the head learns."""

    @staticmethod
    def frozen(path):
        return path[0] != 'head'


def test_weights_that_a_model_calls_frozen_stay():
    head = local()._replace(model=HeadAlone(4, widths=(8,)))
    theta = init_model(head, jax.random.key(0))
    new, _, _ = jax.jit(lambda data: learn(Learning(head, theta, 1.0), data, jax.random.key(1)))(
        jax.tree.map(jnp.asarray, examples([0, 1, 2, 3]))
    )
    for name in theta:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), theta[name], new[name])
        assert all(jax.tree.leaves(same)) == (name != 'head')


# ------------------------------------------------------------------ a center's own learning


def test_only_weights_of_the_named_roles_are_fitted():
    data = jax.tree.map(jnp.asarray, examples([0, 1, 2, 3]))
    params = init_model(local(), jax.random.key(0))
    fit = jax.jit(learn_alone, static_argnums=(0, 4, 5))
    new, _ = fit(local(), params, data, jax.random.key(1), STEPS, ('input', 'norm'))
    moved = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (path[0].key, bool(np.any(a != b))), new, params
    )
    for name, changed in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple)):
        assert changed == (name == 'input' or name.startswith('norm')), name


def test_a_center_s_own_learning_lowers_its_loss():
    data = jax.tree.map(jnp.asarray, examples([0, 1, 2, 3]))
    params, longer = init_model(local(), jax.random.key(0)), Steps(40, optax.sgd(0.1))
    new, _ = jax.jit(learn_alone, static_argnums=(0, 4))(
        local(), params, data, jax.random.key(1), longer
    )
    batch = Batch(images_of(data.image), data.target, data.weight)
    before, after = (batch_loss(local(), p, batch)[0] for p in (params, new))
    assert after < 0.9 * before
