"""What every algorithm of ALGORITHMS promises, and what the small ones are made of."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import centers
from families import KEY, NEEDS, C, assert_close, assert_same, configured, drawn_clients, roll

from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.algorithms.learning import Learned
from fedgen_jax.algorithms.local import query_batch, task_gradient
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import Examples, stack
from fedgen_jax.interrupt import Stopped
from fedgen_jax.program import make_algorithm
from fedgen_jax.report.gather import report_run
from fedgen_jax.run import restore
from fedgen_jax.shifts import gamma
from fedgen_jax.train import train

# `make test` has these, `make test-extended` all.
ALWAYS = ('fedgen', 'fedavg')
ENTRIES = [x if x in ALWAYS else pytest.param(x, marks=pytest.mark.extended) for x in ALGORITHMS]


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module', params=ENTRIES)
def rolled(request, clients):
    """(name, its algorithm, what two rounds make of it)."""
    changes = {'algorithm': request.param, **NEEDS.get(request.param, {})}
    algorithm, _ = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    return request.param, algorithm, roll(changes, clients)


def test_it_says_what_the_rest_of_the_code_asks(rolled):
    name, algorithm, (state, private_C, _) = rolled
    assert any(letter.isupper() for letter in algorithm.title)
    assert set(algorithm.sizes.values()) <= set(state.shared)
    assert state.shared['round'] == 2
    first = jax.vmap(algorithm.init_private, (None, 0))(
        jax.eval_shape(algorithm.init, KEY) and jax.jit(algorithm.init)(KEY), jnp.arange(C)
    )
    own = [k for k in first if k != 'id']
    by_number = name in ('elcfs', 'pfedhn')  # what is its own lies at the server by its number
    assert algorithm.keeps == (bool(own) or by_number), 'what is kept is more than a number'


@pytest.mark.parametrize('name', ALGORITHMS)
def test_it_reads_no_other_algorithm_s_fields(name):
    c = configured({'algorithm': name, **NEEDS.get(name, {})})
    for other in set(ALGORITHMS) - {name}:
        if other in c:
            del c[other]
    jax.eval_shape(make_algorithm(c, 16, synthetic.CLASSES, 3)[0].init, KEY)


def test_a_client_without_examples_sends_exact_zeros_and_keeps_its_state(rolled):
    name, algorithm, _ = rolled
    data = jax.tree.map(jnp.zeros_like, stack([centers(1, 4, 16)[0].examples]))
    data = jax.tree.map(lambda x: x[0], data._replace(target={'label': data.target['label']}))
    state = jax.jit(algorithm.init)(KEY)
    private = algorithm.init_private(state, jnp.int32(1))
    sent, kept, _ = jax.jit(algorithm.client_update)(state.shared, private, data, KEY)
    assert not any(x.any() for x in jax.tree.leaves(sent))
    if algorithm.server_model:  # who learns alone steps on nothing, and is never scored
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), kept, private)
        assert name == 'ditto' or not any(jax.tree.leaves(moved))


def test_the_order_of_clients_does_not_matter(rolled, clients):
    name, _, (state, private_C, metrics) = rolled
    changes = {'algorithm': name, **NEEDS.get(name, {})}
    other, private_too, metrics_too = roll(changes, clients, order=(2, 3, 0, 1))
    assert_close(other.shared, state.shared, 2e-4)
    assert_close(metrics_too, metrics, 2e-4)
    again = jax.tree.map(lambda x: x[np.array([2, 3, 0, 1])], private_too)
    assert_close(again, private_C, 2e-4)


@pytest.fixture(scope='module', params=ENTRIES)
def finished(request, tmp_path_factory):
    """(folder, summary, configuration) of a whole small run, one center unseen."""
    c = configured({
        'algorithm': request.param, **NEEDS.get(request.param, {}),
        'rounds': 2, 'eval_every': 1, 'checkpoint_every': 1,
        'data.source': 'synthetic', 'data.centers': 3, 'data.examples': 20,
        'data.held_out': 'synthetic-2', 'data.cache': str(tmp_path_factory.mktemp('cache')),
    })
    workdir = tmp_path_factory.mktemp(request.param) / 'run'
    return workdir, train(c, workdir, progress=False), c


def test_a_stranger_is_scored_and_a_report_renders(finished):
    workdir, summary, _ = finished
    scores = summary['unseen']['centers']['synthetic-2']
    assert scores['n'] == 20 and 0 <= scores['balanced_accuracy'] <= 1
    assert json.loads((workdir / 'summary.json').read_text()) == json.loads(json.dumps(summary))
    page = report_run(workdir).read_text()
    assert summary['title'] in page and 'synthetic-2' in page
    assert summary['cost']['parameters']['base'] > 0


class OnceBegun(threading.Event):
    """It is set when it is asked for the second time: after the first round."""

    def is_set(self):
        before = super().is_set()
        self.set()
        return before


def test_a_stopped_run_resumes_bit_identically(finished):
    workdir, summary, c = finished
    again = workdir.parent / 'again'
    with pytest.raises(Stopped):
        train(c, again, progress=False, stop=OnceBegun())
    assert restore(again).round == 1
    summary_too = train(c, again, progress=False)
    assert_same(restore(again).state, restore(workdir).state)
    assert_same(restore(again).private_C, restore(workdir).private_C)
    assert summary_too['seen'] == summary['seen']


# --------------------------------------------------------------- FedAvg, by another way


def test_fedprox_without_its_term_is_fedavg_to_the_bit(clients):
    expected, _, _ = roll({'algorithm': 'fedavg'}, clients)
    for mu in (0.0, 0.5):
        state, _, _ = roll({'algorithm': 'fedprox', 'fedprox.mu': mu}, clients)
        same = jax.tree.map(np.array_equal, state.shared['theta'], expected.shared['theta'])
        assert all(jax.tree.leaves(same)) == (mu == 0)


def test_fedprox_holds_clients_near_what_they_were_sent(clients):
    def moved(mu):
        changes = {'algorithm': 'fedprox', 'fedprox.mu': mu, 'local_steps': 6, 'client.clip': 0.0}
        first, _, _ = roll(changes, clients, rounds=0)
        state, _, _ = roll(changes, clients, rounds=1)
        gaps = jax.tree.map(jnp.subtract, state.shared['theta'], first.shared['theta'])
        return sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gaps))

    assert moved(1.0) < 0.9 * moved(0.0)


def test_scaffold_begins_as_fedavg_to_the_bit_and_its_variates_sum_to_zero(clients):
    expected, _, _ = roll({'algorithm': 'fedavg'}, clients, rounds=1)
    state, _, _ = roll({'algorithm': 'scaffold'}, clients, rounds=1)
    assert_same(state.shared['theta'], expected.shared['theta'])
    state, private_C, _ = roll({'algorithm': 'scaffold'}, clients, rounds=3)
    total = jax.tree.map(lambda c_C, c: (c_C - c)[:3].sum(0), private_C['variate'],
                         state.shared['variate'])
    largest = max(np.abs(x).max() for x in jax.tree.leaves(private_C['variate']))
    assert max(np.abs(x).max() for x in jax.tree.leaves(total)) < 1e-5 * largest
    assert not any(x[3].any() for x in jax.tree.leaves(private_C['variate']))  # no examples


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_scaffold_s_variate_is_the_mean_gradient(clients, momentum):
    """Of a loss with one gradient everywhere it is that gradient, momentum or none."""
    from fedgen_jax.baselines.scaffold import steps_with

    rate, steps, gradient = 0.1, 5, 3.0
    velocity = place = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + gradient
        place -= rate * velocity
    assert -place / (rate * steps_with(momentum, steps)) == pytest.approx(gradient)


@pytest.mark.parametrize('weighting, optimum', [('examples', 1.0), ('uniform', 5.0)])
def test_scaffold_s_fixed_point_is_fedavg_s_optimum(weighting, optimum):
    """Of w^2 / 2 at nine tenths of the examples and (w - 10)^2 / 2 at the others."""
    goal_C, number_C = np.array([0.0, 10.0]), np.array([9, 1])
    c = configured({
        'algorithm': 'scaffold', 'weighting': weighting, 'client.clip': 0.0, 'local_steps': 3,
        'client.momentum': 0.0, 'client.lr': 0.2, 'rounds': 40,
    })
    algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 2)
    state = jax.jit(algorithm.init)(KEY)
    one = {'theta': {'w': jnp.zeros(())}, 'variate': {'w': jnp.zeros(())}}
    shared = {**state.shared, **one}
    state = state._replace(shared=shared, optimizer=optimizer('server', c.server).init(
        {'theta': one['theta']}
    ))
    private = [{'id': i, 'variate': one['variate']} for i in range(2)]
    image = np.zeros((10, 16, 16, 3), np.uint8)
    data = [
        Examples(image, {'label': np.zeros(10, np.int32)}, (np.arange(10) < n).astype(np.float32))
        for n in number_C
    ]
    for _ in range(40):
        total = None
        for i in range(2):
            _, end = algorithm.client_update.begin(state.shared, private[i], data[i], KEY)
            w, mean, own = (x['w'] for x in (
                state.shared['theta'], state.shared['variate'], private[i]['variate']
            ))
            for _ in range(c.local_steps):  # the paper's step
                w = w - c.client.lr * (w - goal_C[i] - own + mean)
            sent, private[i], _ = end(Learned({'w': w}, jnp.zeros(()), ()))
            total = sent if total is None else jax.tree.map(jnp.add, total, sent)
        state = algorithm.server_update(state, total)
    assert state.shared['theta']['w'] == pytest.approx(optimum, abs=1e-3)
    for i in range(2):  # a variate is the gradient there
        assert private[i]['variate']['w'] == pytest.approx(optimum - goal_C[i], abs=1e-2)


def test_scaffold_s_step_is_along_its_gradient_less_its_variate_plus_the_mean(clients):
    c = configured({'algorithm': 'scaffold'})
    algorithm, local = make_algorithm(c, 16, synthetic.CLASSES, 3)
    state = jax.jit(algorithm.init)(KEY)
    data = jax.tree.map(lambda x: jnp.asarray(x[0]), clients)
    own, mean = (
        jax.tree.map(lambda x, a=a: x + a, state.shared['variate']) for a in (2.0, 5.0)
    )
    shared = {**state.shared, 'variate': mean}
    private = {'id': jnp.int32(0), 'variate': own}

    @jax.jit
    def both(theta):
        learning, _ = algorithm.client_update.begin(shared, private, data, KEY)
        batch, tau = query_batch(local, data, KEY)
        return [f(theta, batch, tau, KEY)[1] for f in (learning.gradient, task_gradient(local))]

    found, plain = both(state.shared['theta'])
    assert_close(found, jax.tree.map(lambda g: g - 2 + 5, plain), 1e-5)


def test_ditto_s_global_model_is_fedavg_s_to_the_bit_and_its_own_are_others(clients):
    expected, _, _ = roll({'algorithm': 'fedavg'}, clients)
    state, private_C, _ = roll({'algorithm': 'ditto'}, clients)
    assert_same(state.shared, expected.shared)
    theta_C = jax.tree.leaves(private_C['theta'])
    assert all((x[0] != x[1]).any() for x in theta_C if x.any())


@pytest.mark.extended
def test_ditto_s_own_model_is_local_without_its_term_and_near_the_sent_one_with_it(clients):
    def own(mu, away):
        changes = {'algorithm': 'ditto', 'ditto.mu': mu, 'client.clip': 0.0, 'client.momentum': 0.0}
        algorithm, _ = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
        state, data = algorithm.init(KEY), jax.tree.map(lambda x: jnp.asarray(x[0]), clients)
        private = algorithm.init_private(state, jnp.int32(0))
        sent = {**state.shared, 'theta': jax.tree.map(lambda x: x + away, state.shared['theta'])}
        return algorithm.client_update(sent, private, data, KEY)[1]['theta']

    assert_same(own(0.0, 0.0), own(0.0, 0.5))
    alone, held = (jax.tree.leaves(own(mu, 0.5)) for mu in (0.0, 1.0))
    assert all(np.mean(b - a) > 0.01 for a, b in zip(alone, held))  # towards what was sent


def test_a_family_of_one_s_own_is_named_by_its_module(clients):
    same = roll({'algorithm': 'fedgen_jax.algorithms:fedavg'}, clients)
    assert_same(same, roll({'algorithm': 'fedavg'}, clients))


def darker(strength, edge):
    """A preset of one's own: virtual centers with less light."""
    return gamma(1 + strength, 1 + 2 * strength)


