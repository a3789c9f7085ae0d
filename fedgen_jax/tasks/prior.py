"""The class mix of a center, in the decisions of a model that was trained under another.

A classifier's probabilities hold the class shares of its training images.  At a center whose shares
are others, but whose images of each class look alike, Bayes' rule gives (Saerens et al. 2002,
eq. 2.4)

    p'(k|x) = p(k|x) q_k / t_k / sum_j p(j|x) q_j / t_j,

with t the shares of training and q the center's.  Where p is calibrated and q right, this raises
accuracy and lowers balanced accuracy: rare classes are answered less often.

References:
    Saerens, Latinne, Decaestecker 2002, Adjusting the outputs of a classifier to new a priori
    probabilities: a simple procedure, Neural Computation 14.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TOLERANCE = 0.01  # that stated shares may miss 1 by: they are written with few digits
HALF = 0.5  # an image of each class, added to an estimate: no class becomes impossible


def stated(text: str, classes: Sequence[str]) -> np.ndarray:
    """The shares [K] in 'CLASS=SHARE,CLASS=SHARE', every class once; they sum to 1.

    Raises ValueError, in one line, where a class is unknown, missing or told twice, or where the
    shares are no shares.  Names may hold commas and equal signs.
    """
    shares: dict[str, float] = {}
    part = ''
    for piece in text.split(','):
        part = f'{part},{piece}' if part else piece
        name, equals, value = part.rpartition('=')
        if not equals:  # the comma is the name's
            continue
        name, part = name.strip(), ''
        if name not in classes:
            raise ValueError(f'prevalence: no class {name!r}; there are {", ".join(classes)}')
        if name in shares:
            raise ValueError(f'prevalence: {name!r} is told twice')
        try:
            shares[name] = float(value)
        except ValueError:
            raise ValueError(f'prevalence: {name}={value!r}: write a share from 0 to 1') from None
        if not 0 <= shares[name] <= 1:
            raise ValueError(f'prevalence: {name}={value}: write a share from 0 to 1')
    if part:
        raise ValueError(f'prevalence: {part!r}: write CLASS=SHARE,CLASS=SHARE')
    missing = [name for name in classes if name not in shares]
    if missing:
        raise ValueError(f'prevalence: {", ".join(missing)} missing: write 0 for a class without')
    total = sum(shares.values())
    if abs(total - 1) > TOLERANCE:
        raise ValueError(f'prevalence: the shares sum to {total:.4g}, and have to sum to 1')
    return np.array([shares[name] for name in classes]) / total


class Mix(NamedTuple):
    """Class shares [K] of training, where they are from, and whether they are the images' own."""

    share: np.ndarray
    source: str
    natural: bool = False


def trained_mix(
    prevalence: str, prior: str, weighting: str, labels: Sequence[Mapping[str, int]],
    images: Sequence[int], classes: Sequence[str],
) -> Mix:
    """The class shares that a model's probabilities hold.

    Uniform where batches are 'balanced', or 'mixed' and so on the mean, and where the loss takes a
    client's shares out ('logits').  Else the clients' own, weighted as their sum is.

    Args:
      prevalence, prior, weighting: as `Local` has them.
      labels: of each client, the training images of each class; empty: none is kept.
      images: of each client, all training images.

    Raises ValueError where the shares are needed and not there.
    """
    uniform = np.full(len(classes), 1 / len(classes))
    if prior == 'logits':
        return Mix(uniform, "uniform, for loss.prior='logits'")
    if prevalence != 'natural':
        return Mix(uniform, f'uniform, for prevalence={prevalence!r}')
    count_CxK = np.array([[of.get(k, 0) for k in classes] for of in labels], float)
    if not count_CxK.sum():
        raise ValueError(
            'the class shares of its training images were not kept: call launch.train again, '
            'which adds them'
        )
    known = count_CxK.sum(1) > 0
    share_CxK = count_CxK[known] / count_CxK[known].sum(1, keepdims=True)
    each_C = np.array(images, float)[known] if weighting == 'examples' else np.ones(known.sum())
    pooled_K = each_C @ share_CxK / each_C.sum()
    return Mix(pooled_K, 'the class shares of the training images', natural=True)


def log_ratio(share_K: np.ndarray, trained_K: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """log q_k / t_k, float32 [K], -inf where q_k is 0: what `reweighted` takes.

    Raises ValueError where the center has a class that training had not.
    """
    for name, q, t in zip(classes, share_K, trained_K):
        if q > 0 and t <= 0:
            raise ValueError(f'prevalence: {name!r}: no training image shows it, so its share is 0')
    with np.errstate(divide='ignore'):
        top, below = np.log(share_K), np.log(np.where(trained_K > 0, trained_K, 1))
    return (top - below).astype(np.float32)


def reweighted(probability_NxK: jax.Array, log_ratio_K: jax.Array) -> jax.Array:
    """p'(k|x) of the module's text, in logarithms: no probability is too small to compare."""
    tiny = jnp.finfo(probability_NxK.dtype).tiny
    log_NxK = jnp.log(jnp.maximum(probability_NxK, tiny)) + log_ratio_K[None]
    return jax.nn.softmax(log_NxK)


class Estimate(NamedTuple):
    """Class shares [K] that unlabelled images tell, and what to doubt in them ('': nothing)."""

    share: np.ndarray
    doubt: str


def estimate(
    probability_NxK: np.ndarray, trained_K: np.ndarray, classes: Sequence[str], steps: int = 1000
) -> Estimate:
    """The class shares of unlabelled images, by expectation maximization.

    From q = t it repeats (Saerens et al. 2002, eqs. 2.8 and 2.9)

        q(k|x) = p(k|x) q_k / t_k / sum_j p(j|x) q_j / t_j,     q_k = mean over x of q(k|x),

    which raises the likelihood of the images, concave in q, in every step; until no share moves by
    1e-6, or for `steps`.  It finds the mix where p is calibrated under t, and no better than that:
    a model that confuses two classes, or is too sure of itself, biases it.  Half an image of each
    class that training had is added at the end.

    Raises ValueError without an image.
    """
    if not len(probability_NxK):
        raise ValueError('prevalence=estimate: there is no image')
    p_NxK = np.maximum(np.asarray(probability_NxK, np.float64), 1e-30)
    ratio_NxK = np.where(trained_K > 0, p_NxK / np.where(trained_K > 0, trained_K, 1), 0)
    q_K = np.asarray(trained_K, np.float64)
    for _ in range(steps):
        each_NxK = ratio_NxK * q_K
        new_K = (each_NxK / each_NxK.sum(1, keepdims=True)).mean(0)
        moved, q_K = np.abs(new_K - q_K).max(), new_K
        if moved < 1e-6:
            break
    num = len(ratio_NxK)
    lost = [k for k, q, t in zip(classes, q_K, trained_K) if t > 0 and q * num < HALF]
    doubt = ''
    if lost:
        doubt = (
            f'the estimated class mix has less than half an image in {num} of '
            f'{", ".join(lost)}: if the center has them, state the mix yourself'
        )
    count_K = q_K * num + HALF * (np.asarray(trained_K) > 0)
    return Estimate(count_K / count_K.sum(), doubt)
