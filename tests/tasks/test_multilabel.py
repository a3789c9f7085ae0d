"""Several labels: what is unknown is ignored exactly, and scores are scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

from fedgen_jax.tasks import multilabel

TASK = multilabel('abc')
TRUTH = np.array([[1, 0, 1], [0, 0, -1], [-1, -1, -1], [1, 1, 0], [0, 0, 1], [1, 0, 0]], np.int8)
ONES = np.ones(6, np.float32)


def test_loss_is_the_mean_over_what_is_known():
    logits = jax.random.normal(jax.random.key(0), (6, 3))
    weight = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    known = (TRUTH >= 0) & (np.asarray(weight) > 0)[:, None]
    each = optax.sigmoid_binary_cross_entropy(logits, jnp.maximum(TRUTH, 0).astype(jnp.float32))
    loss = TASK.loss(logits, {'labels': jnp.asarray(TRUTH)}, weight)
    assert loss == pytest.approx(float(each[known].mean()), rel=1e-6)
    gradient = jax.grad(TASK.loss)(logits, {'labels': jnp.asarray(TRUTH)}, weight)
    np.testing.assert_array_equal(gradient[~known], 0)
    assert (np.abs(gradient[known]) > 1e-4).all()
    assert TASK.loss(logits, {'labels': jnp.full((6, 3), -1, jnp.int8)}, weight) == 0


def test_scores_are_scikit_learns_on_what_is_known():
    p = np.asarray(jax.random.uniform(jax.random.key(1), (6, 3)))
    scores = TASK.metrics({'probability': p}, {'labels': TRUTH}, ONES)
    areas, precisions = [], []
    for k, name in enumerate('abc'):
        known = TRUTH[:, k] >= 0
        truth, guess = TRUTH[known, k] > 0, p[known, k]
        areas.append(sk.roc_auc_score(truth, guess))
        precisions.append(sk.average_precision_score(truth, guess))
        own = scores['classes'][name]
        assert own['auroc'] == pytest.approx(areas[-1])
        assert own['sensitivity'] == pytest.approx(sk.recall_score(truth, guess >= 0.5))
        assert own['specificity'] == pytest.approx(sk.recall_score(~truth, guess < 0.5))
        assert (own['n'], own['known']) == (truth.sum(), known.sum())
    assert scores['auroc'] == pytest.approx(np.mean(areas)) and next(iter(scores)) == 'auroc'
    assert scores['average_precision'] == pytest.approx(np.mean(precisions))
    assert scores['n'] == 5 and sum(b['count'] for b in scores['reliability']) == 14


def test_probabilities_of_a_known_chance_are_calibrated():
    truth = (np.arange(100)[:, None] < [20, 80, 50]).astype(np.int8)
    p = np.tile([0.2, 0.8, 0.5], (100, 1))
    scores = TASK.metrics({'probability': p}, {'labels': truth}, np.ones(100))
    assert scores['ece'] == pytest.approx(0) and scores['auroc'] == 0.5


def test_a_center_of_which_nothing_is_known_scores_only_its_count():
    unknown = np.full((6, 3), -1, np.int8)
    assert TASK.metrics({'probability': np.zeros((6, 3))}, {'labels': unknown}, ONES) == {'n': 0}


def test_a_class_that_nobody_annotated_at_a_center_has_no_scores():
    truth, p = TRUTH.copy(), np.asarray(jax.random.uniform(jax.random.key(1), (6, 3)))
    truth[:, 2] = -1
    scores = TASK.metrics({'probability': p}, {'labels': truth}, ONES)
    of_all = TASK.metrics({'probability': p}, {'labels': TRUTH}, ONES)
    assert scores['classes']['c'] == {'n': 0, 'known': 0}
    assert scores['classes']['a'] == of_all['classes']['a']


def test_captions_name_what_is_there():
    image = np.zeros((4, 4, 3), np.uint8)
    target = {'labels': np.array([1, 0, -1])}
    assert TASK.show(image, target, None).caption == 'a'
    right = TASK.show(image, target, {'probability': np.array([0.9, 0.1, 0.8])})
    assert (right.caption, right.wrong) == ('a, c', False)  # of c nothing is known
    wrong = TASK.show(image, target, {'probability': np.array([0.1, 0.1, 0.1])})
    assert (wrong.caption, wrong.wrong) == ('none', True)
