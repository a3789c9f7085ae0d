"""The scores of `class_metrics` where images count several times, of many resamples at once.

Row b of `count_BxN` says how often each image counts.  Each value is that of `class_metrics` on the
images repeated so often, NaN where it has none.  Calibration errors are left out: a resample of few
images has a larger one than the images themselves, so that its quantiles mislead.
"""

import numpy as np

from fedgen_jax.tasks.class_metrics import finite


def of_one_label(
    probability_NxK: np.ndarray, label_N: np.ndarray, count_BxN: np.ndarray
) -> dict[str, np.ndarray]:
    """{metric: [B]} of images that have one class each."""
    probability_NxK = finite(probability_NxK)
    num = probability_NxK.shape[1]
    truth_NxK = label_N[:, None] == np.arange(num)
    guess_NxK = probability_NxK.argmax(-1)[:, None] == np.arange(num)
    cell_NxKxK = truth_NxK[:, :, None] & guess_NxK[:, None, :]
    flat_NxF = cell_NxKxK.reshape(len(label_N), -1).astype(float)
    confusion_BxKxK = (count_BxN @ flat_NxF).reshape(-1, num, num)
    right_BxK = np.diagonal(confusion_BxKxK, axis1=1, axis2=2)
    of_BxK, said_BxK = confusion_BxKxK.sum(2), confusion_BxKxK.sum(1)
    total_B = of_BxK.sum(1)
    area_BxK = np.stack([
        auroc(truth_NxK[:, k], probability_NxK[:, k], count_BxN) for k in range(num)
    ], 1)
    scores = {
        'auroc': area_BxK[:, 1] if num == 2 else mean_known(area_BxK),
        'balanced_accuracy': mean_known(divide(right_BxK, of_BxK)),
        'accuracy': divide(right_BxK.sum(1), total_B),
        'f1': mean_known(np.where(of_BxK > 0, divide(2 * right_BxK, of_BxK + said_BxK), np.nan)),
    }
    if num == 2:
        scores['sensitivity'] = divide(right_BxK[:, 1], of_BxK[:, 1])
        scores['specificity'] = divide(right_BxK[:, 0], of_BxK[:, 0])
    return scores


def of_many_labels(
    probability_NxK: np.ndarray, truth_NxK: np.ndarray, count_BxN: np.ndarray
) -> dict[str, np.ndarray]:
    """{metric: [B]} of images that have any number of classes; -1: unknown."""
    probability_NxK, found = finite(probability_NxK), []
    for truth_N, probability_N in zip(truth_NxK.T, probability_NxK.T):
        known_N = truth_N >= 0
        truth_N, probability_N = truth_N[known_N] > 0, probability_N[known_N]
        own_BxN = count_BxN[:, known_N]
        true_BxN = own_BxN * truth_N
        said_N = (probability_N >= 0.5).astype(float)
        of_B, said_B, right_B = true_BxN.sum(1), own_BxN @ said_N, true_BxN @ said_N
        f1_B = np.where(of_B > 0, divide(2 * right_B, of_B + said_B), np.nan)
        found.append((
            auroc(truth_N, probability_N, own_BxN),
            average_precision(truth_N, probability_N, own_BxN),
            f1_B,
        ))
    names = ('auroc', 'average_precision', 'f1')
    return {name: mean_known(np.stack(each, 1)) for name, each in zip(names, zip(*found))}


def auroc(truth_N: np.ndarray, score_N: np.ndarray, count_BxN: np.ndarray) -> np.ndarray:
    """[B]: the chance that an image of the class has a higher score than another; ties are half."""
    true_BxG, other_BxG = by_score(truth_N, score_N, count_BxN)
    below_BxG = np.cumsum(other_BxG, 1) - other_BxG / 2
    return divide((true_BxG * below_BxG).sum(1), true_BxG.sum(1) * other_BxG.sum(1))


def average_precision(
    truth_N: np.ndarray, score_N: np.ndarray, count_BxN: np.ndarray
) -> np.ndarray:
    """[B]: the precision at each score, weighted by the recall that it adds."""
    true_BxG, other_BxG = (x[:, ::-1] for x in by_score(truth_N, score_N, count_BxN))
    found_BxG = np.cumsum(true_BxG, 1)
    precision_BxG = found_BxG / np.maximum(found_BxG + np.cumsum(other_BxG, 1), 1)
    return divide((true_BxG * precision_BxG).sum(1), true_BxG.sum(1))


def by_score(truth_N, score_N, count_BxN) -> tuple[np.ndarray, np.ndarray]:
    """How many images of the class, and how many others, have each score, from the lowest on."""
    if not len(score_N):
        return np.zeros((len(count_BxN), 1)), np.zeros((len(count_BxN), 1))
    order = np.argsort(score_N, kind='stable')
    starts = np.flatnonzero(np.diff(score_N[order], prepend=-np.inf))
    own_BxN, truth_N = count_BxN[:, order], truth_N[order]
    true_BxN = own_BxN * truth_N
    true_BxG = np.add.reduceat(true_BxN, starts, axis=1)
    return true_BxG, np.add.reduceat(own_BxN, starts, axis=1) - true_BxG


def divide(top: np.ndarray, below: np.ndarray) -> np.ndarray:
    """top / below, NaN where `below` is 0."""
    return np.where(below > 0, top / np.where(below > 0, below, 1), np.nan)


def mean_known(x_BxK: np.ndarray) -> np.ndarray:
    """[B]: means over K of what is no NaN; NaN where all are."""
    known_BxK = ~np.isnan(x_BxK)
    return divide(np.where(known_BxK, x_BxK, 0).sum(1), known_BxK.sum(1))
