"""ATP: rates that labels teach, and steps that no label touches."""

import functools

import jax
import numpy as np
import pytest
from families import KEY, assert_close, assert_same, configured, drawn_clients, roll

from fedgen_jax.algorithms.adaptation import entropy
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.learning import Learned
from fedgen_jax.algorithms.local import Batch, query_batch
from fedgen_jax.baselines.atp import gain
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm
from fedgen_jax.random import stream

pytestmark = pytest.mark.extended

FIELDS = {'model.norm': 'batch', 'statistics': 'running'}


@pytest.fixture(scope='module')
def rolled():
    """(clients, the algorithm's parts, FedAvg's, both states after two rounds)."""
    clients = drawn_clients()
    made = [
        make_algorithm(configured({'algorithm': name, **FIELDS}), 16, synthetic.CLASSES, 3)
        for name in ('atp', 'fedavg')
    ]
    states = [roll({'algorithm': name, **FIELDS}, clients)[0] for name in ('atp', 'fedavg')]
    return clients, made, states


def test_weights_are_fedavg_s_to_the_bit_and_rates_move(rolled):
    _, _, (state, expected) = rolled
    rates = state.shared.pop('rates')
    assert_same(state.shared, expected.shared)
    assert any(x != 0 for x in jax.tree.leaves(rates['statistics']))
    assert all(np.shape(x) == () and x != 0 for x in jax.tree.leaves(rates['theta']['head']))
    state.shared['rates'] = rates


def test_rates_of_zero_are_fedavg_and_labels_tell_nothing(rolled):
    clients, ((atp, _), (fedavg, _)), (state, expected) = rolled
    data = jax.tree.map(lambda x: x[0], clients)
    zeros = jax.tree.map(np.zeros_like, state.shared['rates'])
    personalize = jax.jit(atp.personalize)
    plain = jax.jit(fedavg.personalize)(expected.shared, None, data, None, KEY)
    assert_same(personalize({**state.shared, 'rates': zeros}, None, data, None, KEY), plain)
    adapted = personalize(state.shared, None, data, None, KEY)
    other = data._replace(target={'label': data.target['label'][::-1]})
    assert_same(personalize(state.shared, None, other, None, KEY), adapted)
    head = [x['params']['head']['bias'] for x in (adapted, plain)]
    assert (head[0] != head[1]).any()


def test_a_rate_s_gain_is_the_product_of_two_gradients():
    """That of the loss at the moved weights, and that of the entropy at the sent ones."""
    data = jax.tree.map(lambda x: x[0], drawn_clients())
    atp, local = make_algorithm(configured({'algorithm': 'atp'}), 16, synthetic.CLASSES, 3)
    shared, model = jax.jit(atp.init)(KEY).shared, local.model
    rates = jax.tree.map(lambda a: a + 0.3, shared['rates'])
    batch = Batch(images_of(data.image), data.target, data.weight)

    @jax.grad
    def entropy_slope(theta):
        return entropy(jax.nn.softmax(model.apply({'params': theta}, batch.image))).mean()

    @jax.grad
    def loss_slope(theta):
        outputs = model.apply({'params': theta}, batch.image)
        return local.task.loss(outputs, batch.target, batch.weight)

    h = jax.jit(entropy_slope)(shared['theta'])
    new = jax.tree.map(lambda x, h: x - 0.3 * h, shared['theta'], h)
    expected = jax.tree.map(lambda g, h: (g * h).sum() / h.size**0.5, jax.jit(loss_slope)(new), h)
    found = jax.jit(functools.partial(gain, local))(shared, rates, batch)['theta']
    np.testing.assert_allclose(
        jax.tree.leaves(found), jax.tree.leaves(expected), rtol=1e-3, atol=1e-7
    )


def test_a_client_s_rates_step_up_their_gain():
    data = jax.tree.map(lambda x: jax.numpy.asarray(x[0]), drawn_clients())
    c = configured({'algorithm': 'atp', 'atp.steps': 1, 'atp.lr': 0.25, 'atp.batch': 4})
    atp, local = make_algorithm(c, 16, synthetic.CLASSES, 3)
    state = jax.jit(atp.init)(KEY)
    _, end = atp.client_update.begin(
        state.shared, atp.init_private(state, jax.numpy.int32(0)), data, KEY
    )
    sent = jax.jit(end)(Learned(state.shared['theta'], jax.numpy.zeros(()), ()))[0]
    key = jax.random.fold_in(stream(KEY, 'rates'), 0)

    @jax.jit
    def gained(shared):
        return gain(local, shared, shared['rates'], query_batch(local, data, key)[0])

    expected = gained(state.shared)
    assert max(abs(x) for x in jax.tree.leaves(expected)) > 1e-4
    assert_close(sent['rates'], jax.tree.map(lambda g: 0.25 * g, expected), 1e-3)


def test_a_task_without_probabilities_is_refused():
    c = configured({'algorithm': 'atp', 'task': 'detection', 'model.name': 'detector'})
    c.model.widths = (8, 8)
    with pytest.raises(ValueError, match="algorithm='atp': task='detection'"):
        make_algorithm(c, 16, synthetic.CLASSES, 3)
