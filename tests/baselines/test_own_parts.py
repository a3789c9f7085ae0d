"""Methods whose clients keep a part of the model, or one of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_close, assert_same, configured, drawn_clients, roll
from flax.traverse_util import flatten_dict

from fedgen_jax.algorithms.finish import own_statistics
from fedgen_jax.algorithms.learning import Learned
from fedgen_jax.algorithms.local import batch_loss, query_batch
from fedgen_jax.baselines.pfedme import proximal_point
from fedgen_jax.data import synthetic
from fedgen_jax.models import CNN
from fedgen_jax.program import make_algorithm
from fedgen_jax.random import stream

pytestmark = pytest.mark.extended

BATCH = {'model.norm': 'batch'}


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module')
def fedavg(clients):
    """FedAvg's state after two rounds."""
    return roll({'algorithm': 'fedavg'}, clients)[0]


def made(changes):
    return make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)


def sent_by_first(changes, clients):
    algorithm, _ = made(changes)
    state = jax.jit(algorithm.init)(KEY)
    data = jax.tree.map(lambda x: x[0], clients)
    private = algorithm.init_private(state, jnp.int32(0))
    return jax.eval_shape(algorithm.client_update, state.shared, private, data, KEY)[0]


def is_norm(path):
    return path[0].startswith('norm')


class StillNorms(CNN):
    """Its normalizations do not learn."""

    @staticmethod
    def frozen(path):
        return is_norm(path)


class NormsAlone(CNN):
    """Nothing else learns."""

    @staticmethod
    def frozen(path):
        return not is_norm(path)


# ------------------------------------------------------------------------ FedBN, SiloBN


@pytest.mark.parametrize(
    ('changes', 'is_own'),
    [
        ({'algorithm': 'fedbn', 'fedbn.stranger': 'first', **BATCH}, is_norm),
        ({'algorithm': 'fedrep', 'fedrep.stranger': 'first'}, lambda path: path[0] == 'head'),
    ],
)
def test_what_a_client_keeps_is_never_sent(clients, changes, is_own):
    sent = sent_by_first({**changes}, clients)
    paths = set(flatten_dict(sent['delta']['theta']))
    assert paths and not any(is_own(path) for path in paths)
    first = jax.jit(made(changes)[0].init)(stream(KEY, 'init'))
    state, private_C, _ = roll(changes, clients)
    for path, x in flatten_dict(state.shared['theta']).items():
        assert np.array_equal(x, flatten_dict(first.shared['theta'])[path]) == is_own(path), path
    kept = flatten_dict(private_C['own'])
    assert all(is_own(path) for path in kept)
    assert all((x_C[0] != x_C[1]).any() for x_C in kept.values())


def test_fedbn_is_fedavg_to_the_bit_where_norms_are_the_same(clients):
    """After one round those of all others, for all begin alike; and always, of norms that stay."""
    states = [roll({'algorithm': name, **BATCH}, clients, rounds=1)[0] for name in
              ('fedavg', 'fedbn')]
    (a, b) = (flatten_dict(s.shared['theta']) for s in states)
    assert all(np.array_equal(a[path], b[path]) for path in a if not is_norm(path))


def test_the_mean_of_the_clients_norms_is_for_strangers_alone(clients):
    how = [{'algorithm': 'fedbn', 'fedbn.stranger': s, **BATCH} for s in ('first', 'mean')]
    (first, private_C, _), (mean, private_too, _) = (roll(changes, clients) for changes in how)
    assert_same(private_C, private_too)
    a, b = (flatten_dict(s.shared['theta']) for s in (first, mean))
    assert all(np.array_equal(a[path], b[path]) == (not is_norm(path)) for path in a)
    for path, x_C in flatten_dict(private_C['own']).items():
        np.testing.assert_allclose(b[path], x_C[:3].mean(0), atol=1e-6)  # as many images each


