"""Classification: what is ignored is ignored exactly, and scores are scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.tasks import TASKS, classification

TASK = classification('abc')


def test_loss_is_the_mean_cross_entropy_of_the_labelled():
    logits = jax.random.normal(jax.random.key(0), (5, 3))
    label = jnp.array([0, 2, -1, 1, 1])
    weight = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0])
    kept = jnp.array([0, 1, 4])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits[kept], label[kept]).mean()
    assert TASK.loss(logits, {'label': label}, weight) == pytest.approx(float(expected), rel=1e-6)


def test_unknown_labels_and_padding_have_no_gradient():
    logits = jax.random.normal(jax.random.key(1), (4, 3))
    target, weight = {'label': jnp.array([-1, 1, 2, 0])}, jnp.array([1.0, 0.0, 1.0, 1.0])
    gradient = jax.grad(TASK.loss)(logits, target, weight)
    np.testing.assert_array_equal(gradient[:2], 0)
    assert (np.abs(gradient[2:]) > 1e-3).all()


def test_loss_of_nothing_is_zero():
    logits = jnp.ones((2, 3))
    assert TASK.loss(logits, {'label': jnp.array([-1, 0])}, jnp.array([1.0, 0.0])) == 0


def test_metrics_of_a_case_done_by_hand():
    # Class 0: 3 of 4 right.  Class 1: 0 of 1, guessed as class 2, which has no example.
    guess = np.array([0, 0, 0, 1, 2, 0, 1])
    label = np.array([0, 0, 0, 0, 1, -1, 1])
    weight = np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
    scores = TASK.metrics({'probability': np.eye(3)[guess]}, {'label': label}, weight)
    known = {'accuracy': 3 / 5, 'balanced_accuracy': pytest.approx(3 / 8), 'n': 5}
    assert {k: scores[k] for k in known} == known
    assert scores['confusion'] == [[3, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert scores['classes']['b'] == {
        'n': 1, 'sensitivity': 0.0, 'f1': 0.0, 'specificity': 3 / 4, 'auroc': pytest.approx(3 / 8)
    }


def test_a_center_without_labels_scores_only_its_count():
    scores = TASK.metrics({'probability': np.eye(3)}, {'label': np.full(3, -1)}, np.ones(3))
    assert scores == {'n': 0}


def test_prediction_is_a_probability():
    p = TASK.predict(jax.random.normal(jax.random.key(2), (4, 3)))['probability']
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)


def test_names_are_those_of_the_configuration():
    assert all(make('abc').name == name for name, make in TASKS.items())
