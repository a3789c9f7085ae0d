"""Semantic segmentation: a class for every pixel."""

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import surface_distance

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.tasks import draw
from fedgen_jax.tasks.base import Task, View
from fedgen_jax.tasks.class_resamples import divide, mean_known

METRICS = ('dice', 'iou', 'hd95', 'assd')


def segmentation(classes: Sequence[str]) -> Task:
    """Cross-entropy and soft Dice (Milletari et al. 2016); Dice, IoU, HD95 and ASSD.

    Class 0 is the background: learned, not scored.  Pixels of value 255 are neither.  For each
    image and class:

        neither truth nor prediction has a pixel   left out of the class's mean
        only one of them has                       Dice 0, IoU 0, HD95 and ASSD the image's diagonal
        both have                                  as usual; HD95 and ASSD in pixels of the
                                                   model's image (`data.image_size`)

    HD95 is the larger of the two directed 95th percentiles, ASSD the mean distance over both
    surfaces.  A class's score is the mean over its images, a center's the mean over the classes
    that its scored images truly show.
    'dice_volume', where slices of volumes are scored: the same with a volume's pixels counted
    together.
    """
    foreground = list(enumerate(classes))[1:]

    def loss(logits_BxHxWxK, target, weight_B):
        mask_BxHxW = target['mask'].astype(jnp.int32)
        known_BxHxW = jnp.where(mask_BxHxW == UNKNOWN, 0, weight_B[:, None, None])
        true_BxHxW = jnp.where(mask_BxHxW == UNKNOWN, 0, mask_BxHxW)
        each = optax.softmax_cross_entropy_with_integer_labels(logits_BxHxWxK, true_BxHxW)
        entropy = jnp.sum(known_BxHxW * each) / jnp.maximum(jnp.sum(known_BxHxW), 1)
        truth = known_BxHxW[..., None] * jax.nn.one_hot(true_BxHxW, len(classes))
        guess = known_BxHxW[..., None] * jax.nn.softmax(logits_BxHxWxK)
        both_K, sum_K = (truth * guess).sum((0, 1, 2)), (truth + guess).sum((0, 1, 2))
        dice_K = (2 * both_K + 1) / (sum_K + 1)
        return entropy + 1 - dice_K[1:].mean()

    def predict(logits_BxHxWxK):
        return {'mask': jnp.argmax(logits_BxHxWxK, -1).astype(jnp.uint8)}

    def metrics(predictions, target, weight_N):
        truth_NxHxW, guess_NxHxW = np.asarray(target['mask']), np.asarray(predictions['mask'])
        known_NxHxW = truth_NxHxW != UNKNOWN
        scored = (np.asarray(weight_N) > 0) & known_NxHxW.any((1, 2))
        volume_N = np.asarray(target.get('volume', np.full(len(truth_NxHxW), -1)))
        by_class, shown = {}, []
        for k, name in foreground:
            truth, guess = (truth_NxHxW == k)[scored], ((guess_NxHxW == k) & known_NxHxW)[scored]
            rows = [overlap(t, g) for t, g in zip(truth, guess) if t.any() or g.any()]
            if rows:
                means = np.mean(rows, 0).tolist()
                by_class[name] = {**dict(zip(METRICS, means)), 'n': len(rows)}
                each = volume_dice(truth, guess, volume_N[scored])
                if each:
                    by_class[name]['dice_volume'] = float(np.mean(each))
                if truth.any():
                    shown.append(by_class[name])
        if not shown:
            return {'n': 0}
        total = {m: float(np.mean([s[m] for s in shown])) for m in METRICS}
        of_volumes = [s['dice_volume'] for s in shown if 'dice_volume' in s]
        if of_volumes:
            total['dice_volume'] = float(np.mean(of_volumes))
        return {**total, 'n': int(scored.sum()), 'classes': by_class}

    def resample(predictions, target, weight_N, count_BxN):
        truth_NxHxW, guess_NxHxW = np.asarray(target['mask']), np.asarray(predictions['mask'])
        known_NxHxW = truth_NxHxW != UNKNOWN
        scored_N = (np.asarray(weight_N) > 0) & known_NxHxW.any((1, 2))
        volume_N = np.asarray(target.get('volume', np.full(len(truth_NxHxW), -1)))
        found = [
            resampled_class(
                (truth_NxHxW == k)[scored_N], ((guess_NxHxW == k) & known_NxHxW)[scored_N],
                volume_N[scored_N], count_BxN[:, scored_N],
            )
            for k, _ in foreground
        ]
        return {m: mean_known(np.stack([of[m] for of in found], 1)) for m in found[0]}

    def show(image_HxWx3, target, prediction):
        truth = np.asarray(target['mask'])
        if prediction is None:
            return View(draw.masks(image_HxWx3, truth, len(classes)), 'truth')
        guess = np.asarray(prediction['mask'])
        picture = draw.masks(image_HxWx3, guess, len(classes))
        scores = metrics({'mask': guess[None]}, {'mask': truth[None]}, np.ones(1))
        return View(picture, f'Dice {scores["dice"]:.2f}' if scores['n'] else '')

    return Task(
        'segmentation',
        'mask',
        len(classes),
        loss,
        predict,
        metrics,
        stratum=lambda target: jnp.zeros(len(target['mask']), jnp.int32),
        num_strata=1,
        show=show,
        lower_is_better=('hd95', 'assd'),
        units=(('hd95', 'pixels'), ('assd', 'pixels')),
        resample=resample,
        probability=jax.nn.softmax,
    )


