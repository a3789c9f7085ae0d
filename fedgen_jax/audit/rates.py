"""The likelihood ratio of membership, and how good guesses by a score are."""

import numpy as np


def scores(target_N: np.ndarray, shadow_SxN: np.ndarray, member_SxN: np.ndarray) -> np.ndarray:
    """The log likelihood ratio [N] of "was a member" over "was not" (online LiRA)."""
    def fit(use_SxN):
        mean_N = np.where(use_SxN, shadow_SxN, 0).sum(0) / use_SxN.sum(0)
        variance = np.square(shadow_SxN - mean_N)[use_SxN].sum() / (use_SxN.sum() - len(mean_N))
        return mean_N, variance + 1e-12

    def log_normal(mean_N, variance):
        return -0.5 * ((target_N - mean_N) ** 2 / variance + np.log(variance))

    return log_normal(*fit(member_SxN)) - log_normal(*fit(~member_SxN))


def one_sided(
    target_N: np.ndarray, shadow_SxN: np.ndarray, member_SxN: np.ndarray
) -> np.ndarray:
    """How far [N] a model is above shadows that did not learn from an image (offline LiRA).

    It asks nothing of shadows that did, which tell little where the model learned much longer.
    """
    out_SxN = ~member_SxN
    return target_N - np.where(out_SxN, shadow_SxN, 0).sum(0) / out_SxN.sum(0)


def tpr_at(rate: float, inside: np.ndarray, outside: np.ndarray) -> float:
    """The share of members that are found where at most this share of the others is accused."""
    allowed = int(rate * len(outside))
    return float(np.mean(inside > np.sort(outside)[::-1][allowed]))


def tpr_of_guessing(rate: float, others: int) -> float:
    """What `tpr_at` is on average where scores tell nothing: more than the rate, of few others."""
    return (int(rate * others) + 1) / (others + 1)


def roc(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(false, true) positive rates at every threshold, rising."""
    order = np.sort(np.concatenate([inside, outside]))[::-1]
    return tuple(  # type: ignore[return-value]
        1 - np.searchsorted(np.sort(x), order, side='left') / len(x) for x in (outside, inside)
    )


def area(inside: np.ndarray, outside: np.ndarray) -> float:
    """The area under the ROC: the chance that a member scores above another."""
    below = np.searchsorted(np.sort(outside), inside, 'left')
    ties = np.searchsorted(np.sort(outside), inside, 'right') - below
    return float((below + ties / 2).mean() / len(outside))
