"""Scores of probabilities are scikit-learn's; what cannot be said is left out."""

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from fedgen_jax.tasks import class_metrics, classification

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 3, 80)
P = RNG.dirichlet(np.ones(3), 80) + 0.5 * np.eye(3)[LABEL]
P /= P.sum(-1, keepdims=True)


def scores_of(p, label, classes):
    return classification(classes).metrics({'probability': p}, {'label': label}, np.ones(len(p)))


def test_scores_of_three_classes_are_scikit_learns():
    scores, guess = scores_of(P, LABEL, 'abc'), P.argmax(-1)
    known = {
        'auroc': sk.roc_auc_score(LABEL, P, multi_class='ovr', average='macro'),
        'balanced_accuracy': sk.balanced_accuracy_score(LABEL, guess),
        'accuracy': sk.accuracy_score(LABEL, guess),
        'f1': sk.f1_score(LABEL, guess, average='macro'),
    }
    assert {k: scores[k] for k in known} == pytest.approx(known)
    assert next(iter(scores)) == 'auroc'
    np.testing.assert_array_equal(scores['confusion'], sk.confusion_matrix(LABEL, guess))
    b, of_b = scores['classes']['b'], LABEL == 1
    assert b['n'] == of_b.sum()
    assert b['sensitivity'] == pytest.approx(np.mean(guess[of_b] == 1))
    assert b['specificity'] == pytest.approx(np.mean(guess[~of_b] != 1))
    assert b['auroc'] == pytest.approx(sk.roc_auc_score(of_b, P[:, 1]))


def test_of_two_classes_the_second_is_the_positive_one():
    p, label = P[:, :2] / P[:, :2].sum(-1, keepdims=True), np.minimum(LABEL, 1)
    scores = scores_of(p, label, ['healthy', 'ill'])
    assert scores['positive'] == 'ill'
    assert {k: scores[k] for k in ('auroc', 'sensitivity', 'specificity')} == {
        k: scores['classes']['ill'][k] for k in ('auroc', 'sensitivity', 'specificity')
    }
    assert scores['auroc'] == pytest.approx(sk.roc_auc_score(label, p[:, 1]))
    assert scores['sensitivity'] == sk.recall_score(label, p.argmax(-1))


def test_one_class_alone_has_no_area_and_no_specificity():
    scores = scores_of(np.eye(3)[[2, 2, 0, 2]], np.full(4, 2), 'abc')
    assert 'auroc' not in scores and scores['classes']['a'] == {'n': 0, 'specificity': 0.75}
    assert scores['classes']['c'].keys() == {'n', 'sensitivity', 'f1'}


def test_reliability_is_scikit_learns_calibration_curve():
    right, confidence = P.argmax(-1) == LABEL, P.max(-1)
    bins = class_metrics.reliability(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=class_metrics.BINS)
    np.testing.assert_allclose([b['accuracy'] for b in bins], accuracy)
    np.testing.assert_allclose([b['confidence'] for b in bins], mean)
    assert sum(b['count'] for b in bins) == 80


def test_calibration_error_of_known_cases():
    always = np.full(100, 0.8)
    assert class_metrics.calibration_error(always, np.arange(100) < 80) == pytest.approx(0)
    assert class_metrics.calibration_error(always, np.arange(100) < 50) == pytest.approx(0.3)
    # A wrong and a right bin: the mean by counts.
    half = np.where(np.arange(100) < 25, 0.55, 0.8)
    right = np.concatenate([np.zeros(25), np.arange(75) < 60]).astype(bool)
    assert class_metrics.calibration_error(half, right) == pytest.approx(0.25 * 0.55)


def test_a_model_that_gives_no_number_scores_as_if_it_guessed():
    scores = scores_of(np.full((80, 3), np.nan), LABEL, 'abc')
    assert scores['auroc'] == 0.5 and scores['balanced_accuracy'] == pytest.approx(1 / 3)
