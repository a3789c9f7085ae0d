"""From a target epsilon to noise: one unknown for all releases of a run.

What a run releases has shares of noise that are fixed beforehand: the descriptor's multiplier is
`k` times that of training, so that one number is searched for.
"""

import math
from collections.abc import Callable, Sequence

from fedgen_jax.privacy.accounting import Charge, epsilon, epsilon_rdp

TOLERANCE = 1e-3  # of the noise multiplier that is found, which is never too small


def check_target(target: float, delta: float, units: int) -> None:
    """Raises ValueError for an epsilon or a delta that would promise nothing.

    units: n, the most units that a center has: with a delta of 1/n a release may publish one of
        them in full.
    """
    if not (target > 0 and math.isfinite(target)):
        raise ValueError(f'privacy.epsilon={target}: a number above 0')
    if not 0 < delta <= 1 / (10 * units):
        raise ValueError(
            f'privacy.delta={delta}: above 0, and at most 1 / (10 n) = {1 / (10 * units):.3g} for '
            f'the {units} units of the largest center'
        )


def calibrate(
    plan: Callable[[float], Sequence[Charge]],
    target: float,
    delta: float,
    relation: str = 'zero-out',
) -> float:
    """The smallest sigma, up to 0.1 %, at which `plan(sigma)` costs at most `target`.

    plan: sigma -> all charges; their cost must fall with sigma.
    """
    def cost(sigma):
        return epsilon(plan(sigma), delta, relation)

    high = _first_below(lambda s: epsilon_rdp(plan(s), delta, relation), target)
    while cost(high) > target:  # the bound knows no truncation
        high *= 1.1
    low = 0.7 * high
    while cost(low) <= target:
        high, low = low, 0.7 * low
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= target else (middle, high)
    return high


def calibrate_count(
    plan: Callable[[int], Sequence[Charge]],
    target: float,
    delta: float,
    relation: str = 'zero-out',
) -> int:
    """The largest count at which `plan(count)` costs at most `target`; 0: not even one."""
    def fits(count):
        return epsilon(plan(count), delta, relation) <= target

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _first_below(cost, target):
    """A sigma of the quick bound, about the smallest."""
    sigma = 1.0
    while cost(sigma) > target:
        sigma *= 1.3
    while cost(sigma / 1.3) <= target:
        sigma /= 1.3
    return sigma
