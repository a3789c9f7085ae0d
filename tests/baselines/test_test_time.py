"""Tent, SHOT-IM and T3A: FedAvg's model, adapted to images without their labels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_same, configured, drawn_clients, roll

from fedgen_jax.algorithms.adaptation import entropy, uncertainty
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.baselines.t3a import prototypes
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import pad
from fedgen_jax.program import make_algorithm

pytestmark = pytest.mark.extended

NORMS = {'model.norm': 'batch', 'model.last': 'batch'}


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module')
def trained(clients):
    """FedAvg's state after two rounds, with a normalization before the head."""
    return roll({'algorithm': 'fedavg', **NORMS}, clients)[0]


def at(name, shared, data, **fields):
    """(variables, their model's probabilities) at a stranger."""
    changes = {f'{name}.{k}': v for k, v in fields.items()}
    c = configured({'algorithm': name, **NORMS, **changes})
    algorithm, local = make_algorithm(c, 16, synthetic.CLASSES, 3)
    variables = jax.jit(algorithm.personalize)(shared, None, data, None, KEY)
    outputs = local.model.apply(variables, images_of(data.image), train=False)
    return variables, local.task.probability(outputs)


def names_moved(old, new):
    moved = jax.tree_util.tree_map_with_path(
        lambda path, a, b: [path[0].key] if np.any(a != b) else [], old, new
    )
    return set(jax.tree.leaves(moved))


def test_training_is_fedavg_s(clients):
    """The same operations on the same numbers, in all that the rounds are made of."""

    def traced(name):
        c = configured({'algorithm': name, **NORMS})
        algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
        state, data = jax.eval_shape(algorithm.init, KEY), jax.tree.map(lambda x: x[0], clients)

        def a_round(state, data):
            sent = algorithm.client_update(state.shared, {'id': 0}, data, KEY)
            return algorithm.server_update(state, sent[0])

        found = [jax.make_jaxpr(algorithm.init)(KEY), jax.make_jaxpr(a_round)(state, data)]
        return re.sub('0x[0-9a-f]+', '', str(found))

    expected = traced('fedavg')
    assert [name for name in ('tent', 'shot', 't3a') if traced(name) != expected] == []
    assert traced('mixstyle') != expected


@pytest.mark.parametrize('name', ['tent', 'shot'])
def test_no_steps_are_fedavg_with_the_center_s_statistics(name, trained, clients):
    data = jax.tree.map(lambda x: x[0], clients)
    none = {'tent': {'steps': 0}, 'shot': {'epochs': 0.0}}[name]
    assert_same(at(name, trained.shared, data, **none)[0], at('fedavg', trained.shared, data)[0])


def test_tent_moves_norms_alone_and_is_surer(trained, clients):
    data = jax.tree.map(lambda x: x[0], clients)
    variables, probability = at('tent', trained.shared, data, steps=20, batch=8, lr=0.02)
    begun, before = at('fedavg', trained.shared, data)
    assert names_moved(begun['params'], variables['params']) == {'norm_0_0', 'last_features'}
    assert entropy(probability).mean() < 0.9 * entropy(before).mean()


def test_shot_moves_all_but_the_head_and_tells_more(trained, clients):
    data = jax.tree.map(lambda x: x[0], clients)
    variables, probability = at('shot', trained.shared, data, epochs=10.0, batch=8)
    begun, before = at('fedavg', trained.shared, data)
    assert names_moved(begun['params'], variables['params']) == set(begun['params']) - {'head'}
    assert uncertainty(probability) < uncertainty(before) - 0.05


def test_shot_s_epochs_are_of_the_center_s_own_images(trained, clients):
    """Padding to the length of a larger center adds no steps."""
    own = jax.tree.map(lambda x: x[0], clients)
    longer = pad(own, 2 * len(own.weight))
    found = [at('shot', trained.shared, x, epochs=2.0, batch=8)[0] for x in (own, longer)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    moved = at('shot', trained.shared, own, epochs=4.0, batch=8)[0]
    gaps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found[0], moved)
    assert max(jax.tree.leaves(gaps)) > 1e-3


@pytest.mark.parametrize('name, fields', [
    ('tent', {'steps': 2}), ('shot', {'epochs': 1.0}), ('t3a', {}),
])
def test_labels_tell_nothing(name, fields, trained, clients):
    data = jax.tree.map(lambda x: x[0], clients)
    other = data._replace(target={'label': data.target['label'][::-1]})
    assert (data.target['label'] != other.target['label']).any()
    found = [at(name, trained.shared, x, **fields)[0] for x in (data, other)]
    assert_same(*found)


def test_t3a_without_images_is_the_head_at_length_1(trained, clients):
    data = jax.tree.map(lambda x: x[0], clients)
    nobody = data._replace(weight=np.zeros_like(data.weight))
    kernel = trained.shared['theta']['head']['kernel']
    head = at('t3a', trained.shared, nobody)[0]['params']['head']
    np.testing.assert_allclose(
        head['kernel'], kernel / np.linalg.norm(kernel, axis=0), atol=1e-6
    )
    assert not head['bias'].any()
    assert np.abs(at('t3a', trained.shared, data)[0]['params']['head']['kernel']
                  - head['kernel']).max() > 0.01


def test_t3a_s_prototypes_are_those_of_the_surest_images():
    kernel = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    z = jnp.array([[6.0, 0.0], [4.0, 3.0], [0.0, 0.1], [9.0, 0.0]])
    real = jnp.array([True, True, True, False])
    found = prototypes(z, real, kernel, jnp.zeros(2), most=2)
    # Of class 0 the image (6, 0), then w_0 and (4, 3), which the head leaves as far apart.
    # Of class 1 the head's w_1 and (0, 0.1), for no other is of it.
    assert found[:, 1] == pytest.approx([0, 1])
    ratio = entropy(jax.nn.softmax(jnp.array([1.0, 0.0]))), entropy(jax.nn.softmax(z[1]))
    assert ratio[0] == pytest.approx(ratio[1])
    assert found[:, 0] == pytest.approx([1, 0])
    all_of = prototypes(z, real, kernel, jnp.zeros(2), most=0)
    assert all_of[:, 0] == pytest.approx(np.array([2.8, 0.6]) / np.hypot(2.8, 0.6), rel=1e-5)


@pytest.mark.parametrize('changes, message', [
    ({'algorithm': 'tent', 'task': 'detection', 'model.name': 'detector'}, "task='detection'"),
    ({'algorithm': 'shot', 'task': 'segmentation', 'model.name': 'unet'}, 'one class an image'),
    ({'algorithm': 't3a', 'task': 'segmentation', 'model.name': 'unet'}, 'one class an image'),
    ({'algorithm': 'tent', 'tent.steps': -1}, 'tent.steps=-1'),
    ({'algorithm': 't3a', 't3a.filter': -1}, 't3a.filter=-1'),
])
def test_what_cannot_be_is_refused(changes, message):
    c = configured({'loss.prior': 'none', **changes})
    if c.model.name in ('unet', 'detector'):
        c.model.widths = (8, 8)
    with pytest.raises(ValueError, match=message) as error:
        make_algorithm(c, 16, synthetic.CLASSES, 3)
    assert '\n' not in str(error.value)
