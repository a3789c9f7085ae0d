"""FedGen's residual form: the base is its own algorithm's to the bit, whatever the generator is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_close, assert_same, configured, drawn_clients, roll

from fedgen_jax.data import synthetic
from fedgen_jax.engine import rounds
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.models import MODELS
from fedgen_jax.models.cnn import CNN
from fedgen_jax.program import make_algorithm

BASES = ('fedavg', pytest.param('scaffold', marks=pytest.mark.extended))
LONGER = ('tent', 'atp', 'ditto')


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module', params=BASES)
def based(request, clients):
    """(base, its state after three rounds, FedGen's on it)."""
    base = request.param
    alone = roll({'algorithm': base}, clients, rounds=3)[0]
    return base, alone, roll({'fedgen.base': base}, clients, rounds=3)[0]


def test_the_base_is_its_algorithm_s_to_the_bit(based):
    _, alone, over = based
    for name, value in alone.shared.items():
        assert_same(over.shared[name], value)
    assert_same(over.optimizer['base'], alone.optimizer)


def test_the_generator_has_learned_something(based):
    base, _, over = based
    algorithm, _ = make_algorithm(configured({'fedgen.base': base}), 16, synthetic.CLASSES, 3)
    first = jax.jit(algorithm.init)(KEY)
    for name in ('phi', 'psi'):
        now, then = over.shared[name], first.shared[name]
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), now, then)
        assert max(jax.tree.leaves(moved)) > 1e-5


@pytest.mark.parametrize(
    'changes',
    [{'fedgen.descriptor': 'constant'}, {'fedgen.local': 'weights'}, {'fedgen.modes': ()}],
)
def test_controls_share_the_base(changes, based, clients):
    base, alone, _ = based
    if base == 'fedavg':
        state = roll(changes, clients, rounds=3)[0]
        assert_same(state.shared['theta'], alone.shared['theta'])


@pytest.mark.parametrize(
    'base', ['fedbn', *(pytest.param(x, marks=pytest.mark.extended) for x in ('t3a', *LONGER))]
)
def test_refined_weights_end_as_the_bases_do(base, clients):
    """What a base makes of its server's model for a center, it makes of the refined one."""
    c = configured({'fedgen.base': base, 'model.norm': 'batch'})
    algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
    state, data = algorithm.init(KEY), jax.tree.map(lambda x: x[0], clients)
    trained = algorithm.init_private(state, jnp.int32(0))
    # At first the generated change is zero.  The center model is a stranger's, of its base.
    for private, own in ((None, None), (trained, trained), ({'id': jnp.int32(-1)}, None)):
        made = algorithm.personalize(state.shared, private, data, None, KEY)
        expected = algorithm.base.personalize(state.shared, own, data, None, KEY)
        assert_close(made, expected, 1e-5)


def test_steps_on_a_code_that_changes_nothing_are_refused():
    c = configured({'fedgen.stranger_change': 0.0, 'adapt.steps': 5})
    with pytest.raises(ValueError, match='adapt.what=code: .* takes no generated change'):
        make_algorithm(c, 16, synthetic.CLASSES, 3)
    c.fedgen.modes = ()  # without a generator they are on norms
    assert make_algorithm(c, 16, synthetic.CLASSES, 3)


class HeadAlone(CNN):
    """A network of which training moves the head alone."""

    @staticmethod
    def frozen(path):
        return path[0] != 'head'


@pytest.mark.parametrize(
    'changes',
    [{}, *(pytest.param(x, marks=pytest.mark.extended)
           for x in ({'fedgen.theta': 'joint'}, {'fedgen.local': 'weights'}))],
    ids=str,
)
def test_the_generator_changes_what_training_leaves_alone(changes, clients, monkeypatch):
    monkeypatch.setitem(MODELS, 'cnn', HeadAlone)
    of_norms = {'fedgen.modes': ('film',), **changes}
    first, shared = (roll(of_norms, clients, rounds=n)[0].shared for n in (0, 3))
    for name, theta in first['theta'].items():
        if name != 'head':
            assert_same(theta, shared['theta'][name])
    change = [x for path, x in jax.tree_util.tree_leaves_with_path(shared['phi'])
              if 'norm' in path[0].key]
    assert change and all(np.abs(x).max() > 1e-6 for x in change)


def products(changes, clients, client_map='map'):
    """How many matrix products a compiled round has: what a loop repeats counts once."""
    algorithm, _ = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    mesh, id_C = client_mesh(1), np.arange(3, dtype=np.int32)
    state, private_C = init_run(algorithm, mesh, KEY, shard_clients(id_C, mesh))
    lowered = make_rounds(algorithm, mesh, client_map).lower(
        state, private_C, shard_clients(clients, mesh), shard_clients(id_C, mesh), KEY,
        np.int32(0), np.int32(1),
    )
    return lowered.compile().as_text().count(' dot(')


@pytest.mark.extended
def test_base_and_generator_pass_a_frozen_network_once(clients, monkeypatch):
    of_head = {'fedgen.modes': ('head',)}
    trained = products(of_head, clients) - products({'algorithm': 'fedavg'}, clients)
    monkeypatch.setitem(MODELS, 'cnn', HeadAlone)
    frozen = products({'algorithm': 'fedavg'}, clients)
    shared = products(of_head, clients) - frozen
    monkeypatch.setattr(rounds, 'COMPILER', {})
    apart = products(of_head, clients) - frozen
    assert shared < apart <= trained  # apart, each passes it


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'fedgen.base': 'local_only'}, 'no model at the server'),
        ({'fedgen.base': 'fedgen'}, 'another algorithm than itself'),
        ({'fedgen.base': 'none'}, 'fedgen.base='),
        ({'fedgen.theta': 'joint', 'fedgen.base': 'scaffold'}, "belong to 'residual'"),
        ({'fedgen.phase': 'after'}, 'start.weights=RUN'),
        ({'fedgen.phase': 'before'}, 'fedgen.phase='),
    ],
)
def test_what_does_not_fit_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    assert '\n' not in str(error.value)