def overlap(truth_HxW: np.ndarray, guess_HxW: np.ndarray) -> tuple[float, float, float, float]:
    """(Dice, IoU, HD95, ASSD) of two masks, of which at least one has a pixel."""
    both, either = np.sum(truth_HxW & guess_HxW), np.sum(truth_HxW | guess_HxW)
    if not truth_HxW.any() or not guess_HxW.any():
        diagonal = float(np.hypot(*truth_HxW.shape))
        return 0.0, 0.0, diagonal, diagonal
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # of the library's own imports
        found = surface_distance.compute_surface_distances(truth_HxW, guess_HxW, (1.0, 1.0))
    hd95 = surface_distance.compute_robust_hausdorff(found, 95)
    to_guess, to_truth = surface_distance.compute_average_surface_distance(found)
    sizes = found['surfel_areas_gt'].sum(), found['surfel_areas_pred'].sum()
    assd = (to_guess * sizes[0] + to_truth * sizes[1]) / sum(sizes)
    return 2 * both / (both + either), both / either, float(hd95), float(assd)


def resampled_class(
    truth_NxHxW, guess_NxHxW, volume_N, count_BxN: np.ndarray
) -> dict[str, np.ndarray]:
    """{metric: [B]} of one class, where image n counts count_BxN[b, n] times.

    NaN where no image that counts truly shows the class.
    """
    shows_N, said_N = truth_NxHxW.any((1, 2)), guess_NxHxW.any((1, 2))
    row_NxM = np.zeros((len(shows_N), len(METRICS)))
    rated = np.flatnonzero(shows_N | said_N)
    for i in rated:
        row_NxM[i] = overlap(truth_NxHxW[i], guess_NxHxW[i])
    shown_B = count_BxN @ shows_N > 0
    number_B = count_BxN[:, rated].sum(1)
    mean_BxM = divide(count_BxN @ row_NxM, number_B[:, None])
    scores = dict(zip(METRICS, np.where(shown_B[:, None], mean_BxM, np.nan).T))
    if np.any(volume_N >= 0):
        volumes, first_V = np.unique(volume_N[rated], return_index=True)
        first_V = rated[first_V[volumes >= 0]]
        dice_V = np.array(volume_dice(truth_NxHxW, guess_NxHxW, volume_N))
        count_BxV = count_BxN[:, first_V]  # all slices of a volume count alike
        of_B = divide(count_BxV @ dice_V, count_BxV.sum(1))
        scores['dice_volume'] = np.where(shown_B, of_B, np.nan)
    return scores


def volume_dice(truth_NxHxW, guess_NxHxW, volume_N) -> list[float]:
    """Dice of each volume whose truth or prediction has a pixel; -1 marks slices of none."""
    found = []
    for v in np.unique(volume_N[volume_N >= 0]):
        truth, guess = truth_NxHxW[volume_N == v], guess_NxHxW[volume_N == v]
        size = truth.sum() + guess.sum()
        if size:
            found.append(float(2 * np.sum(truth & guess) / size))
    return found
