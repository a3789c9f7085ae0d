"""Cohorts: the same training wherever the images wait, and centers that exist for a round."""

import threading

import jax
import numpy as np
import pytest
from processes import small_run

from configs.common import base
from fedgen_jax import feed
from fedgen_jax.data import synthetic
from fedgen_jax.run import prepare, restore
from fedgen_jax.train import train


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    c = small_run(tmp_path_factory.mktemp('data'))
    c.rounds, c.eval_every, c.checkpoint_every = 5, 5, 5
    return c


def end_of(config, workdir, **changes):
    c = config.copy_and_resolve_references()
    c.update_from_flattened_dict(changes)
    summary = train(c, workdir, progress=False)
    return summary['seen'], restore(workdir).state


@pytest.fixture(scope='module')
def plain(config, tmp_path_factory):
    return end_of(config, tmp_path_factory.mktemp('plain') / 'run')


@pytest.mark.parametrize('changes', [{'data.images': 'disk'}, {'cohort': 2},
                                     {'cohort': 2, 'data.images': 'disk'}])
def test_where_the_images_wait_changes_no_bit(config, plain, tmp_path, changes):
    seen, state = plain
    seen_too, state_too = end_of(config, tmp_path / 'run', **changes)
    assert seen == seen_too
    jax.tree.map(np.testing.assert_array_equal, state, state_too)


def test_private_states_of_a_cohort_are_its_own(config, tmp_path):
    """Local learning in cohorts of one: a center moves in its own rounds alone."""
    changes = {'algorithm': 'local_only', 'cohort': 1}
    end_of(config, tmp_path, **changes)
    theta_C = jax.tree.leaves(restore(tmp_path).private_C['theta'])
    assert all((x[0] != x[1]).any() for x in theta_C if x.any())
    c = config.copy_and_resolve_references()
    c.update_from_flattened_dict({**changes, 'rounds': 1, 'eval_every': 1})
    train(c, tmp_path / 'one', progress=False)
    learned = next(feed.cohorts(prepare(c), 0)).number_K[0]
    first = restore(tmp_path / 'one')
    moved = [
        any((x[i] != y).any() for x, y in zip(
            jax.tree.leaves(first.private_C['theta']), jax.tree.leaves(first.state.shared['first'])
        )) for i in range(2)
    ]
    assert moved == [i == learned for i in range(2)]


def test_a_run_in_cohorts_goes_on_to_the_same_end(config, tmp_path):
    changes = {'algorithm': 'local_only', 'cohort': 1, 'rounds': 6}
    _, whole = end_of(config, tmp_path / 'whole', **changes)
    end_of(config, tmp_path / 'run', **{**changes, 'rounds': 3})
    (tmp_path / 'run' / 'config.json').unlink()
    _, state = end_of(config, tmp_path / 'run', **changes)
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    kept = [restore(tmp_path / name).private_C for name in ('run', 'whole')]
    jax.tree.map(np.testing.assert_array_equal, *kept)


@pytest.fixture
def virtual(tmp_path):
    c = base()
    c.update_from_flattened_dict({
        'data.source': 'synthetic', 'data.centers': 3, 'data.examples': 10, 'data.image_size': 16,
        'data.virtual': 50, 'data.held_out': 'synthetic-2', 'data.cache': str(tmp_path / 'cache'),
        'cohort': 4, 'rounds': 3, 'model.widths': (8,), 'local_steps': 1, 'batch_size': 4,
        'fedgen.support': 4, 'fedgen.modes': ('film',), 'shifts.acquisition': 0.0, 'eval_every': 3,
        'checkpoint_every': 3, 'devices': 1,
    })
    return c


@pytest.mark.extended
def test_virtual_centers_train_and_leave_nothing(virtual, tmp_path):
    run = prepare(virtual)
    rounds = [c.number_K for c in feed.cohorts(run, 0)]
    assert len(rounds) == 3 and all(len(k) == 4 for k in rounds)
    assert max(k.max() for k in rounds) >= 2  # two are seen, the others virtual
    # The first virtual center is the one after the three that the source names.
    drawn = feed.training_examples(run, 2)
    expected = synthetic.draw_client(jax.random.key(0), 3, 10, 16)
    np.testing.assert_array_equal(drawn.image, expected.image)
    summary = train(virtual, tmp_path / 'run', progress=False)
    assert set(summary['seen']['centers']) == {'synthetic-0', 'synthetic-1'}
    assert set(restore(tmp_path / 'run').private_C['id']) == {0, 1}


def test_the_next_cohort_is_fetched_while_a_round_trains(virtual, monkeypatch):
    fetched, second = [], threading.Event()
    examples = feed.training_examples

    def watched(run, number):
        fetched.append(number)
        if len(fetched) == 2 * run.config.cohort:
            second.set()
        return examples(run, number)

    monkeypatch.setattr(feed, 'training_examples', watched)
    rounds = feed.cohorts(prepare(virtual), 0)
    next(rounds)
    assert second.wait(60)
    rounds.close()
    assert len(fetched) == 2 * virtual.cohort  # one ahead, and no more


@pytest.mark.parametrize(
    ('changes', 'message'),
    [({'cohort': 0}, 'data.virtual=50: .*or with a cohort'),
     ({'data.source': 'folder'}, 'data.virtual_classes: .*the classes are a0, a1'),
     ({'algorithm': 'local_only'}, 'data.virtual=50: .*Local only'),
     ({'algorithm': 'scaffold', 'cohort': 0, 'data.virtual_share': 0.5}, 'data.virtual=50'),
     ({'fedgen.descriptor': 'onehot'}, 'data.virtual=50')],
)
def test_virtual_centers_are_refused_where_they_make_no_sense(config, virtual, changes, message):
    virtual.update_from_flattened_dict(changes)
    if virtual.data.source == 'folder':
        virtual.data.root, virtual.data.held_out = config.data.root, ''
    with pytest.raises(ValueError, match=message) as error:
        prepare(virtual)
    assert '\n' not in str(error.value)
