"""Files of earlier versions, kept under `old/`, are read in today's names."""

import copy
import json
import pathlib

import pytest

from fedgen_jax import renamed

OLD = pathlib.Path(__file__).parent / 'old'


def read(name):
    return json.loads((OLD / name).read_text())


def test_one_old_switch_becomes_two():
    made = read('config.json')
    assert made['shifts']['plain'] is False  # today: flips and turns, each its own
    now = renamed.config(made)
    assert now['shifts'].pop('flips') is now['shifts'].pop('turns') is False
    del made['shifts']['plain']
    hypernet = made.pop('hypernet')
    hypernet['base_share'] = hypernet.pop('base')  # `base` is an algorithm now
    assert now.pop('fedgen') == {
        **hypernet, 'theta': 'joint', 'local': made.pop('local'),
        'generator_lr': made['server'].pop('generator_lr'),
        'descriptor_lr': made['server'].pop('descriptor_lr'),
    }
    assert now['shifts'].pop('preset') == 'brightfield'  # what it was in effect
    virtual = {k: now['data'].pop(k) for k in list(now['data']) if k.startswith('virtual_')}
    assert virtual == {
        'virtual_share': -1, 'virtual_examples': 0, 'virtual_spread': -1, 'virtual_classes': ()
    }
    assert {now['data'].pop(k) for k in ('columns', 'cut', 'window')} == {''}
    assert now.pop('score_size') == 'own'  # of masks alone it was another
    assert renamed.config({'task': 'segmentation'})['score_size'] == 'model'
    assert now == made


def test_a_younger_field_has_the_value_that_the_run_had():
    made = read('config.json')
    del made['data']['virtual'], made['max_left_out']
    now = renamed.config(made)
    assert (now['data']['virtual'], now['max_left_out']) == (0, 0.5)
    made['max_left_out'] = 0.1
    assert renamed.config(made)['max_left_out'] == 0.1


def test_nothing_is_changed_twice_or_in_place():
    for name, rename in (('config.json', renamed.config), ('summary.json', renamed.summary)):
        made = read(name)
        kept = copy.deepcopy(made)
        once = rename(made)
        assert made == kept and rename(once) == once


def test_a_younger_algorithm_keeps_its_own_title():
    made = {**read('summary.json'), 'algorithm': 'any', 'title': 'Any', 'server_model': False}
    now = renamed.summary(made)
    assert (now['title'], now['server_model']) == ('Any', False)


@pytest.mark.parametrize(('algorithm', 'acquisition', 'title', 'server_model'), [
    ('fedavg', 0.75, 'FedAvg + shifts', True),
    ('fedavg', 0.0, 'FedAvg', True),
    ('local', 0.75, 'Local only + shifts', False),
    ('fedgen', 0.75, 'FedGen', True),
])
def test_a_summary_has_a_title_and_says_who_has_a_model(
    algorithm, acquisition, title, server_model
):
    made = read('summary.json')
    made['algorithm'] = algorithm
    made['config']['shifts'].update(acquisition=acquisition, zoom=1.0)
    now = renamed.summary(made)
    assert (now['title'], now['server_model']) == (title, server_model)
    assert now['cost']['parameters'] == {'base': 94130}
    assert now['config']['shifts']['flips'] is True and 'plain' not in now['config']['shifts']
