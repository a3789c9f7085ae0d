"""Classification of an image into any number of classes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedgen_jax.tasks import class_metrics, class_resamples
from fedgen_jax.tasks.base import Task, View

THRESHOLD = 0.5  # of probability, from which on a class is said to be there


def multilabel(classes: Sequence[str]) -> Task:
    """Sigmoid cross-entropy of each class; the scores of `class_metrics.of_many_labels`.

    Targets are 'labels' int8 [B, K].  A class of -1 is neither learned nor scored; each known one
    counts alike.
    """

    def named(has_K):
        return ', '.join(name for name, has in zip(classes, has_K) if has) or 'none'

    def loss(logits_BxK, target, weight_B):
        label_BxK = target['labels']
        weight_BxK = jnp.where(label_BxK >= 0, weight_B[:, None], 0)
        known_BxK = jnp.maximum(label_BxK, 0).astype(logits_BxK.dtype)
        each_BxK = optax.sigmoid_binary_cross_entropy(logits_BxK, known_BxK)
        return jnp.sum(weight_BxK * each_BxK) / jnp.maximum(jnp.sum(weight_BxK), 1)

    def predict(logits_BxK):
        return {'probability': jax.nn.sigmoid(logits_BxK)}

    def scored(predictions, target, weight_N):
        truth_NxK = np.asarray(target['labels'])
        scored_N = (np.asarray(weight_N) > 0) & (truth_NxK >= 0).any(1)
        return np.asarray(predictions['probability'])[scored_N], truth_NxK[scored_N], scored_N

    def metrics(predictions, target, weight_N):
        probability_NxK, truth_NxK, _ = scored(predictions, target, weight_N)
        if not len(truth_NxK):
            return {'n': 0}
        return class_metrics.of_many_labels(probability_NxK, truth_NxK, classes)

    def resample(predictions, target, weight_N, count_BxN):
        probability_NxK, truth_NxK, scored_N = scored(predictions, target, weight_N)
        return class_resamples.of_many_labels(probability_NxK, truth_NxK, count_BxN[:, scored_N])

    def show(image_HxWx3, target, prediction):
        truth_K = np.asarray(target['labels'])
        if prediction is None:
            return View(image_HxWx3, named(truth_K > 0) if (truth_K >= 0).any() else '')
        said_K = np.asarray(prediction['probability']) >= THRESHOLD
        return View(None, named(said_K), bool(np.any((truth_K >= 0) & (said_K != (truth_K > 0)))))

    return Task(
        'multilabel',
        'labels',
        len(classes),
        loss,
        predict,
        metrics,
        stratum=lambda target: jnp.where((target['labels'] >= 0).any(1), 0, -1),
        num_strata=1,
        show=show,
        lower_is_better=('ece',),
        resample=resample,
    )
