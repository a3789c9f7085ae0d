"""Steps without labels at unseen centers: scored beside the zero-shot models, for every method."""

import json

import jax
import numpy as np
import pytest

from fedgen_jax.config import base
from fedgen_jax.data.examples import pad
from fedgen_jax.run import after_training, reopen
from fedgen_jax.train import train

ON = {'adapt.steps': 4, 'adapt.what': 'norms', 'adapt.reach': 0.5, 'model.norm': 'batch'}


def tiny(**changes):
    """A few rounds on three drawn centers, the last unseen."""
    c = base()
    c.update_from_flattened_dict({
        'rounds': 2, 'eval_every': 2, 'checkpoint_every': 2, 'local_steps': 2, 'batch_size': 8,
        'data.source': 'synthetic', 'data.centers': 3, 'data.held_out': 'synthetic-2',
        'data.examples': 40, 'data.image_size': 16, 'model.widths': (8,),
        'fedgen.modes': ('film',), **changes,
    })
    return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('adapted')


@pytest.fixture(scope='module')
def fedgen(folder):
    return train(tiny(**ON), folder / 'fedgen', False)


def test_an_adapted_model_is_scored_beside_the_zero_shot_one(fedgen):
    for of in (fedgen, fedgen['base']):
        assert of['adapted']['centers'].keys() == of['unseen']['centers'].keys()
        name = next(iter(of['unseen']['centers']))
        assert of['adapted']['centers'][name]['n'] == of['unseen']['centers'][name]['n']


@pytest.mark.extended
def test_the_base_is_adapted_as_its_algorithm_alone(fedgen, folder):
    alone = train(tiny(**ON, algorithm='fedavg'), folder / 'fedavg', False)
    assert alone['adapted'] == fedgen['base']['adapted']


@pytest.mark.extended
def test_a_finished_run_is_scored_again_with_other_steps(fedgen, folder):
    again = train(tiny(**{**ON, 'adapt.steps': 0}), folder / 'fedgen', False)
    assert 'adapted' not in again and again['unseen'] == fedgen['unseen']
    assert again['cost'] == fedgen['cost']
    assert json.loads((folder / 'fedgen' / 'config.json').read_text())['adapt']['steps'] == 0
    assert train(tiny(**ON), folder / 'fedgen', False)['adapted'] == fedgen['adapted']


def test_steps_move_these_weights_alone_and_lower_the_objective(fedgen, folder):
    done, run = reopen(folder / 'fedgen')
    trained = after_training(run, done.state, done.private_C)
    trained = trained._replace(program=trained.program.base)
    images = pad(run.unseen[0].examples, trained.length)
    args = trained.shared, images, trained.key, None
    before = trained.program.personalize(*args[:1], None, images, None, *args[2:])
    none, _ = trained.program.adapt(*args, steps=0)
    jax.tree.map(np.testing.assert_array_equal, none, before)
    after, objective = trained.program.adapt(*args, steps=8)
    assert objective[-1] < objective[0]
    moved = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (path[0].key, bool(np.any(a != b))), before['params'], after['params']
    )
    for name, changed in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple)):
        assert changed == name.startswith('norm'), name


@pytest.mark.parametrize('changes, message', [
    ({'adapt.what': 'features'}, 'adapt.what: the model has no weight of role features'),
    ({'adapt.what': 'head'}, "adapt.what='head'"),
    ({'algorithm': 'local_only'}, 'Local only has no model for a stranger'),
])
def test_what_cannot_be_adapted_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(tiny(**{**ON, **changes}), tmp_path / 'run', False)
