"""What defines pFedHN, FLowDUP, ODPFL-HN and PeFLL, on small runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_close, assert_same, configured, drawn_clients, roll

from fedgen_jax.algorithms.base import State
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.local import Batch, batch_loss
from fedgen_jax.algorithms.optimizers import own_steps
from fedgen_jax.baselines import hypernetworks, odpfl, pefll, pfedhn
from fedgen_jax.baselines.flowdup import expanded
from fedgen_jax.baselines.hypernetworks import Encoder, encoded, hypernetwork_of, model_from
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm
from fedgen_jax.random import stream
from fedgen_jax.tasks import TASKS

pytestmark = pytest.mark.extended

SMALL = {'hidden': 8, 'layers': 1, 'decay': 0.0}


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


def changes(name, **more):
    own = {**SMALL, **({'images': 4, 'code': 4} if name != 'pfedhn' else {}), **more}
    return {'algorithm': name, **{f'{name}.{k}': v for k, v in own.items()}}


def made(of, num_clients=3):
    """(the algorithm, compiled, its local learning, its hypernetwork)."""
    return compiled_of(tuple(of.items()), num_clients)


@functools.cache
def compiled_of(items, num_clients):
    of = dict(items)
    c = configured(of)
    algorithm, local = make_algorithm(c, 16, synthetic.CLASSES, num_clients)
    compiled = {
        k: jax.jit(getattr(algorithm, k))
        for k in ('init', 'client_update', 'server_update', 'personalize')
    }
    name = of['algorithm']
    return algorithm._replace(**compiled), local, hypernetwork_of(name, c[name], local)


def one(data_C, i):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), data_C)


def a_round_of(algorithm, data_C, i=1):
    """(the state at first, what client i sends [1, ...], the state after its message alone)."""
    state = algorithm.init(KEY)
    private = algorithm.init_private(state, jnp.int32(i))
    sent, _, _ = algorithm.client_update(state.shared, private, one(data_C, i), KEY)
    sent_1 = jax.tree.map(lambda x: x[None], sent)
    return state, sent, algorithm.server_update(state, sent_1)


def moved(before, after, *names):
    return {k: jax.tree.map(jnp.subtract, after.shared[k], before.shared[k]) for k in names}


def product(a, b):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))


# ------------------------------------------------------------------------------------ pFedHN


def test_pfedhn_s_update_is_autodiff_through_the_generator(clients):
    algorithm, _, net = made(changes('pfedhn'))
    before, sent, after = a_round_of(algorithm, clients)
    change = jax.tree.map(lambda x: x / sent['weight'], sent['delta']['theta'])

    def inner(weights):
        return product(model_from(net, weights, weights['embedding'][1]), change)

    learned = {k: before.shared[k] for k in ('theta', 'phi', 'embedding')}
    found = moved(before, after, *learned)
    assert_close(found, jax.grad(inner)(learned), 1e-4)
    rows = np.abs(found['embedding']).max(1)
    assert rows[1] > 0 and not rows[0] and not rows[2], 'a row learns of its own client alone'


def test_many_clients_move_pfedhn_s_hypernetwork_by_their_mean_and_each_its_own_row(clients):
    """Three equal clients with three rows: phi's step is the mean of those that each would make."""
    algorithm, _, _ = made(changes('pfedhn'))
    alone = [a_round_of(algorithm, clients, i) for i in range(3)]
    sent_C = jax.tree.map(lambda *x: jnp.stack(x), *(sent for _, sent, _ in alone))
    before = alone[0][0]
    together = moved(before, algorithm.server_update(before, sent_C), 'phi', 'embedding')
    each = [moved(before, after, 'phi', 'embedding') for _, _, after in alone]
    mean = jax.tree.map(lambda *x: sum(x) / 3, *(m['phi'] for m in each))
    assert_close(together['phi'], mean, 1e-3)
    assert_close(together['embedding'], sum(m['embedding'] for m in each), 1e-3)


