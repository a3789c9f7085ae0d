"""Drawn centers that train beside those of a folder."""

import json

import jax
import numpy as np
import pytest
from drawn import cells_folder, dense_folder

from configs.common import METHODS, base
from fedgen_jax import feed
from fedgen_jax.data import synthetic
from fedgen_jax.data.check import say
from fedgen_jax.run import prepare, restore
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import train


def config_of(root, **changes):
    c = base()
    c.update_from_flattened_dict({
        'data.root': str(root), 'data.cache': str(root.parent / 'cache'), 'data.image_size': 16,
        'data.held_out': 'synthetic-2', 'data.virtual': 9, 'data.virtual_share': 0.5,
        'data.virtual_examples': 10, 'algorithm': 'fedavg', 'seed': 7, 'rounds': 4,
        'model.widths': (8,), 'local_steps': 1, 'batch_size': 4, 'shifts.acquisition': 0.0,
        'eval_every': 4, 'checkpoint_every': 2, **changes,
    })
    return c


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return cells_folder(tmp_path_factory.mktemp('cells') / 'root', 3, 10, 16)


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
    """A run, and its summary."""
    workdir = tmp_path_factory.mktemp('run') / 'whole'
    return workdir, train(config_of(root), workdir, progress=False)


@pytest.mark.extended
def test_a_round_has_every_center_and_its_share_of_drawn_ones(root):
    run = prepare(config_of(root))
    rounds = list(feed.cohorts(run, 0))
    assert [c.own.tolist() for c in rounds] == [[0, 1]] * 4
    drawn = {int(i) for c in rounds for i in c.number_K[2:]}
    assert all(len(c.number_K) == 4 for c in rounds)
    assert len(drawn) > 3 and drawn <= {*range(2, 11)}
    last = rounds[-1]
    np.testing.assert_array_equal(last.id_K, last.number_K)
    np.testing.assert_array_equal(
        last.data_K.weight.sum(1), [*(sum(c.split == 0) for c in run.seen), 10, 10]
    )
    expected = synthetic.draw_client(
        jax.random.key(7), int(last.number_K[2]) - 2, 10, 16, spread=2.0
    )
    np.testing.assert_array_equal(last.data_K.image[2], expected.image)


def test_what_is_assumed_is_told_in_a_line(root, capsys):
    say.cache_clear()
    prepare(config_of(root, **{'data.virtual_classes': ('basophil=',)}))
    (line,) = [x for x in capsys.readouterr().err.splitlines() if 'a round trains' in x]
    assert line == (
        'note: a round trains 2 of 2 seen centers and 2 of 9 drawn ones, of 10 images; '
        "drawn 'basophil': no such class here, so their labels are unknown"
    )


def test_drawn_centers_change_the_model_and_are_not_scored(root, whole, tmp_path):
    workdir, summary = whole
    assert summary['title'] == 'FedAvg + drawn centers'
    assert summary['seen']['centers'].keys() == {'synthetic-0', 'synthetic-1'}
    assert set(restore(workdir).private_C['id']) == {0, 1}
    train(config_of(root, **{'data.virtual_share': 0.0}), tmp_path / 'own', progress=False)
    own, beside = (restore(x).state.shared['theta'] for x in (tmp_path / 'own', workdir))
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(beside)))
    federations = [json.loads((x / 'federation.json').read_text())
                   for x in (tmp_path / 'own', workdir)]
    assert federations[0] == federations[1]


def test_it_resumes_and_is_scored_again_to_the_bit(root, whole, tmp_path):
    workdir, summary = whole
    train(config_of(root, rounds=2), tmp_path, progress=False)
    resumed = train(config_of(root), tmp_path, progress=False)
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path).state, restore(workdir).state)
    again = evaluate_run(tmp_path)
    for other in (resumed, again):
        assert {k: v for k, v in other.items() if k != 'cost'} == {
            k: v for k, v in summary.items() if k != 'cost'
        }


def test_drawn_only_learns_nothing_of_the_folder(root, tmp_path):
    """The model is the same whichever of the centers are held out."""
    row = {**METHODS['drawn only'], 'data.virtual': 9}
    states = []
    for held_out in ('synthetic-2', 'synthetic-1'):
        c = config_of(root, **row, **{'data.held_out': held_out})
        summary = train(c, tmp_path / held_out, progress=False)
        assert summary['title'] == 'FedAvg, drawn centers alone'
        assert len(summary['seen']['centers']) == 2
        states.append(restore(tmp_path / held_out).state)
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize('target', ['mask', 'box'])
def test_targets_of_both_kinds_stack(target, tmp_path):
    root = dense_folder(tmp_path / 'root', target, 3, 10, 16)
    task, model = {'mask': ('segmentation', 'unet'), 'box': ('detection', 'detector')}[target]
    c = config_of(root, task=task, **{'model.name': model, 'model.widths': (4, 8, 16)})
    run = prepare(c)
    data_K = next(feed.cohorts(run, 0)).data_K
    assert data_K.image.shape == (4, 10, 16, 16, 3)
    assert set(data_K.target) == set(run.seen[0].examples.target)
    # Both kinds have the same classes, for the folder's are the drawn ones.
    numbers = np.asarray(data_K.target['mask' if target == 'mask' else 'box_class'])
    assert set(numbers[0].flat) | {-1} == set(numbers[2].flat) | {-1} == {-1, 0, 1, 2}
    if target == 'box':
        assert run.seen[0].examples.target['box'].shape[1] < synthetic.MAX_BOXES
        assert data_K.target['box'].shape == (4, 10, synthetic.MAX_BOXES, 4)


def test_few_drawn_centers_are_drawn_once(root, monkeypatch):
    run, drawn = prepare(config_of(root)), []

    def draw(drawing, i):
        drawn.append(i)
        return run.seen[0].examples._replace(weight=np.ones(10, np.float32))

    monkeypatch.setattr(feed, 'draw_virtual', draw)
    examples_of = feed.keeping(run)
    first = examples_of(5)
    assert examples_of(5) is first and drawn == [3]
    monkeypatch.setattr(feed, 'KEPT', 8 * sum(x.nbytes for x in jax.tree.leaves(first)))
    examples_of = feed.keeping(run)  # nine centers have no room
    assert examples_of(5) is not examples_of(5) and drawn == [3, 3, 3]
