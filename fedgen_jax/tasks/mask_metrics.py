"""Scores of masks in two steps: what is measured of an image, and the scores of many images.

An image is measured once, at any size of its own, and then counts as often as it is resampled.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np

from fedgen_jax.tasks.class_resamples import divide

METRICS = ('dice', 'iou', 'hd95', 'assd')
MM = 'hd95_mm'  # of images alone whose spacing is known
OF_VOLUMES = 'dice_volume'

# What is measured of an image and a class: pixels, then lengths.  `MM` is NaN without spacing.
MEASURED = ('truth', 'guess', 'both', 'hd95', 'assd', MM)


def measured(
    truth_HxW: np.ndarray, guess_HxW: np.ndarray, spacing: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """The numbers of `MEASURED` of two masks; lengths are 0 where neither has a pixel.

    spacing: mm, the height and the width of a pixel; () where it is not known.
    """
    sizes = float(truth_HxW.sum()), float(guess_HxW.sum()), float((truth_HxW & guess_HxW).sum())
    if not any(sizes):
        return *sizes, 0.0, 0.0, 0.0 if spacing else np.nan
    if not all(sizes[:2]):  # the diagonal
        diagonal = float(np.hypot(*truth_HxW.shape))
        in_mm = float(np.hypot(*np.multiply(truth_HxW.shape, spacing))) if spacing else np.nan
        return *sizes, diagonal, diagonal, in_mm
    hd95, assd = distances(truth_HxW, guess_HxW, (1.0, 1.0))
    if not spacing:
        in_mm = np.nan
    elif math.isclose(*spacing, rel_tol=1e-6):
        in_mm = hd95 * spacing[0]
    else:
        in_mm = distances(truth_HxW, guess_HxW, spacing)[0]
    return *sizes, hd95, assd, in_mm


def distances(
    truth_HxW: np.ndarray, guess_HxW: np.ndarray, spacing: tuple[float, ...]
) -> tuple[float, float]:
    """(HD95, ASSD) of two masks that have pixels, in units of `spacing`."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # of the library's own imports
        import surface_distance  # half a second, which other commands need not wait

        found = surface_distance.compute_surface_distances(truth_HxW, guess_HxW, spacing)
    hd95 = surface_distance.compute_robust_hausdorff(found, 95)
    to_guess, to_truth = surface_distance.compute_average_surface_distance(found)
    sizes = found['surfel_areas_gt'].sum(), found['surfel_areas_pred'].sum()
    assd = (to_guess * sizes[0] + to_truth * sizes[1]) / sum(sizes)
    return float(hd95), float(assd)


def scores_of_class(
    row_NxM: np.ndarray, volume_N: np.ndarray, count_BxN: np.ndarray
) -> dict[str, np.ndarray]:
    """{metric: [B]} of one class, where image n counts count_BxN[b, n] times.

    NaN where no image that counts has a pixel of it.  `MM` is there if the spacing of any image is
    known, `OF_VOLUMES` if any is a slice of a volume (-1: of none).
    """
    of = dict(zip(MEASURED, row_NxM.T))
    said_N = of['truth'] + of['guess'] > 0
    table = table_of(of)
    scores = {m: mean_over(x_N, said_N, count_BxN) for m, x_N in table.items()}
    in_mm_N = np.isfinite(of[MM])
    if in_mm_N.any():
        scores[MM] = mean_over(np.nan_to_num(of[MM]), said_N & in_mm_N, count_BxN)
    if np.any(volume_N >= 0):
        volumes, first_V, of_V = np.unique(volume_N, return_index=True, return_inverse=True)
        sums_VxN = (of_V == np.arange(len(volumes))[:, None]).astype(float)
        truth_V, guess_V, both_V = (sums_VxN @ of[k] for k in MEASURED[:3])
        said_V = (truth_V + guess_V > 0) & (volumes >= 0)
        dice_V = divide(2 * both_V, truth_V + guess_V)
        # All slices of a volume count alike.
        scores[OF_VOLUMES] = mean_over(np.nan_to_num(dice_V), said_V, count_BxN[:, first_V])
    return scores


def table_of(of: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{metric: [N]} of `METRICS`, 0 where neither mask has a pixel."""
    size_N = of['truth'] + of['guess']
    dice_N, iou_N = divide(2 * of['both'], size_N), divide(of['both'], size_N - of['both'])
    table = dict(zip(METRICS, (dice_N, iou_N, of['hd95'], of['assd'])))
    return {m: np.where(size_N > 0, x_N, 0.0) for m, x_N in table.items()}


def shows_class(row_NxM: np.ndarray, count_BxN: np.ndarray) -> dict[str, np.ndarray]:
    """{metric: bool [B]}: whether an image that counts for a metric truly shows the class."""
    truth_N, in_mm_N = row_NxM[:, 0] > 0, np.isfinite(row_NxM[:, MEASURED.index(MM)])
    shown_B = count_BxN @ truth_N > 0
    return {
        **dict.fromkeys((*METRICS, OF_VOLUMES), shown_B), MM: count_BxN @ (truth_N & in_mm_N) > 0
    }


def mean_over(x_N: np.ndarray, of_N: np.ndarray, count_BxN: np.ndarray) -> np.ndarray:
    """[B]: the mean over the images of `of_N`, each as often as it counts; NaN over none."""
    return divide(count_BxN[:, of_N] @ x_N[of_N], count_BxN[:, of_N].sum(1))