def test_a_new_row_leaves_the_others_models_to_the_bit_and_fits_its_own_labels(clients):
    of = changes('pfedhn', fit_steps=40, fit_lr=0.3)
    algorithm, local, net = made(of)
    shared, new = algorithm.init(KEY).shared, one(clients, 0)
    batch = Batch(images_of(new.image), new.target, new.weight)

    @jax.jit
    def loss(params):
        return batch_loss(local, params, batch)[0]

    stranger = algorithm.personalize(shared, None, new, None, KEY)['params']
    assert_close(stranger, model_from(net, shared, shared['embedding'].mean(0)), 1e-5)
    own_E = jax.jit(lambda v_E: pfedhn.fitted_embedding(
        local, net, shared, v_E, new, KEY, own_steps(configured(of), 40, 0.3)
    ))(shared['embedding'].mean(0))
    with_labels = algorithm.personalize(shared, None, new, new, KEY)['params']
    assert_close(with_labels, model_from(net, shared, own_E), 1e-4)
    assert loss(with_labels) < loss(stranger) - 1e-3
    larger, _, _ = made(of, num_clients=4)
    grown = {**shared, 'embedding': jnp.concatenate([shared['embedding'], own_E[None]])}
    for i in range(3):
        private = {'id': jnp.int32(i)}
        assert_same(
            algorithm.personalize(shared, private, new, None, KEY),
            larger.personalize(grown, private, new, None, KEY),
        )
    joined = larger.personalize(grown, {'id': jnp.int32(3)}, new, None, KEY)['params']
    assert_close(joined, with_labels, 1e-4)


def test_a_client_of_pfedhn_is_sent_one_model(clients):
    algorithm, _, _ = made(changes('pfedhn'))
    shared = jax.eval_shape(algorithm.init, KEY).shared
    down = jax.eval_shape(algorithm.down, shared)
    assert set(down) == {'theta', 'round'} and not algorithm.sum_only


def test_what_needs_a_sum_refuses_what_has_none():
    from fedgen_jax.config import base
    from fedgen_jax.engine.rounds import client_mesh
    from fedgen_jax.engine.secured import rounds_of
    from fedgen_jax.privacy import nothing

    c = base()
    c.privacy.unit = 'client'
    with pytest.raises(ValueError, match='pFedHN takes none'):
        rounds_of(c, made(changes('pfedhn'))[0], client_mesh(1), nothing(), None)


# ----------------------------------------------------------------------- ODPFL-HN and PeFLL


@pytest.mark.parametrize('name', ['odpfl', 'pefll'])
def test_the_server_s_vjp_is_the_client_s_autodiff(clients, name):
    """Encoder, hypernetwork and base move along one gradient, whoever computes which part."""
    algorithm, local, net = made(changes(name))
    before, sent, after = a_round_of(algorithm, clients)
    change = jax.tree.map(lambda x: x / sent['weight'], sent['delta']['theta'])
    see = hypernetworks.image_alone
    if name == 'pefll':
        _, draw = pefll.label_planes(local.task)
        see = lambda image, y: jnp.concatenate([images_of(image), draw(y, 16, 16)], -1)  # noqa: E731
    some = odpfl.sample(local, one(clients, 1), odpfl.stream(KEY, 'code'), 4)

    def inner(weights):
        v_E = encoded(Encoder(4), weights['psi'], see, some, some.weight)
        return product(model_from(net, weights, v_E), change)

    learned = {k: before.shared[k] for k in ('theta', 'phi', 'psi')}
    assert_close(moved(before, after, *learned), jax.grad(inner)(learned), 1e-3)


def test_odpfl_s_unseen_center_has_the_model_of_its_images_and_labels_do_not_matter(clients):
    algorithm, _, _ = made(changes('odpfl'))
    shared = algorithm.init(KEY).shared
    own, other = one(clients, 0), one(clients, 1)
    first = algorithm.personalize(shared, None, own, None, KEY)
    unknown = own._replace(target={'label': jnp.full_like(own.target['label'], -1)})
    assert_same(first, algorithm.personalize(shared, None, unknown, None, KEY))
    second = algorithm.personalize(shared, None, other, None, KEY)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (first, second))))


def test_permuted_labels_change_pefll_s_descriptor(clients):
    algorithm, _, _ = made(changes('pefll'))
    shared, data = algorithm.init(KEY).shared, one(clients, 0)
    turned = data._replace(target={'label': jnp.roll(data.target['label'], 1)})
    assert (turned.target['label'] != data.target['label']).any()
    own, permuted = (algorithm.personalize(shared, None, data, y, KEY) for y in (data, turned))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (own, permuted))))
    # Without labels the mean of what clients sent, whatever the images are.
    zero_shot = algorithm.personalize(shared, None, data, None, KEY)
    assert_same(zero_shot, algorithm.personalize(shared, None, one(clients, 1), None, KEY))
    # A seen center has that of its training examples, as one who brings them with labels.
    assert_same(own, algorithm.personalize(shared, {'id': jnp.int32(0)}, data, None, KEY))