@pytest.mark.parametrize('name', ['fedbn', 'silobn'])
def test_statistics_are_a_seen_center_s_of_training_and_a_stranger_s_of_its_images(clients, name):
    changes = {'algorithm': name, **BATCH, 'statistics': 'running'}
    assert 'statistics' not in sent_by_first(changes, clients)
    state, private_C, _ = roll(changes, clients)
    assert 'statistics' not in state.shared
    algorithm, local = made(changes)
    data, private = (jax.tree.map(lambda x: x[0], tree) for tree in (clients, private_C))
    seen = algorithm.personalize(state.shared, private, data, None, KEY)
    assert_same(seen['batch_stats'], private['statistics'])
    other = jax.tree.map(lambda x: x[1], private_C)['statistics']
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (seen['batch_stats'], other))))
    stranger = algorithm.personalize(state.shared, None, data, None, KEY)
    own = local._replace(statistics='own')
    assert_same(stranger['batch_stats'],
                own_statistics(own, stranger['params'], data, KEY, None))


def test_silobn_trains_as_fedavg_to_the_bit(clients):
    changes = {**BATCH, 'statistics': 'running'}
    state, private_C, _ = roll({'algorithm': 'silobn', **changes}, clients)
    expected, _, _ = roll({'algorithm': 'fedavg', **changes}, clients)
    assert_same(state.shared['theta'], expected.shared['theta'])
    mean = jax.tree.map(lambda x_C: x_C[:3].mean(0), private_C['statistics'])
    assert_close(mean, expected.shared['statistics'], 1e-5)  # which FedAvg sends


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'algorithm': 'silobn', 'statistics': 'running'}, 'model.norm=batch'),
        ({'algorithm': 'silobn', **BATCH}, 'statistics=running'),
        ({'algorithm': 'fedbn', 'statistics': 'frozen'}, 'statistics=own'),
        ({'algorithm': 'fedbn', 'fedbn.stranger': 'none'}, 'fedbn.stranger'),
        ({'algorithm': 'fedgen', 'fedgen.base': 'silobn', **BATCH, 'statistics': 'running'},
         'not one whole one'),
        ({'algorithm': 'fedbn', 'model.name': f'{__name__}:StillNorms'}, 'nothing would stay'),
        ({'algorithm': 'fedbn', 'model.name': f'{__name__}:NormsAlone'}, 'nothing would be shared'),
        ({'algorithm': 'fedrep', 'fedrep.head_steps': -1}, 'fedrep.head_steps'),
        ({'algorithm': 'pfedme', 'pfedme.lr': 1.0}, 'lr \\* lam below 2'),
        ({'algorithm': 'apfl', 'apfl.alpha': 1.5}, 'apfl.alpha=1.5'),
    ],
)
def test_what_could_not_do_its_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(changes)


def test_fedbn_says_where_no_statistics_are_kept():
    assert made({'algorithm': 'fedbn'})[0].title == 'FedBN, scale and bias alone'
    assert made({'algorithm': 'fedbn', **BATCH})[0].title == 'FedBN'


# ------------------------------------------------------------------------------- FedRep


def test_fedrep_steps_its_head_before_the_representation(clients):
    algorithm, _ = made({'algorithm': 'fedrep'})
    state = jax.jit(algorithm.init)(KEY)
    data = jax.tree.map(lambda x: jnp.asarray(x[0]), clients)
    private = algorithm.init_private(state, jnp.int32(0))
    learning, _ = algorithm.client_update.begin(state.shared, private, data, KEY)
    before, after = (flatten_dict(x) for x in (state.shared['theta'], learning.params))
    for path, x in before.items():
        assert np.array_equal(x, after[path]) == (path[0] != 'head'), path
        assert learning.stays(path) == (path[0] == 'head')
    stranger = algorithm.personalize(state.shared, None, data, None, KEY)
    assert_same(stranger['params'], state.shared['theta'])


# ------------------------------------------------------------------------ pFedMe, APFL


