"""From a target epsilon to noise: one unknown for all releases of a run.

What a run releases has shares of noise that are fixed beforehand: the descriptor's multiplier is
`k` times that of training, so that one number is searched for.
"""

import math
from collections.abc import Callable, Sequence

from fedgen_jax.privacy.accounting import Charge, epsilon, epsilon_rdp

TINY = 1e-300  # a cost that is too small for a float counts as this
TOLERANCE = 1e-3  # part of the target that may stay unspent


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
    """The smallest sigma at which `plan(sigma)` costs at most `target`, up to 0.1 % of it.

    plan: sigma -> all charges; their cost must fall with sigma.
    """
    def gap(log_sigma):
        cost = epsilon(plan(math.exp(log_sigma)), delta, relation)
        return math.log(max(cost, TINY) / (target * (1 - TOLERANCE / 2)))

    # Cost falls about as a power of sigma, so that a secant in logarithms needs few steps.
    high = math.log(_first_below(lambda s: epsilon_rdp(plan(s), delta, relation), target))
    low, at_low, at_high = high - 0.1, gap(high - 0.1), gap(high)
    for _ in range(60):
        if at_low <= 0:
            high, at_high, low = low, at_low, low - 0.3
            at_low = gap(low)
            continue
        if at_high > 0:  # the quick bound knows no truncation
            low, at_low, high = high, at_high, high + 0.1
            at_high = gap(high)
            continue
        if at_high >= -TOLERANCE / 2:
            break
        share = min(max(at_low / (at_low - at_high), 0.02), 0.98)
        x = low + share * (high - low)
        value = gap(x)
        if abs(value) < TOLERANCE / 2:
            high = x
            break
        low, at_low, high, at_high = (x, value, high, at_high) if value > 0 else (
            low, at_low, x, value
        )
    return math.exp(high)


def _first_below(cost, target):
    """A sigma of the quick bound, about the smallest."""
    sigma = 1.0
    while cost(sigma) > target:
        sigma *= 1.3
    while cost(sigma / 1.3) <= target:
        sigma /= 1.3
    return sigma
