"""Semantic segmentation: a class for every pixel."""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.tasks import draw
from fedgen_jax.tasks.base import Task, View
from fedgen_jax.tasks.class_resamples import mean_known
from fedgen_jax.tasks.mask_metrics import (
    MEASURED,
    METRICS,
    MM,
    OF_VOLUMES,
    measured,
    scores_of_class,
    shows_class,
)


def segmentation(classes: Sequence[str]) -> Task:
    """Cross-entropy and soft Dice (Milletari et al. 2016); Dice, IoU, HD95 and ASSD.

    Class 0 is the background: learned, not scored.  Pixels of value 255 are neither.  For each
    image and class:

        neither truth nor prediction has a pixel   left out of the class's mean
        only one of them has                       Dice 0, IoU 0, HD95 and ASSD the image's diagonal
        both have                                  as usual

    HD95 and ASSD are in pixels of the masks that are scored: of the model's image
    (`data.image_size`), or of the image's own where these are `measure`d.  HD95 is the larger of
    the two directed 95th percentiles, ASSD the mean distance over both surfaces.  A class's score
    is the mean over its images, a center's the mean over the classes that its scored images truly
    show.
    'hd95_mm', where the spacing of pixels is known: HD95 in mm of these images alone, of which
    there are 'n_mm'.
    'dice_volume', where slices of volumes are scored: the same with a volume's pixels counted
    together.
    """
    num_classes, names = len(classes), tuple(classes[1:])
    scores = functools.partial(scores_of, names)
    return Task(
        'segmentation',
        'mask',
        num_classes,
        entropy_and_dice,
        predict=lambda logits_BxHxWxK: {'mask': jnp.argmax(logits_BxHxWxK, -1).astype(jnp.uint8)},
        metrics=scores,
        stratum=lambda target: jnp.zeros(len(target['mask']), jnp.int32),
        num_strata=1,
        show=functools.partial(view_of, scores, num_classes),
        lower_is_better=('hd95', 'assd', MM),
        units=(('hd95', 'pixels'), ('assd', 'pixels'), (MM, 'mm')),
        resample=functools.partial(scores_of_resamples, num_classes),
        probability=jax.nn.softmax,
        measure=functools.partial(measured_of, num_classes),
    )


def entropy_and_dice(
    logits_BxHxWxK: jax.Array, target: dict, weight_B: jax.Array
) -> jax.Array:
    """The mean cross-entropy of known pixels, and 1 less the mean soft Dice of all but class 0."""
    mask_BxHxW = target['mask'].astype(jnp.int32)
    known_BxHxW = jnp.where(mask_BxHxW == UNKNOWN, 0, weight_B[:, None, None])
    true_BxHxW = jnp.where(mask_BxHxW == UNKNOWN, 0, mask_BxHxW)
    each = optax.softmax_cross_entropy_with_integer_labels(logits_BxHxWxK, true_BxHxW)
    entropy = jnp.sum(known_BxHxW * each) / jnp.maximum(jnp.sum(known_BxHxW), 1)
    truth = known_BxHxW[..., None] * jax.nn.one_hot(true_BxHxW, logits_BxHxWxK.shape[-1])
    guess = known_BxHxW[..., None] * jax.nn.softmax(logits_BxHxWxK)
    both_K, sum_K = (truth * guess).sum((0, 1, 2)), (truth + guess).sum((0, 1, 2))
    dice_K = (2 * both_K + 1) / (sum_K + 1)
    return entropy + 1 - dice_K[1:].mean()


def measured_of(num_classes: int, images: Iterable[tuple[dict, dict, tuple]]) -> dict:
    """{'measured': [N, K - 1, M]} of images of any sizes (`mask_metrics.MEASURED`)."""
    rows = [
        [
            measured(truth == k, (guess == k) & (truth != UNKNOWN), spacing)
            for k in range(1, num_classes)
        ]
        for guess, truth, spacing in (
            (np.asarray(said['mask']), np.asarray(target['mask']), spacing)
            for said, target, spacing in images
        )
    ]
    return {'measured': np.reshape(rows, (-1, num_classes - 1, len(MEASURED))).astype(float)}


def rated(
    num_classes: int, predictions: dict, target: dict, weight_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was measured of the images that are scored, and their volumes; which these are."""
    truth_NxHxW = np.asarray(target['mask'])
    scored_N = (np.asarray(weight_N) > 0) & (truth_NxHxW != UNKNOWN).any((1, 2))
    volume_N = np.asarray(target.get('volume', np.full(len(scored_N), -1)))[scored_N]
    if 'measured' in predictions:
        return np.asarray(predictions['measured'])[scored_N], volume_N, scored_N
    pairs = zip(np.asarray(predictions['mask'])[scored_N], truth_NxHxW[scored_N])
    rows = measured_of(num_classes, (({'mask': a}, {'mask': b}, ()) for a, b in pairs))
    return rows['measured'], volume_N, scored_N


def scores_of(
    names: Sequence[str], predictions: dict, target: dict, weight_N: np.ndarray
) -> dict:
    """`Task.metrics`; names: of the classes but class 0."""
    row_NxKxM, volume_N, scored_N = rated(len(names) + 1, predictions, target, weight_N)
    once = np.ones((1, len(row_NxKxM)), int)
    by_class, shown = {}, []
    for name, row_NxM in zip(names, np.moveaxis(row_NxKxM, 1, 0)):
        number = int(np.sum(row_NxM[:, :2].sum(1) > 0))
        if number:
            found = scores_of_class(row_NxM, volume_N, once)
            scores = {m: float(x) for m, (x,) in found.items() if np.isfinite(x)}
            by_class[name] = {**scores, 'n': number}
            shows = shows_class(row_NxM, once)
            shown.append({m: x for m, x in scores.items() if shows[m]})
    total = {
        m: float(np.mean([of[m] for of in shown if m in of]))
        for m in (*METRICS, OF_VOLUMES, MM) if any(m in of for of in shown)
    }
    if not total:
        return {'n': 0}
    in_mm = {'n_mm': int(np.isfinite(row_NxKxM[:, 0, -1]).sum())} if MM in total else {}
    return {**total, 'n': int(scored_N.sum()), **in_mm, 'classes': by_class}


def scores_of_resamples(
    num_classes: int, predictions: dict, target: dict, weight_N: np.ndarray, count_BxN: np.ndarray
) -> dict:
    """`Task.resample`."""
    row_NxKxM, volume_N, scored_N = rated(num_classes, predictions, target, weight_N)
    count_BxN, found = count_BxN[:, scored_N], []
    for row_NxM in np.moveaxis(row_NxKxM, 1, 0):
        shows = shows_class(row_NxM, count_BxN)
        scores = scores_of_class(row_NxM, volume_N, count_BxN)
        found.append({m: np.where(shows[m], x_B, np.nan) for m, x_B in scores.items()})
    return {m: mean_known(np.stack([of[m] for of in found], 1)) for m in found[0]}


def view_of(
    metrics: Callable, num_classes: int, image_HxWx3: np.ndarray, target: dict, prediction
) -> View:
    """`Task.show`."""
    truth = np.asarray(target['mask'])
    if prediction is None:
        return View(draw.masks(image_HxWx3, truth, num_classes), 'truth')
    guess = np.asarray(prediction['mask'])
    picture = draw.masks(image_HxWx3, guess, num_classes)
    scores = metrics({'mask': guess[None]}, {'mask': truth[None]}, np.ones(1))
    return View(picture, f'Dice {scores["dice"]:.2f}' if scores['n'] else '')
