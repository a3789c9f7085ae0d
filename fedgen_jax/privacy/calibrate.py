"""From a target epsilon to noise: one unknown for all releases of a run.

What a run releases has shares of noise that are fixed beforehand: the descriptor's multiplier is
`k` times that of training, so that one number is searched for.
"""

import math
from collections.abc import Callable, Sequence

from scipy.optimize import brentq

from fedgen_jax.privacy.accounting import COARSE, INTERVAL, Charge, epsilon, epsilon_rdp

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
    def gap(log_sigma, interval):
        cost = epsilon(plan(math.exp(log_sigma)), delta, relation, interval)
        return math.log(max(cost, TINY) / (target * (1 - TOLERANCE / 2)))

    def coarse(log_sigma):
        return gap(log_sigma, COARSE)

    low = high = math.log(_first_below(lambda s: epsilon_rdp(plan(s), delta, relation), target))
    while coarse(low) < 0:
        low -= 0.2
    while coarse(high) > 0:  # the quick bound knows no truncation
        high += 0.1
    x = brentq(coarse, low, high, xtol=TOLERANCE / 10) if low < high else high
    # Cost falls about as a power of sigma: the slope of the coarse one serves the tight one.
    slope = (coarse(x + 0.01) - coarse(x)) / 0.01
    for _ in range(60):
        value = gap(x, INTERVAL)
        if abs(value) <= TOLERANCE / 2:
            return math.exp(x)
        x -= value / slope
    raise ValueError(f'privacy.epsilon={target}: no noise was found that costs as much')


def _first_below(cost, target):
    """A sigma of the quick bound, about the smallest."""
    sigma = 1.0
    while cost(sigma) > target:
        sigma *= 1.3
    while cost(sigma / 1.3) <= target:
        sigma /= 1.3
    return sigma
