"""Scores of classes' probabilities, by scikit-learn."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

BINS = 10  # of confidence, equally wide


def _sk() -> ModuleType:
    """scikit-learn's metrics, imported late: they take longer than all else that a command does."""
    from sklearn import metrics

    return metrics


def of_one_label(probability_NxK: np.ndarray, label_N: np.ndarray, classes: Sequence[str]) -> dict:
    """Scores of images that have one class each, by the most probable class.

    Returns:
      auroc: of each class against the others, the mean over those that some images have and some
          have not; of two classes that of the second.  Absent where there is none.
      balanced_accuracy, f1: means of the recall, and of F1, over the classes that the images have.
      accuracy: the share of images that are right.
      sensitivity, specificity: of two classes, of the second, `positive`.
      ece: the expected calibration error of the most probable class, over `BINS` bins.
      n: images.  classes: of each class n, sensitivity, specificity, auroc and f1, those that
      exist.  confusion: images of each true class (rows) and predicted class.  reliability: see
      `reliability`.
    """
    probability_NxK = finite(probability_NxK)
    every, num = range(len(classes)), len(label_N)
    guess_N = probability_NxK.argmax(-1)
    confusion_KxK = _sk().confusion_matrix(label_N, guess_N, labels=every)
    wrong_K = confusion_KxK.sum(0) - confusion_KxK.diagonal()
    _, recall_K, f1_K, of_K = _sk().precision_recall_fscore_support(
        label_N, guess_N, labels=every, average=None, zero_division=0
    )
    area_K = areas(label_N[:, None] == np.arange(len(classes)), probability_NxK)
    by_class = {}
    for k, name in enumerate(classes):
        scores = {} if np.isnan(area_K[k]) else {'auroc': float(area_K[k])}
        if of_K[k]:
            scores |= {'sensitivity': float(recall_K[k]), 'f1': float(f1_K[k])}
        if of_K[k] < num:
            scores['specificity'] = float(1 - wrong_K[k] / (num - of_K[k]))
        by_class[name] = {'n': int(of_K[k]), **scores}
    present = of_K > 0
    two = by_class[classes[1]] if len(classes) == 2 else {}
    confidence_N, right_N = probability_NxK.max(-1), guess_N == label_N
    return {
        **({k: two[k] for k in ('auroc',) if k in two} if two else mean_of(by_class, 'auroc')),
        'balanced_accuracy': float(recall_K[present].mean()),
        'accuracy': float(_sk().accuracy_score(label_N, guess_N)),
        'f1': float(f1_K[present].mean()),
        **{k: two[k] for k in ('sensitivity', 'specificity') if k in two},
        'ece': calibration_error(confidence_N, right_N),
        'n': num,
        **({'positive': classes[1]} if two else {}),
        'classes': by_class,
        'confusion': confusion_KxK.tolist(),
        'reliability': reliability(confidence_N, right_N),
    }


def of_many_labels(
    probability_NxK: np.ndarray, truth_NxK: np.ndarray, classes: Sequence[str]
) -> dict:
    """Scores of images that have any number of classes; truth: 1, 0, and -1 where unknown.

    Returns:
      auroc: the mean over the classes that some images have and some have not.
      average_precision, f1: means over the classes that images have, F1 with classes said to be
          there from a probability of 0.5 on.
      ece: the calibration error of all probabilities together, of whether the class is there.
      n: images of which a class is known.  classes: of each class n that have it, `known` of which
      it is known, and sensitivity, specificity (both at 0.5), auroc, average_precision and f1,
      those that exist.  reliability: see `reliability`.
    """
    probability_NxK = finite(probability_NxK)
    known_NxK = truth_NxK >= 0
    by_class: dict[str, dict[str, float]] = {}
    for k, name in enumerate(classes):
        known_N = known_NxK[:, k]
        if not known_N.any():
            by_class[name] = {'n': 0, 'known': 0}
            continue
        truth_N, probability_N = truth_NxK[known_N, k] > 0, probability_NxK[known_N, k]
        (right_no, wrong), (missed, found) = _sk().confusion_matrix(
            truth_N, probability_N >= 0.5, labels=(False, True)
        ).tolist()
        (area,) = areas(truth_N[:, None], probability_N[:, None])
        scores = {} if np.isnan(area) else {'auroc': float(area)}
        if found + missed:
            scores |= {
                'sensitivity': found / (found + missed),
                'average_precision': float(_sk().average_precision_score(truth_N, probability_N)),
                'f1': float(_sk().f1_score(truth_N, probability_N >= 0.5, zero_division=0)),
            }
        if right_no + wrong:
            scores['specificity'] = right_no / (right_no + wrong)
        by_class[name] = {'n': found + missed, 'known': int(known_N.sum()), **scores}
    of = probability_NxK[known_NxK], truth_NxK[known_NxK] > 0
    found = (mean_of(by_class, m) for m in ('auroc', 'average_precision', 'f1'))
    return {
        **{k: v for scores in found for k, v in scores.items()},
        'ece': calibration_error(*of),
        'n': int(known_NxK.any(1).sum()),
        'classes': by_class,
        'reliability': reliability(*of),
    }


def finite(probability_NxK: np.ndarray) -> np.ndarray:
    """Probabilities, 0 where a model gave no number: its scores are then those of guessing."""
    return np.nan_to_num(np.asarray(probability_NxK), nan=0.0)


def areas(truth_NxK: np.ndarray, score_NxK: np.ndarray) -> np.ndarray:
    """AUROC of each class [K], NaN where no image has it, or all have."""
    area_K = np.full(truth_NxK.shape[1], np.nan)
    both_K = truth_NxK.any(0) & ~truth_NxK.all(0)
    if both_K.any():
        truth_NxK, score_NxK = truth_NxK[:, both_K], score_NxK[:, both_K]
        # One column alone is to scikit-learn no table of classes, but one class.
        area_K[both_K] = _sk().roc_auc_score(truth_NxK.squeeze(), score_NxK.squeeze(), average=None)
    return area_K


def mean_of(by_class: dict, metric: str) -> dict[str, float]:
    """The mean of a metric over the classes that have it; nothing where none has."""
    values = [scores[metric] for scores in by_class.values() if metric in scores]
    return {metric: float(np.mean(values))} if values else {}


def bin_of(confidence_N: np.ndarray) -> np.ndarray:
    """int [N]: which of `BINS` equal parts of [0, 1] each lies in."""
    return np.minimum((np.asarray(confidence_N) * BINS).astype(int), BINS - 1)


def reliability(confidence_N: np.ndarray, right_N: np.ndarray) -> list[dict]:
    """Of each bin that holds any: mean confidence, share that was right (accuracy), and count."""
    bin_N, found = bin_of(confidence_N), []
    for b in np.unique(bin_N):
        own = bin_N == b
        found.append({
            'confidence': float(np.mean(confidence_N[own], dtype=float)),
            'accuracy': float(right_N[own].mean()),
            'count': int(own.sum()),
        })
    return found


def calibration_error(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """How far confidence is from the share that was right, the mean over bins by their counts.

    Naeini et al. 2015; Guo et al. 2017, eq. 3.
    """
    bins = reliability(confidence_N, right_N)
    gaps = [abs(b['confidence'] - b['accuracy']) for b in bins]
    return float(np.average(gaps, weights=[b['count'] for b in bins]))
