"""The page's parts on classes: their scores, confusions, calibration, and intervals."""

import numpy as np
import pytest

from fedgen_jax.evaluate import block
from fedgen_jax.report.classes import class_sections, merged
from fedgen_jax.report.page import INTERVAL, _scores_table, methods_of
from fedgen_jax.tasks import class_metrics, classification

RNG = np.random.default_rng(0)
CLASSES = ['ant', 'bee', 'cow']


def drawn(num):
    label = RNG.integers(0, 3, num)
    p = RNG.dirichlet(np.ones(3), num) + 0.5 * np.eye(3)[label]
    return p / p.sum(-1, keepdims=True), label


def scores_of(p, label):
    of = classification(CLASSES)
    return of.metrics({'probability': p}, {'label': label}, np.ones(len(label)))


@pytest.fixture
def classified(make):
    """A summary whose centers have the scores of a classifier, and intervals of one metric."""
    summary = make('m', 'x', 0, 0.5, 0.4)
    for group, names in (('seen', ('a', 'b')), ('unseen', ('x', 'y'))):
        of = {name: scores_of(*drawn(40)) for name in names}
        summary[group] = {'mean': {'auroc': 0.9}, 'worst': {'auroc': 0.8}, 'centers': of}
    summary['seen'] |= {
        'pooled': scores_of(*drawn(80)),
        'intervals': {'mean': {'auroc': [0.111, 0.222]}, 'centers': {'b': {'auroc': [0.3, 0.4]}}},
    }
    return summary


def test_a_classifier_has_classes_confusions_and_calibration(classified):
    table, confusions, calibration = class_sections('Ours', classified)
    assert table.table.head[:3] == ['', 'images', 'AUROC']
    rows = {row[0]: row for row in table.table.rows}
    assert len(rows) == 3 * 3 and 'bee: x (unseen)' in rows
    own = classified['unseen']['centers']['x']['classes']['bee']
    assert rows['bee: x (unseen)'][1] == f'{own["n"]}'
    assert f'{own["auroc"]:.3f}' in rows['bee: x (unseen)']
    for name in (*CLASSES, 'unseen centers', 'seen centers'):
        assert f'>{name}<' in confusions.figure
    # The centers' counts are summed.
    both = np.sum([classified['unseen']['centers'][k]['confusion'] for k in 'xy'], 0)
    assert both.sum() == 80 and all(f'>{n}<' in confusions.figure for n in both.ravel())
    assert 'how often right' in calibration.figure


def test_confusions_are_summed_over_centers_where_images_are_nowhere_together(classified):
    seen = classified['seen']
    seen['pooled'], seen['centers'] = {}, {'empty': {'n': 0}, **seen['centers']}
    titles = [section.title for section in class_sections('Ours', classified)]
    assert titles == ['What is taken for what', 'Calibration']
    both = np.sum([seen['centers'][k]['confusion'] for k in 'ab'], 0)
    figure = class_sections('Ours', classified)[0].figure
    assert both.sum() == 80 and all(f'>{n}<' in figure for n in both.ravel())


def test_runs_without_classes_have_no_such_part(make):
    assert class_sections('Old', make('m', 'x', 0, 0.5, 0.4)) == []


def test_merged_bins_are_those_of_all_answers():
    confidence, right = RNG.random(300), RNG.random(300) < 0.5
    parts = [class_metrics.reliability(confidence[i::3], right[i::3]) for i in range(3)]
    for ours, whole in zip(merged(parts), class_metrics.reliability(confidence, right)):
        assert ours == pytest.approx(whole)


def test_intervals_stand_below_the_row_they_are_of(classified):
    table = _scores_table(methods_of({'Ours': classified}), {'Ours': classified}, 'auroc')
    names = [row[0] for row in table.rows]
    assert names == ['Ours, refined', INTERVAL, 'Ours, center model', 'images scored']
    at = table.head.index('b')
    assert table.rows[1][1] == '0.111–0.222' and table.rows[1][at] == '0.300–0.400'
    assert table.rows[1][table.head.index('a')] == ''
    # Bold are the rows of methods, wherever intervals push them.
    assert all(names[row] != INTERVAL for row, _ in table.best)


def test_a_center_without_a_metric_does_not_change_their_order():
    task = type('Program', (), {'program': type('Task', (), {'task': classification('ab')})})
    one = {'balanced_accuracy': 1.0, 'accuracy': 1.0, 'n': 3}
    both = {'auroc': 0.5, 'balanced_accuracy': 0.5, 'accuracy': 0.5, 'n': 3}
    assert list(block(task, {'a': one, 'b': both})['mean']) == [
        'auroc', 'balanced_accuracy', 'accuracy'
    ]