def test_virtual_centers_of_one_s_own_are_named_by_their_module(clients):
    changes = {'algorithm': 'fedavg', 'shifts.acquisition': 1.0}
    own = roll({**changes, 'shifts.preset': f'{__name__}:darker'}, clients, rounds=1)[0]
    for other in ({'shifts.acquisition': 0.0}, {}):
        theta = roll({**changes, **other}, clients, rounds=1)[0].shared['theta']
        same = jax.tree.map(np.array_equal, own.shared['theta'], theta)
        assert not all(jax.tree.leaves(same))


# ------------------------------------------------------- statistics that training keeps


@pytest.mark.parametrize(
    'name', [pytest.param('fedgen', marks=pytest.mark.extended), 'fedavg', 'ditto', 'local_only']
)
def test_running_statistics_are_those_of_training_not_of_the_center(clients, name):
    changes = {'algorithm': name, 'model.norm': 'batch', 'statistics': 'running'}
    state, private_C, _ = roll(changes, clients)
    algorithm, _ = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    data = jax.tree.map(lambda x: x[0], clients)
    dark = data._replace(image=np.zeros_like(data.image))
    private = jax.tree.map(lambda x: x[0], private_C)
    done = [algorithm.personalize(state.shared, private, d, None, KEY) for d in (data, dark)]
    if algorithm.describe is None:  # else its weights follow the images
        assert_same(done[0], done[1])
    kept = state.shared if algorithm.server_model and name != 'ditto' else private
    assert_same(done[0]['batch_stats'], kept['statistics'])
    assert any(x.any() for x in jax.tree.leaves(kept['statistics']))
