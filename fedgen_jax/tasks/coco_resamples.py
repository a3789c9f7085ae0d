"""The scores of `coco_metrics` where images count several times, of many resamples at once.

Boxes are matched within their image, so matches are made once; what a resample changes is how
often each counts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.tasks import coco_metrics
from fedgen_jax.tasks.class_resamples import divide, mean_known

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision
AT_50, AT_75 = 0, 5  # among COCO's ten thresholds of IoU


class Matches(NamedTuple):
    """One class's detections D, the highest score first: their images, and whether each is right.

    right_TxD: at each threshold of IoU.  boxes_N: true boxes of each image.
    """

    image_D: np.ndarray
    right_TxD: np.ndarray
    boxes_N: np.ndarray


def scores(
    predictions: Any, target: dict, weight_N: np.ndarray, count_BxN: np.ndarray,
    classes: Sequence[str],
) -> dict[str, np.ndarray]:
    """{metric: [B]}, the means over the classes that `coco_metrics.scores` takes of the images."""
    scored = np.asarray(weight_N) > 0
    count_BxN = count_BxN[:, scored].astype(np.float32)
    run = coco_metrics.matched(predictions, target, weight_N, classes)
    found = [_matches(run, k, len(classes)) for k in range(len(classes))]
    kept = [m for m in found if m.boxes_N.sum() >= coco_metrics.MIN_BOXES]
    of_classes = [_of_class(m, count_BxN) for m in kept]
    names = of_classes[0] if kept else ()
    return {k: mean_known(np.stack([of[k] for of in of_classes], 1)) for k in names}


def _matches(run, k: int, num_classes: int) -> Matches:
    """Of class k, out of a `COCOeval` that has matched."""
    found = np.array(run.evalImgs, dtype=object).reshape(num_classes, -1)[k]
    boxes_N = np.array([len(x['gtIds']) if x else 0 for x in found])
    num_N = [len(x['dtScores']) if x else 0 for x in found]
    if not sum(num_N):
        return Matches(np.zeros(0, int), np.zeros((len(run.params.iouThrs), 0), bool), boxes_N)
    score_D = np.concatenate([x['dtScores'] for x in found if x])
    right_TxD = np.concatenate([x['dtMatches'] > 0 for x in found if x], 1)
    order = np.argsort(-score_D, kind='stable')
    return Matches(np.repeat(np.arange(len(found)), num_N)[order], right_TxD[:, order], boxes_N)


def _of_class(m: Matches, count_BxN: np.ndarray) -> dict[str, np.ndarray]:
    boxes_B = count_BxN @ m.boxes_N
    own_BxD = count_BxN[:, m.image_D]
    said_BxD = np.cumsum(own_BxD, 1)
    ap_TxB = np.stack([
        _precision(own_BxD[:, right_D], said_BxD[:, right_D], boxes_B) for right_D in m.right_TxD
    ])
    right_D = m.right_TxD[AT_50]
    found_BxR = np.cumsum(own_BxD[:, right_D], 1)
    false_BxR = divide(said_BxD[:, right_D] - found_BxR, count_BxN.sum(1)[:, None])
    froc = [
        divide(np.where(false_BxR <= limit, found_BxR, 0).max(1, initial=0), boxes_B)
        for limit in coco_metrics.FALSE_POSITIVES
    ]
    return {
        'ap50': ap_TxB[AT_50], 'ap75': ap_TxB[AT_75], 'map': ap_TxB.mean(0),
        'froc': np.mean(froc, 0),
    }


def _precision(own_BxR: np.ndarray, said_BxR: np.ndarray, boxes_B: np.ndarray) -> np.ndarray:
    """AP [B] from the right detections R alone: recall grows there, and precision is highest."""
    found_BxR = np.cumsum(own_BxR, 1)
    precision_BxR = found_BxR / np.maximum(said_BxR, 1)
    best_BxR = np.maximum.accumulate(precision_BxR[:, ::-1], 1)[:, ::-1]  # at this recall or above
    recall_BxR = divide(found_BxR, boxes_B[:, None])
    reached_BxR = np.searchsorted(RECALLS, recall_BxR, side='right')
    more_BxR = np.diff(reached_BxR, axis=1, prepend=0)
    return np.where(boxes_B > 0, (more_BxR * best_BxR).sum(1) / len(RECALLS), np.nan)
