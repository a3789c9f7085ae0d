"""Noise of a sum under masks that no party knows: each center adds a share of it to its words.

    words of a center = round(2^bits clip_C(contribution)) + Skellam(sigma^2 C^2 4^bits / h)

h is how many honest centers a sum has at least.  So the sum's noise has at least the variance
sigma^2 C^2, whoever drops out as far as a sum allows it and whoever colludes as far as was said;
of all centers it has more.  Nobody is trusted but h of the centers.

This holds for one linear release a round, a clipped contribution.  Steps at a center with shares
of noise each would not add up to it: every step's noise changes what the next one computes.

References:
    Agarwal, Kairouz, Liu 2021, The Skellam mechanism for differentially private federated learning.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax.privacy.accounting import GRAIN
from fedgen_jax.privacy.skellam import LARGEST, skellam

Tree = Any
TAIL = 16  # standard deviations of a share that a word has room for


class Shares(NamedTuple):
    """How centers add noise to a run's sums.

    clip:     C, the largest norm of a contribution.
    variance: of a center's share, in units of 4^-bits.
    key_of:   (number of a center, round, hash of what the server sent) -> the key of its share.
    """

    clip: float
    variance: int
    key_of: Callable[[int, int, bytes], bytes]


def deviation_of(sigma: float, clip: float, bits: int) -> int:
    """The standard deviation of a sum's noise, in whole numbers, of a noise multiplier."""
    return math.ceil(sigma * clip * 2**bits)


def variance_of_share(
    sigma: float, clip: float, honest: int, bits: int, word: int, clients: int
) -> int:
    """Of each center's share, in whole numbers.

    honest: the fewest honest centers of a sum.  clients: the most centers of one.

    Raises ValueError where the noise is too coarse or too fine for words of this size.
    """
    variance = math.ceil(deviation_of(sigma, clip, bits) ** 2 / honest)
    room = float((2 ** (word - 1) - 1) // clients)
    fits = clip * 2**bits + TAIL * math.sqrt(variance) <= room
    if variance <= LARGEST and fits and deviation_of(sigma, clip, bits) >= GRAIN:
        return variance
    spread = sigma / math.sqrt(honest)  # of a share, in clips
    finest = min(math.sqrt(LARGEST) / spread, room / (1 + TAIL * spread)) / clip
    low, high = math.ceil(math.log2(GRAIN / (sigma * clip))), math.floor(math.log2(finest))
    wanted = f'secure.bits from {low} to {high}' if low <= high else 'secure.word=64'
    raise ValueError(
        f'secure.distributed_noise: sigma {sigma:.3g} and clip {clip:g} do not go with '
        f'secure.bits={bits} of {word}: set {wanted}'
    )


def bounded(tree: Tree, clip: float, bits: int) -> np.ndarray:
    """int64 [d]: a contribution in units of 2^-bits, rounded, and no longer than the clip.

    Rounding may lengthen d numbers by sqrt(d) / 2, so much shorter they are made before.

    Raises TypeError where a leaf does not hold fractions, ValueError where d is too large.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, x in leaves:
        if not np.issubdtype(np.asarray(x).dtype, np.floating):
            name = jax.tree_util.keystr(path)
            raise TypeError(f'{name}: {np.asarray(x).dtype}, and noise is added to fractions')
    parts = [np.zeros(0), *(np.asarray(x, np.float64).ravel() for _, x in leaves)]
    numbers = np.concatenate(parts) * 2.0**bits
    limit = clip * 2.0**bits - math.sqrt(len(numbers)) / 2
    if limit <= clip * 2.0**bits / 2:
        raise ValueError(
            f'secure.bits={bits}: rounding of {len(numbers)} numbers is as large as '
            f'privacy.clip={clip:g}: set more'
        )
    norm = float(np.linalg.norm(numbers))
    return np.rint(numbers * min(1.0, limit / max(norm, 1e-300))).astype(np.int64)


def noisy_words(
    tree: Tree, clip: float, variance: int, key: bytes, bits: int, word: np.dtype
) -> np.ndarray:
    """What a center sends: uint32 or uint64 [d], its bounded contribution with its share."""
    own = bounded(tree, clip, bits)
    return (own + skellam(key, variance, len(own))).astype(np.uint64).astype(word)
