"""Whole runs whose sums are taken under masks, or by a robust rule: trained, resumed, refused."""

import json

import numpy as np
import pytest
from drawn import cells_folder

from configs.common import base
from fedgen_jax import budget, checkpoint, schema
from fedgen_jax.run import prepare
from fedgen_jax.train import train


def config_of(root, **changes):
    c = base()
    c.update_from_flattened_dict({
        'data.root': str(root), 'data.cache': str(root.parent / 'cache'), 'data.image_size': 16,
        'algorithm': 'fedgen', 'rounds': 4, 'model.widths': (8,), 'local_steps': 1,
        'batch_size': 4, 'fedgen.support': 4, 'fedgen.modes': ('film',), 'shifts.acquisition': 0.0,
        'eval_every': 4, 'checkpoint_every': 2, 'secure.on': True, **changes,
    })
    return c


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return cells_folder(tmp_path_factory.mktemp('cells') / 'root', 4, 10, 16)


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('run') / 'whole'
    return workdir, train(config_of(root), workdir, progress=False)


def loss_of(workdir):
    return json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])['loss']


def test_a_run_under_masks_ends_as_the_plain_one_and_tells_what_the_server_saw(
    root, whole, tmp_path
):
    workdir, summary = whole
    plain = train(config_of(root, **{'secure.on': False}), tmp_path / 'plain', progress=False)
    assert 'secure' not in plain
    assert loss_of(workdir) == pytest.approx(loss_of(tmp_path / 'plain'), abs=1e-3)
    assert json.loads((workdir / 'summary.json').read_text())['secure'] == summary['secure']
    told = summary['secure']
    assert told.keys() == schema.SecureSums.__required_keys__
    assert told['a_round'].keys() == schema.SecureRound.__required_keys__
    assert (told['clients'], told['threshold'], told['word']) == (4, 3, 64)
    words = summary['cost']['bytes_up']
    assert words == 2 * plain['cost']['bytes_up']  # 64 bits a number, and float32 without masks
    assert words < told['a_round']['bytes_up'] < words + 4 * 400
    assert min(told['a_round'].values()) > 0


def test_a_run_that_is_called_again_ends_to_the_bit(root, whole, tmp_path):
    train(config_of(root, rounds=2, **{'client.schedule': 'constant'}), tmp_path / 'a',
          progress=False)
    longer = config_of(root, **{'client.schedule': 'constant'})
    again = train(longer, tmp_path / 'a', progress=False)
    once = train(longer, tmp_path / 'b', progress=False)
    assert again['seen'] == once['seen']
    assert loss_of(tmp_path / 'a') == loss_of(tmp_path / 'b')
    # Nothing to train any more: what a sum costs is not known, and all else is.
    done = train(longer, tmp_path / 'a', progress=False)
    assert done['secure'] == {**once['secure'], 'a_round': None}


def test_drawn_centers_and_cohorts_train_under_masks(root, tmp_path):
    mixed = config_of(root, algorithm='fedavg', **{
        'data.virtual': 9, 'data.virtual_share': 0.5, 'data.virtual_examples': 8})
    summary = train(mixed, tmp_path / 'mixed', progress=False)
    assert (summary['secure']['clients'], summary['secure']['drawn']) == (4, 4)
    cohort = config_of(root, algorithm='fedavg', cohort=3)
    summary = train(cohort, tmp_path / 'cohort', progress=False)
    assert (summary['secure']['clients'], summary['secure']['threshold']) == (3, 3)


def test_a_method_without_a_server_s_model_runs_under_masks_too(root, tmp_path):
    summary = train(config_of(root, algorithm='local_only'), tmp_path / 'run', progress=False)
    assert summary['cost']['bytes_up'] == 0 and np.isfinite(loss_of(tmp_path / 'run'))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data.held_out': 'synthetic-2,synthetic-3'}, 'secure.on: 2 clients'),
        ({'cohort': 2}, 'secure.on: 2 clients'),
        ({'secure.threshold': 0.5}, 'secure.threshold: 2 of 4'),
        ({'secure.word': 16}, 'secure.word'),
    ],
)
def test_what_would_protect_nobody_is_refused_and_leaves_no_folder(
    root, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message) as error:
        train(config_of(root, **changes), tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value) and not (tmp_path / 'run').exists()


def test_a_run_does_not_go_on_in_the_clear(root, whole):
    workdir, _ = whole
    with pytest.raises(ValueError, match='secure.on=True, now False'):
        train(config_of(root, **{'secure.on': False}), workdir, progress=False)


def test_runs_with_and_without_masks_share_no_program(root):
    assert prepare(config_of(root)).program is prepare(config_of(root)).program
    plain = prepare(config_of(root, **{'secure.on': False})).program
    assert plain is not prepare(config_of(root)).program and plain.secure is None


@pytest.mark.parametrize('rule', ['bound', 'krum'])
def test_a_run_by_a_robust_rule_trains_and_says_so(root, tmp_path, rule):
    plain = config_of(root, weighting='uniform', **{'secure.on': False})
    attackers = 0 if rule == 'krum' else 1
    plain.algorithm = 'fedavg' if rule == 'krum' else 'fedgen'
    config = plain.copy_and_resolve_references()
    config.robust.rule, config.robust.attackers = rule, attackers
    summary = train(config, tmp_path / 'run', progress=False)
    assert summary['privacy']['robust'] == {'rule': rule, 'attackers': attackers, 'bound': 1.0}
    assert 'secure' not in summary and np.isfinite(loss_of(tmp_path / 'run'))
    with pytest.raises(ValueError, match=r'another configuration \(robust\.'):
        train(plain, tmp_path / 'run', progress=False)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'secure.on': True}, 'secure.on hides them'),
        ({'weighting': 'examples'}, 'must be uniform'),
        ({'robust.attackers': 2}, 'median holds against 1'),
    ],
)
def test_a_rule_that_could_not_hold_is_refused(root, tmp_path, changes, message):
    config = config_of(root, **{
        'secure.on': False, 'weighting': 'uniform', 'robust.rule': 'median', **changes})
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_private_steps_go_under_masks(root, tmp_path, monkeypatch):
    """Noise of each center's own, and a sum that hides whose: neither changes the other."""
    pytest.importorskip('dp_accounting', reason='the extra `privacy`')
    private = {
        'algorithm': 'fedavg', 'weighting': 'uniform', 'client.schedule': 'constant',
        'privacy.unit': 'image', 'privacy.public': '', 'privacy.delta': 1e-3, 'privacy.rate': 0.5,
        'privacy.seed': '7', 'privacy.secrets': str(tmp_path / 'keys'),
    }
    # Runs of other settings draw other noise; here both draw the same.
    monkeypatch.setattr(budget, 'run_of', lambda config: 'of both')
    weights, spent = {}, {}
    for on in (False, True):
        workdir = tmp_path / f'{on}'
        summary = train(config_of(root, **private, **{'secure.on': on}), workdir, progress=False)
        weights[on], spent[on] = checkpoint.server_weights(workdir), summary['privacy']['epsilon']
    assert spent[True] == spent[False] <= 8
    for name, x in weights[False].items():
        np.testing.assert_allclose(weights[True][name], x, atol=1e-6, err_msg=name)
