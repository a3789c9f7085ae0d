"""Trackers show what a run's folder holds, each round once."""

import json
import sys
import types

import pytest
from events import scalars

from fedgen_jax import trackers
from fedgen_jax.config import base
from fedgen_jax.interrupt import Stopped
from fedgen_jax.settings import settings_of

SUMMARY = {
    'rounds': 4, 'score_on': 'test', 'seen': {'mean': {'accuracy': 0.75}}, 'unseen': None,
    'center_model': {'seen': {'mean': {'accuracy': 0.5}}, 'unseen': None},
}
FINAL = {'test/seen/accuracy': 0.75, 'test/center_model/seen/accuracy': 0.5}


def line(round_, loss=0.5):
    return {
        'round': round_, 'seconds': 2.0, 'loss': loss, 'left_out': 0,
        'seen': {'mean': {'accuracy': round_ / 8}, 'centers': {'a': {'accuracy': 0.25}}},
    }


def config(tracker, **changes):
    c = base()
    c.update_from_flattened_dict({'tracker': tracker, **changes})
    return c


def trained(c, workdir, rounds, summary=None, before=()):
    """A run with evaluations at `rounds`, whose folder has those `before`."""
    file = workdir / 'metrics.jsonl'
    file.write_text(''.join(json.dumps(line(r)) + '\n' for r in before))
    with trackers.tracking(c, workdir) as track:
        for r in rounds:
            track(line(r))
        if summary:
            track(summary)


def test_tensorboard_has_each_round_once(tmp_path):
    c = config('tensorboard')
    trained(c, tmp_path, (2, 4))
    trained(c, tmp_path, (4,), SUMMARY, before=(2,))  # cut after 4, gone on from 2
    found = scalars(tmp_path / 'tensorboard')
    named = {(step, name): value for step, name, value in found}
    assert len(named) == len(found)
    assert {k: v for k, v in named.items() if k[1] == 'val/seen/accuracy'} == {
        (2, 'val/seen/accuracy'): 0.25, (4, 'val/seen/accuracy'): 0.5
    }
    assert named[4, 'loss'] == 0.5 and named[2, 'seconds'] == 2.0
    assert {name: v for (step, name), v in named.items() if name.startswith('test')} == FINAL


def test_of_a_private_run_the_lines_alone_are_shown(tmp_path):
    trained(config('tensorboard', **{'privacy.unit': 'patient'}), tmp_path, (4,), SUMMARY)
    names = {name for _, name, _ in scalars(tmp_path / 'tensorboard')}
    assert names == {'loss', 'seconds', 'left_out', 'val/seen/accuracy'}
    assert 'loss' not in trackers.scalars_of(line(4, loss=None))


class Wandb(types.SimpleNamespace):
    """As much of wandb as is used; keeps what it was told."""

    Error = RuntimeError

    def __init__(self):
        self.begun, self.logged, self.summary, self.ended = [], [], {}, []

    def Settings(self, **settings):  # noqa: N802
        return settings

    def init(self, **given):
        self.begun.append(given)
        return types.SimpleNamespace(
            log=lambda values, step: self.logged.append((step, values)), summary=self.summary,
            finish=lambda exit_code: self.ended.append(exit_code), offline=True,
        )


@pytest.fixture
def wandb(monkeypatch):
    fake = Wandb()
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    return fake


def test_wandb_has_one_run_and_each_round_once(tmp_path, wandb):
    c = config('wandb', method='m', **{'data.root': '/home/me/images'})
    with pytest.raises(Stopped), trackers.tracking(c, tmp_path) as track:
        track(line(2))
        track(line(4))
        raise Stopped('told to')
    trained(c, tmp_path, (4, 6), SUMMARY, before=(2,))
    assert [step for step, _ in wandb.logged] == [2, 4, 6]
    assert wandb.summary == FINAL
    first, second = wandb.begun
    assert first['id'] == second['id'] and second['resume'] == 'allow'
    assert first['name'] == 'm, none held out, seed 0'
    assert '/home/me' not in json.dumps({**first, 'dir': ''})
    assert first['settings']['console'] == 'off'
    assert wandb.ended == [0, 0]
    with pytest.raises(ValueError, match='NaN'), trackers.tracking(c, tmp_path):
        raise ValueError('NaN')
    assert wandb.ended[2:] == [1]


def test_what_wandb_refuses_is_one_line(tmp_path, wandb, monkeypatch):
    def refuse(**_):
        raise RuntimeError('no API key')

    monkeypatch.setattr(wandb, 'init', refuse)
    with pytest.raises(ValueError, match='no API key.*WANDB_MODE=offline'):
        trained(config('wandb'), tmp_path, ())


@pytest.mark.parametrize('name', ['tensorboard', 'wandb'])
def test_a_missing_package_names_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, trackers.PACKAGES[name], None)
    with pytest.raises(ValueError, match=rf"tracker={name}.*pip install 'fedgen_jax\[{name}\]'"):
        trackers.chosen(config(name))


def test_the_field(tmp_path):
    assert trackers.chosen(config('')) == []
    assert trackers.chosen(config('tensorboard, tensorboard')) == ['tensorboard']
    with pytest.raises(ValueError, match="tracker='mlflow': one of tensorboard, wandb"):
        trackers.chosen(config('mlflow'))
    assert settings_of(config('tensorboard')) == settings_of(config(''))  # the same run


def test_of_many_processes_the_first_alone_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, 'is_first', lambda: False)
    trained(config('tensorboard'), tmp_path, (2,), SUMMARY)
    assert not (tmp_path / 'tensorboard').exists()
