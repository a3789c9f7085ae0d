"""Intervals are of patients: known ones, and what they must not depend on."""

import numpy as np
import pytest

from fedgen_jax import intervals
from fedgen_jax.data.examples import Examples
from fedgen_jax.tasks import classification
from fedgen_jax.tasks.base import Predicted

TASK = classification('ab')


def said(right_N, unit_N):
    """Predictions of class 0 or 1 that are right where `right_N` says so."""
    label = np.arange(len(right_N)) % 2
    guess = np.where(right_N, label, 1 - label)
    of = Examples(None, {'label': label}, np.ones(len(label), np.float32))
    return Predicted({'probability': np.eye(2)[guess]}, of, tuple(unit_N), tuple(map(str, unit_N)))


def interval_of(found, metric='accuracy', task=TASK):
    scores = {'x': task.metrics(found.predictions, found.examples.target, found.examples.weight)}
    return intervals.of_block(task, {'x': [found]}, scores)['centers']['x'][metric]


RIGHT = np.random.default_rng(0).random(200) < 0.7


def test_the_interval_of_a_share_is_about_the_normal_one():
    low, high = interval_of(said(RIGHT, range(200)))
    mean, error = RIGHT.mean(), RIGHT.std() / 200**0.5
    assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error + 0.005)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error + 0.005)


def test_images_of_a_patient_move_together():
    """50 patients of 4 images that are right or wrong together tell as much as 50 images."""
    few = RIGHT[:50]
    low, high = interval_of(said(few.repeat(4), np.arange(50).repeat(4)))
    alone = interval_of(said(few, range(50)))
    assert (low, high) == pytest.approx(alone)
    apart = interval_of(said(few.repeat(4), range(200)))
    assert high - low > 1.6 * (apart[1] - apart[0])


def test_the_order_of_images_and_what_is_not_scored_change_nothing():
    found = said(RIGHT, np.arange(200) // 2)
    order = np.random.default_rng(1).permutation(200)
    other = Predicted(
        {'probability': found.predictions['probability'][order]},
        Examples(None, {'label': found.examples.target['label'][order]}, np.ones(200)),
        (), tuple(np.array(found.unit)[order]),
    )
    assert interval_of(other) == pytest.approx(interval_of(found))
    units = np.concatenate([np.arange(200) // 2, np.arange(200, 400)])
    more = said(np.tile(RIGHT, 2), units)
    label = more.examples.target['label']
    label[200:] = -1
    assert interval_of(more) == interval_of(found)


def test_few_patients_have_no_interval():
    found = said(RIGHT[:40], np.arange(40) // 10)
    scores = TASK.metrics(found.predictions, found.examples.target, found.examples.weight)
    told = intervals.of_block(TASK, {'x': [found]}, {'x': scores})
    assert told == {'mean': {}, 'centers': {'x': {}}}


def test_the_mean_over_centers_is_surer_than_one_of_them():
    found = {name: [said(np.roll(RIGHT, i), range(200))] for i, name in enumerate('abcd')}
    scores = {
        name: TASK.metrics(p.predictions, p.examples.target, p.examples.weight)
        for name, (p,) in found.items()
    }
    told = intervals.of_block(TASK, found, scores)
    low, high = told['mean']['accuracy']
    one = told['centers']['a']['accuracy']
    assert high - low == pytest.approx((one[1] - one[0]) / 2, rel=0.15)
    # A center that has the metric and no interval leaves the mean without one.
    few = said(RIGHT[:4], range(4))
    of_few = TASK.metrics(few.predictions, few.examples.target, few.examples.weight)
    told = intervals.of_block(TASK, {**found, 'few': [few]}, {**scores, 'few': of_few})
    assert 'accuracy' not in told['mean'] and 'accuracy' in told['centers']['a']


def test_a_task_without_resamples_of_its_own_is_scored_anew():
    plain = TASK._replace(resample=None)
    found = said(RIGHT[:40], range(40))
    low, high = interval_of(found, task=plain)
    assert (low, high) == pytest.approx(interval_of(found), abs=0.06) and low < high
    assert low < RIGHT[:40].mean() < high