def test_pefll_with_a_frozen_encoder_is_pfedhn(clients):
    """Of the descriptors as embeddings that do not learn, after a round of all clients."""
    of = changes('pefll', encoder_rate=0.0)
    algorithm, _, _ = made(of)
    hn, _, _ = made(changes('pfedhn', embedding=4, embedding_rate=0.0))
    state = algorithm.init(KEY)
    sent = [
        algorithm.client_update(state.shared, {'id': jnp.int32(i)}, one(clients, i), KEY)[0]
        for i in range(3)
    ]
    codes = [x['code'] / x['weight'] for x in sent]
    after = algorithm.server_update(state, jax.tree.map(lambda *x: jnp.stack(x), *sent))
    shared = {k: state.shared[k] for k in ('theta', 'phi', 'round')}
    shared['embedding'] = jnp.stack(codes)
    begun = State(shared, hn.init(KEY).optimizer)
    sent = [
        hn.client_update(shared, {'id': jnp.int32(i)}, one(clients, i), KEY)[0]
        for i in range(3)
    ]
    other = hn.server_update(begun, jax.tree.map(lambda *x: jnp.stack(x), *sent))
    assert_same(after.shared['psi'], state.shared['psi'])
    np.testing.assert_allclose(after.shared['pooled'], jnp.stack(codes).mean(0), atol=1e-6)
    assert_same(other.shared['embedding'], shared['embedding'])
    both = ({k: s.shared[k] for k in ('theta', 'phi')} for s in (after, other))
    assert_close(*both, 1e-5)


def test_label_planes_show_where_a_class_is():
    mask = {'mask': jnp.array([[0, 1], [255, 1]], jnp.uint8)}
    k, draw = pefll.label_planes(TASKS['segmentation'](['background', 'cell']))
    np.testing.assert_array_equal(draw(mask, 2, 2)[..., 1], [[0, 1], [0, 1]])
    assert k == 2 and draw(mask, 2, 2)[1, 0].sum() == 0  # an unknown pixel is of no class
    boxes = {
        'box': jnp.array([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 9.0, 9.0]]),
        'box_class': jnp.array([1, -1]),  # and padding
    }
    k, draw = pefll.label_planes(TASKS['detection'](['a', 'b']))
    found = draw(boxes, 3, 3)
    np.testing.assert_array_equal(found[..., 1], [[0, 1, 1], [0, 1, 1], [0, 0, 0]])
    assert k == 2 and not found[..., 0].any()
    k, draw = pefll.label_planes(TASKS['classification'](['a', 'b', 'c']))
    np.testing.assert_array_equal(draw({'label': jnp.int32(2)}, 1, 1)[0, 0], [0, 0, 1])
    assert not draw({'label': jnp.int32(-1)}, 1, 1).any()


# ----------------------------------------------------------------------------------- FLowDUP


def test_flowdup_s_models_differ_in_no_more_directions_than_its_code_has_numbers():
    theta = {'a': {'kernel': jnp.zeros((7, 5))}, 'b': {'bias': jnp.zeros(9)}}
    codes = jax.random.normal(KEY, (12, 4))

    def change(v_K, stays=lambda path: False):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(expanded(theta, v_K, stays))])

    assert np.linalg.matrix_rank(jnp.stack([change(v) for v in codes])) == 4
    assert not expanded(theta, codes[0], lambda path: path[0] == 'b')['b']['bias'].any()
    norms = [float(jnp.linalg.norm(change(v))) for v in jnp.eye(4)]
    assert all(0.3 < x < 2 for x in norms), 'columns of P are about as long as 1'


def test_flowdup_with_a_code_of_0_is_fedavg_to_the_bit(clients):
    expected, _, _ = roll({'algorithm': 'fedavg'}, clients)
    of = {'algorithm': 'flowdup', 'flowdup.images': 4, 'flowdup.code': 0}
    assert_same(roll(of, clients)[0].shared['theta'], expected.shared['theta'])


def test_flowdup_s_code_follows_the_images_and_its_fixed_base_stays(clients):
    of = {'algorithm': 'flowdup', 'flowdup.images': 4, 'flowdup.code': 4, 'flowdup.base': 'fixed'}
    algorithm, _ = make_algorithm(configured(of), 16, synthetic.CLASSES, 3)
    first = jax.jit(algorithm.init)(stream(KEY, 'init'))
    state, _, _ = roll(of, clients)
    assert_same(state.shared['theta'], jax.device_get(first.shared['theta']))
    model_of = jax.jit(algorithm.personalize)
    models = [model_of(state.shared, None, one(clients, i), None, KEY) for i in range(2)]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, models)))


@pytest.mark.parametrize('wrong', [
    {'flowdup.code': 5}, {'flowdup.base': 'own'}, {'flowdup.penalty': -1.0},
])
def test_flowdup_refuses_in_one_line(wrong):
    (field,) = wrong
    with pytest.raises(ValueError, match=field):
        make_algorithm(configured({'algorithm': 'flowdup', **wrong}), 16, 'ab', 3)
