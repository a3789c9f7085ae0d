"""Pooled learning: of one center it is local-only learning, of many it has all of their images."""

import json

import jax
import numpy as np
import pytest
from families import KEY, assert_same, configured, drawn_clients

from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.audit.base import subject_of
from fedgen_jax.data import synthetic
from fedgen_jax.deploy.terms import check_deployable
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.feed import clients_with_room, training_examples
from fedgen_jax.program import make_algorithm
from fedgen_jax.run import prepare
from fedgen_jax.train import train


def of_one_client(name, rounds=3):
    """(shared, private) after rounds of the first drawn client alone, batch statistics kept."""
    changes = {'algorithm': name, 'model.norm': 'batch', 'statistics': 'running'}
    algorithm, _ = make_algorithm(configured(changes), 16, synthetic.CLASSES, 1)
    mesh, id_1 = client_mesh(1), np.zeros(1, np.int32)
    data_1, id_on = shard_clients((jax.tree.map(lambda x: x[:1], drawn_clients()), id_1), mesh)
    state, private_1 = init_run(algorithm, mesh, KEY, id_1)
    run = make_rounds(algorithm, mesh, 'map')
    state, private_1, _ = run(state, private_1, data_1, id_on, KEY, np.int32(0), np.int32(rounds))
    return jax.device_get((state.shared, private_1))


@pytest.mark.extended
def test_with_one_client_it_is_local_to_the_bit():
    (shared, _), (_, alone_1) = of_one_client('pooled'), of_one_client('local_only')
    alone = jax.tree.map(lambda x: x[0], alone_1)
    assert_same({k: shared[k] for k in ('theta', 'statistics')},
                {k: alone[k] for k in ('theta', 'statistics')})


def on_drawn(tmp_path, changes):
    return configured({
        'algorithm': 'pooled', 'data.source': 'synthetic', 'data.centers': 3, 'data.examples': 20,
        'data.held_out': 'synthetic-1', 'data.cache': str(tmp_path), 'rounds': 1, **changes,
    })


def test_one_client_has_the_images_of_all_seen_centers_each_on_its_own_input(tmp_path):
    run = prepare(on_drawn(tmp_path, {'input.canonical': 'brightfield'}))
    (joined,), length = clients_with_room(run)
    apart = [training_examples(run, i) for i in range(2)]
    assert len(joined.weight) == sum(len(x.weight) for x in apart) <= length == 2 * run.length
    np.testing.assert_array_equal(joined.image, np.concatenate([x.image for x in apart]))
    other = prepare(on_drawn(tmp_path, {'algorithm': 'fedavg', 'input.canonical': 'brightfield'}))
    clients, _ = clients_with_room(other)
    assert_same(clients, apart)


def test_it_takes_as_many_steps_as_the_centers_together():
    c = configured({'algorithm': 'pooled', 'local_steps': 2})
    algorithm, local = make_algorithm(c, 16, synthetic.CLASSES, 3)
    state = jax.eval_shape(algorithm.init, KEY)
    learning, _ = algorithm.client_update.begin(
        {**state.shared, 'round': np.int32(0)}, {}, drawn_clients(), KEY
    )
    assert learning.local.steps == 6 and local.steps == 2  # what follows the rounds has its own


@pytest.mark.parametrize(('changes', 'message'), [
    ({'data.virtual': 4, 'data.virtual_share': 0.5}, 'data.virtual=4: algorithm=.pooled.'),
    ({'cohort': 1}, 'cohort=1: Pooled'),
    ({'secure.on': True, 'secure.min_honest': 2}, 'secure.on'),
    ({'privacy.clip': 1.0}, 'privacy.clip=1.0'),
    ({'privacy.unit': 'patient'}, "algorithm='pooled'"),
    ({'privacy.unit': 'client'}, "algorithm='pooled'"),
    ({'robust.rule': 'median', 'robust.attackers': 0, 'weighting': 'uniform'}, 'robust.rule'),
    ({'algorithm': 'fedgen', 'fedgen.base': 'pooled'}, "fedgen.base='pooled'"),
])
def test_what_needs_a_federation_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(on_drawn(tmp_path, changes))


def test_it_is_not_deployed(tmp_path):
    c = on_drawn(tmp_path, {'data.source': 'folder', 'data.held_out': ''})
    with pytest.raises(ValueError, match="deployed: algorithm='pooled'"):
        check_deployable(c)
    assert 'pooled' in ALGORITHMS


@pytest.mark.extended
def test_a_whole_run_sends_nothing_and_is_not_audited(tmp_path):
    summary = train(on_drawn(tmp_path, {}), tmp_path / 'run', progress=False)
    assert summary['cost']['bytes_up'] == summary['cost']['bytes_down'] == 0
    assert set(summary['seen']['centers']) == {'synthetic-0', 'synthetic-2'}
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['sum_only'] is False
    with pytest.raises(ValueError, match='an audit is of what leaves a center'):
        subject_of(tmp_path / 'run')
