"""Single-label classification of an image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedgen_jax.tasks import class_metrics, class_resamples
from fedgen_jax.tasks.base import Task, View


def classification(classes: Sequence[str]) -> Task:
    """Cross-entropy; the scores of `class_metrics.of_one_label`.

    Where the target has 'log_prior' [B, K], the loss adds it to the logits.

    Balanced accuracy, by which models are chosen and compared, is the mean recall over the classes
    that the scored images have; a prediction of a class they lack counts as the error it is.
    Examples with label -1 are neither learned from nor scored; a center with none that is labelled
    scores {'n': 0}.
    """

    def loss(logits_BxK, target, weight_B):
        label_B = target['label']
        weight_B = jnp.where(label_B >= 0, weight_B, 0)
        known_B = jnp.maximum(label_B, 0)
        logits_BxK = logits_BxK + target.get('log_prior', 0.0)
        each_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxK, known_B)
        return jnp.sum(weight_B * each_B) / jnp.maximum(jnp.sum(weight_B), 1)

    def predict(logits_BxK):
        return {'probability': jax.nn.softmax(logits_BxK)}

    def scored(predictions, target, weight_N):
        label_N = np.asarray(target['label'])
        scored_N = (np.asarray(weight_N) > 0) & (label_N >= 0)
        return np.asarray(predictions['probability'])[scored_N], label_N[scored_N], scored_N

    def metrics(predictions, target, weight_N):
        probability_NxK, label_N, _ = scored(predictions, target, weight_N)
        if not len(label_N):
            return {'n': 0}
        return class_metrics.of_one_label(probability_NxK, label_N, classes)

    def resample(predictions, target, weight_N, count_BxN):
        probability_NxK, label_N, scored_N = scored(predictions, target, weight_N)
        return class_resamples.of_one_label(probability_NxK, label_N, count_BxN[:, scored_N])

    def show(image_HxWx3, target, prediction):
        truth = int(target['label'])
        if prediction is None:
            return View(image_HxWx3, classes[truth] if truth >= 0 else '')
        guess = int(prediction['probability'].argmax())
        return View(None, classes[guess], 0 <= truth != guess)

    return Task(
        'classification',
        'label',
        len(classes),
        loss,
        predict,
        metrics,
        stratum=lambda target: target['label'],
        num_strata=len(classes),
        show=show,
        lower_is_better=('ece',),
        headline='balanced_accuracy',
        resample=resample,
        probability=jax.nn.softmax,
    )