def test_pfedme_finds_the_proximal_point_and_steps_along_the_envelope_s_gradient():
    """Of f = a/2 |theta - b|^2 it is (a b + lambda w) / (a + lambda), grad F = grad f there."""
    a, b, lam, w = 3.0, jnp.array([1.0, -2.0]), 15.0, jnp.array([0.5, 0.5])

    def gradient(theta, batch, tau, key):
        return (a / 2 * jnp.sum((theta - b) ** 2), ()), a * (theta - b)

    way, (loss_K, _) = proximal_point(gradient, lam, 100, 0.05)(w, None, None, KEY)
    theta = w + way
    np.testing.assert_allclose(theta, (a * b + lam * w) / (a + lam), rtol=1e-5)
    np.testing.assert_allclose(-lam * way, gradient(theta, None, None, KEY)[1], rtol=1e-4)
    assert loss_K[0] == a / 2 * jnp.sum((w - b) ** 2) > loss_K[-1]


def test_pfedme_of_one_step_is_fedavg_to_the_bit(clients, fedavg):
    """lambda (w - theta) is then lambda lr times the gradient; both are powers of two here."""
    one = {'algorithm': 'pfedme', 'pfedme.steps': 1, 'pfedme.lam': 16.0, 'pfedme.lr': 1 / 16}
    state, private_C, _ = roll(one, clients)
    assert_same(state.shared['theta'], fedavg.shared['theta'])
    theta_C = jax.tree.leaves(private_C['theta'])
    assert all((x_C[0] != x_C[1]).any() for x_C in theta_C if x_C.any())


def test_apfl_s_global_model_is_fedavg_s_to_the_bit_whatever_its_own_does(clients, fedavg):
    state, private_C, _ = roll({'algorithm': 'apfl'}, clients)
    assert_same(state.shared['theta'], fedavg.shared['theta'])
    alpha_C = private_C['alpha']
    assert (alpha_C[:3] != 0.5).all() and alpha_C[3] == 0.5  # it adapts; nobody's stays


def test_apfl_s_steps_are_those_of_the_mixed_model(clients):
    """Its own weights' gradient and alpha's are the mixed model's, and alpha goes down its own."""
    algorithm, local = made({'algorithm': 'apfl', 'apfl.alpha': 0.3, 'apfl.alpha_lr': 0.01})
    state = algorithm.init(KEY)
    data = jax.tree.map(lambda x: jnp.asarray(x[0]), clients)
    theta = state.shared['theta']
    own = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), theta)
    private = {**algorithm.init_private(state, jnp.int32(0)), 'own': own}
    learning, end = algorithm.client_update.begin(state.shared, private, data, KEY)
    batch, tau = query_batch(local, data, KEY)
    (_, told), found = learning.gradient({'theta': theta, 'own': own}, batch, tau, KEY)

    def loss(own, alpha):
        between = jax.tree.map(lambda v, w: alpha * v + (1 - alpha) * w, own, theta)
        return batch_loss(local, between, batch)[0]

    of_own, of_alpha = jax.grad(loss, (0, 1))(own, 0.3)
    assert_close(found['own'], of_own, 1e-3)
    assert told['alpha'] == pytest.approx(float(of_alpha), rel=1e-3) and abs(of_alpha) > 1e-3
    steps = jax.tree.map(lambda x: x[None], told)
    new = end(Learned({'theta': theta, 'own': own}, jnp.zeros(()), steps))[1]
    assert new['alpha'] == pytest.approx(0.3 - 0.01 * float(of_alpha), rel=1e-4)


@pytest.mark.parametrize('alpha', [0.0, 1.0])
def test_apfl_lies_between_fedavg_and_learning_alone(clients, fedavg, alpha):
    changes = {'algorithm': 'apfl', 'apfl.alpha': alpha, 'apfl.alpha_lr': 0.0}
    state, private_C, _ = roll(changes, clients)
    algorithm, _ = made(changes)
    data, private = (jax.tree.map(lambda x: x[0], tree) for tree in (clients, private_C))
    params = algorithm.personalize(state.shared, private, data, None, KEY)['params']
    if alpha == 0:
        assert_same(params, fedavg.shared['theta'])
    else:
        _, alone_C, _ = roll({'algorithm': 'local_only'}, clients)
        assert_close(params, jax.tree.map(lambda x: x[0], alone_C['theta']), 1e-5)
