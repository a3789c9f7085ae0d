"""IFCA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import centers
from families import KEY, assert_same, configured, drawn_clients, of_unequal_sizes, roll

from fedgen_jax.baselines import ifca
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import stack
from fedgen_jax.program import make_algorithm

pytestmark = pytest.mark.extended


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


def made(changes):
    return make_algorithm(configured({'algorithm': 'ifca', **changes}), 16, synthetic.CLASSES, 3)


def first_of(tree):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), tree)


def test_one_cluster_is_fedavg_to_the_bit(clients):
    clients = of_unequal_sizes(clients)
    expected = roll({'algorithm': 'fedavg'}, clients)[0].shared
    found = roll({'algorithm': 'ifca', 'ifca.clusters': 1}, clients)[0].shared
    assert_same(first_of(found['clusters']['theta']), expected['theta'])


def test_clients_of_opposite_labels_find_different_clusters():
    """Two sorts of clients, whose labels for the same images differ."""
    one = [c.examples for c in centers(1, 16, 16)][0]
    one = one._replace(target={'label': np.where(one.target['label'] > 1, 1, 0).astype(np.int32)})
    other = one._replace(target={'label': 1 - one.target['label']})
    data_C = stack([one, other, one, other])
    algorithm, _ = made({'local_steps': 8, 'client.lr': 0.3})
    state = jax.jit(algorithm.init)(KEY)
    private_C = [algorithm.init_private(state, jnp.int32(i)) for i in range(4)]
    update, move, finish = map(
        jax.jit, (algorithm.client_update, algorithm.server_update, algorithm.personalize)
    )
    for r in range(12):
        sent = []
        for i in range(4):
            data, key = jax.tree.map(lambda x, i=i: x[i], data_C), jax.random.fold_in(KEY, r)
            message, private_C[i], _ = update(state.shared, private_C[i], data, key)
            sent.append(message)
        state = move(state, jax.tree.map(lambda *xs: sum(xs), *sent))
    cluster_C = [int(p['cluster']) for p in private_C]
    assert cluster_C[0] == cluster_C[2] != cluster_C[1] == cluster_C[3]
    # With labels, a newcomer finds its own sort.
    for data, like in ((one, 0), (other, 1)):
        data = jax.tree.map(jnp.asarray, data)
        chosen = finish(state.shared, None, data, data, KEY)['params']
        assert_same(chosen, jax.tree.map(lambda x, k=cluster_C[like]: x[k],
                                         state.shared['clusters']['theta']))


def test_a_stranger_takes_the_model_that_is_surer_of_its_images(clients):
    algorithm, _ = made({})
    personalize = jax.jit(algorithm.personalize)
    shared = jax.jit(algorithm.init)(KEY).shared
    theta_K = shared['clusters']['theta']
    for sure in (0, 1):
        heads_K = jax.tree.map(lambda x, s=sure: x.at[s].multiply(50.0), theta_K['head'])
        mixed = {**shared, 'clusters': {'theta': {**theta_K, 'head': heads_K}}}
        found = personalize(mixed, None, first_of(clients), None, KEY)['params']
        assert_same(found['head'], jax.tree.map(lambda x, s=sure: x[s], heads_K))


def test_with_a_pretrained_start_the_first_clients_are_dealt_out(clients):
    changes = {'algorithm': 'ifca'}
    algorithm, local = made(changes)
    shared = jax.jit(algorithm.init)(KEY).shared
    start = {'params': jax.tree.map(lambda x: x[0], shared['clusters']['theta'])}
    algorithm = ifca.build(configured(changes), local._replace(start=start), 3)
    state = jax.jit(algorithm.init)(KEY)
    update = jax.jit(algorithm.client_update)
    clusters = [
        int(update(state.shared, algorithm.init_private(state, jnp.int32(i)),
                   jax.tree.map(lambda x, i=i: x[i], clients), KEY)[1]['cluster'])
        for i in range(3)
    ]
    assert clusters == [0, 1, 0]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [({'ifca.clusters': 0}, 'at least 1'),
     ({'task': 'multilabel'}, 'ifca.clusters=1'),
     ({'algorithm': 'fedgen', 'fedgen.base': 'ifca'}, 'not one whole one')],
)
def test_what_could_not_do_its_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(changes)
