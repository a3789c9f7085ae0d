"""What is served at the end is the mean of the last rounds' states; training does not notice."""

import functools

import jax
import numpy as np
import pytest
import rolling
from families import KEY, NEEDS, assert_same, configured, drawn_clients
from jax.interpreters.partial_eval import dce_jaxpr

from fedgen_jax import checkpoint
from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.algorithms.averaging import SERVED, averaged, served
from fedgen_jax.data import synthetic
from fedgen_jax.engine.rounds import client_mesh, make_rounds
from fedgen_jax.hypernet import descriptor
from fedgen_jax.interrupt import Stopped
from fedgen_jax.program import make_algorithm
from fedgen_jax.run import restore
from fedgen_jax.settings import refusal, settings_of
from fedgen_jax.statistics import read_statistics
from fedgen_jax.train import train

ROUNDS = 4
RUNNING = {'model.norm': 'batch', 'statistics': 'running'}
NAMES = {
    'fedavg': {'algorithm': 'fedavg', **RUNNING},
    'fedgen': {'algorithm': 'fedgen', 'fedgen.modes': ('film',), **RUNNING},
    'scaffold': {'algorithm': 'scaffold'},
    'ditto': {'algorithm': 'ditto'},
}
REST = ('scaffold', 'ditto')


def test_all_that_a_finished_model_is_made_from_is_averaged():
    """Of every algorithm: what the server's state holds besides steers training alone."""
    data = jax.tree.map(lambda x: x[0], drawn_clients())
    for name in ALGORITHMS:
        c = configured({'algorithm': name, **NEEDS.get(name, {})})
        algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
        if not algorithm.server_model:
            continue
        shared = jax.eval_shape(algorithm.init, KEY).shared

        def finished(shared, algorithm=algorithm):
            return algorithm.personalize(shared, None, data, None, KEY)

        made = jax.make_jaxpr(finished)(shared).jaxpr
        _, used = dce_jaxpr(made, [True] * len(made.outvars))
        paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(shared))
        read = {path[0].key for path, is_used in zip(paths, used) if is_used}
        assert read and read <= set(SERVED), name


def made(name, average):
    changes = {**NAMES[name], 'server.average': average, 'rounds': ROUNDS}
    return make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)[0]


@functools.cache
def states(name, average, *stops):
    """[(state, private_C)] after each of `stops`, of which the first is 0."""
    algorithm, mesh = made(name, average), client_mesh(1)
    started = rolling.start(algorithm, mesh, drawn_clients())
    return rolling.run(make_rounds(algorithm, mesh, 'map'), started, *stops)[0]


@pytest.mark.parametrize(
    'name', ['fedavg', *(pytest.param(x, marks=pytest.mark.extended) for x in ('fedgen', *REST))]
)
def test_it_is_the_mean_of_the_states_and_training_goes_on_as_without(name):
    plain, mean = (states(name, average, 0, 1, 2, 3, 4) for average in (0.0, 0.5))
    for (before, private_C), (now, private_too) in zip(plain[:-1], mean[:-1]):
        assert_same(now.shared, before.shared)
        assert_same(now.optimizer['own'], before.optimizer)
        assert_same(private_too, private_C)
    (third, _), (fourth, private_C) = plain[2:]
    last, private_too = mean[-1]
    assert_same(private_too, private_C)
    expected = jax.tree.map(lambda a, b: (a + b) / 2, served(third), served(fourth))
    assert 'theta' in expected and ('phi' in expected) == (name == 'fedgen')
    assert ('statistics' in expected) == (name in ('fedavg', 'fedgen'))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), served(last), expected
    )
    for entry in set(last.shared) - set(expected):  # 'round', and SCAFFOLD's variate
        assert_same(last.shared[entry], fourth.shared[entry])


@pytest.mark.extended
def test_fedgen_s_base_is_fedavg_s_averaged_model_to_the_bit():
    (over, _), (alone, _) = (states(n, 0.5, 0, 1, 2, 3, 4)[-1] for n in ('fedgen', 'fedavg'))
    for entry in ('theta', 'statistics'):
        assert_same(over.shared[entry], alone.shared[entry])


def test_the_mean_over_the_last_round_is_that_round_to_the_bit():
    (*_, (plain, _)), (*_, (mean, _)) = (
        states('fedavg', a, 0, 1, 2, 3, 4) for a in (0.0, 1 / ROUNDS)
    )
    assert_same(mean.shared, plain.shared)


def test_off_it_is_the_algorithm_itself_and_so_is_one_without_a_server_s_model():
    plain = made('fedavg', 0.0)
    assert averaged(plain, 0.0, ROUNDS) is plain
    alone = make_algorithm(configured({'algorithm': 'local_only'}), 16, synthetic.CLASSES, 3)[0]
    assert averaged(alone, 0.5, ROUNDS) is alone
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match='server.average=.*from 0 to 1'):
            averaged(plain, share, ROUNDS)


class OnceAsked:
    """A stop that is set when it is asked for the `n`-th time: after n - 1 rounds."""

    def __init__(self, n):
        self.left = n

    def is_set(self):
        self.left -= 1
        return self.left <= 0


@pytest.mark.extended
def test_a_stopped_run_resumes_bit_identically_and_describes_centers_by_the_mean(tmp_path):
    c = configured({
        'rounds': ROUNDS, 'eval_every': 1, 'checkpoint_every': 1, 'data.source': 'synthetic',
        'data.centers': 3, 'data.examples': 20, 'data.held_out': 'synthetic-2',
        'data.cache': str(tmp_path / 'cache'), 'server.average': 0.5, 'fedgen.modes': ('film',),
    })
    whole = train(c, tmp_path / 'whole', progress=False)
    with pytest.raises(Stopped):
        train(c, tmp_path / 'again', progress=False, stop=OnceAsked(ROUNDS))
    stopped = restore(tmp_path / 'again')
    assert stopped.round == ROUNDS - 1  # inside what is averaged
    resumed = train(c, tmp_path / 'again', progress=False)
    done = restore(tmp_path / 'again')
    assert_same(done.state, restore(tmp_path / 'whole').state)
    assert resumed['unseen'] == whole['unseen']
    psi = descriptor.hash_of(done.state.shared['psi'])
    assert read_statistics(tmp_path / 'again').pooled.psi == psi
    assert psi != descriptor.hash_of(stopped.state.shared['psi'])
    kept = checkpoint.server_weights(tmp_path / 'again')  # what another run starts from
    theta = jax.tree.leaves(done.state.shared['theta'])
    assert any(np.array_equal(kept['params/head/bias'], x) for x in theta)


def test_such_a_run_cannot_be_made_longer():
    c = configured({'rounds': 4, 'server.average': 0.5})
    made_, longer = settings_of(c), settings_of(configured({'rounds': 6, 'server.average': 0.5}))
    assert 'cannot be made longer' in refusal(made_, longer, longer)
    assert not refusal(made_, made_, made_)
    plain, more = (settings_of(configured({'rounds': n})) for n in (4, 6))
    assert not refusal(plain, more, more)
