"""ARM-CML: what a center's images say of it, beside each of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_close, assert_same, configured, drawn_clients, roll

from fedgen_jax.baselines import arm
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm

pytestmark = pytest.mark.extended

FIELDS = {'arm.width': 8, 'arm.channels': 2, 'model.norm': 'batch'}


class Constant(nn.Module):
    """A network that says the same of all images: nothing."""

    channels: int
    width: int

    def __call__(self, x_BxHxWx3):
        return jnp.zeros((*x_BxHxWx3.shape[:3], self.channels))


@pytest.fixture(scope='module')
def rolled():
    clients = drawn_clients()
    changes = {'algorithm': 'arm', **FIELDS}
    algorithm, local = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    return clients, algorithm, jax.jit(algorithm.personalize), local, roll(changes, clients)[0]


def test_a_constant_context_is_fedavg_to_the_bit(rolled, monkeypatch):
    clients, _, _, _, with_context = rolled
    monkeypatch.setattr(arm, 'Context', Constant)
    found = roll({'algorithm': 'arm', **FIELDS}, clients)[0].shared
    expected = roll({'algorithm': 'fedavg', 'model.norm': 'batch'}, clients)[0].shared
    assert_same(found['theta'], expected['theta'])
    same = jax.tree.map(np.array_equal, with_context.shared['theta'], expected['theta'])
    assert not any(jax.tree.leaves(same))


def test_the_order_of_a_center_s_images_does_not_matter_and_labels_do_not(rolled):
    clients, _, personalize, _, state = rolled
    data = jax.tree.map(lambda x: x[0], clients)
    found = personalize(state.shared, None, data, None, KEY)
    turned = data._replace(image=data.image[::-1], weight=data.weight[::-1])  # of other labels
    assert_close(personalize(state.shared, None, turned, None, KEY), found, 1e-4)
    there = found['context']['input']['map']
    assert there.shape == (16, 16, 3) and np.abs(there).max() > 1e-4
    elsewhere = jax.tree.map(lambda x: x[1], clients)
    other = personalize(state.shared, None, elsewhere, None, KEY)['context']['input']['map']
    assert np.abs(other - there).max() > 1e-5


def test_the_network_learns_and_the_model_sees_what_it_says(rolled):
    clients, algorithm, personalize, local, state = rolled
    first = jax.jit(algorithm.init)(KEY).shared
    assert not first['context']['matrix'].any()
    moved = jax.tree.map(lambda a, b: (a != b).any(), first['context'], state.shared['context'])
    assert all(jax.tree.leaves(moved))
    data = jax.tree.map(lambda x: x[0], clients)
    variables = personalize(state.shared, None, data, None, KEY)
    x = data.image.astype(np.float32) / 255
    say = jax.jit(local.model.apply)
    said = say(variables, x)
    # The map stands where the input layer's bias does, at each pixel its own.
    flat = {**variables, 'context': {'input': {'map': jnp.full((16, 16, 3), 0.1)}}}
    bias = variables['params']['input']['bias'] + 0.1
    theta = {**variables['params'], 'input': {**variables['params']['input'], 'bias': bias}}
    without = {'params': theta, 'batch_stats': variables['batch_stats']}
    np.testing.assert_allclose(say(flat, x), say(without, x), atol=1e-5)
    assert np.abs(said - say(flat, x)).max() > 1e-4


def test_batch_statistics_are_those_under_the_context(rolled):
    clients, _, personalize, local, state = rolled
    data = jax.tree.map(lambda x: x[0], clients)
    variables = personalize(state.shared, None, data, None, KEY)
    x = data.image.astype(np.float32) / 255
    seen = {k: variables[k] for k in ('params', 'context')}
    _, new = local.model.apply(seen, x, train=True, mutable=['batch_stats'])
    assert_close(variables['batch_stats'], new['batch_stats'], 1e-3)


class NoInput(nn.Module):
    """A model of one's own, without the layer that takes a context."""

    num_outputs: int

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_outputs, name='head')(x.mean((1, 2)))


@pytest.mark.parametrize('changes, message', [
    ({'arm.width': 12}, 'arm.width=12'), ({'arm.channels': 0}, 'arm.channels=0'),
    ({'model.last': 'center'}, "model.last='center'"), ({'oracle.steps': 2}, 'oracle.steps'),
    ({'algorithm': 'fedgen', 'fedgen.base': 'arm'}, 'fedgen.base'),
    ({'model.name': f'{__name__}:NoInput'}, 'models.layers.Input'),
])
def test_what_it_cannot_serve_is_refused(changes, message):
    c = configured({'algorithm': 'arm', **changes})
    if ':' in c.model.name:
        for field in ('widths', 'depth', 'norm', 'standardize', 'last', 'dtype'):
            del c.model[field]
    with pytest.raises(ValueError, match=message) as error:
        make_algorithm(c, 16, synthetic.CLASSES, 3)
    assert '\n' not in str(error.value)
