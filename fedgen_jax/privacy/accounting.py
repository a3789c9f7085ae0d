"""What releases cost together: charges, their events, and the epsilon of all of them.

A charge's `sigma` is the noise multiplier: the noise's standard deviation divided by the
L2 sensitivity of what is released.  Epsilon is that of the privacy loss distribution (PLD), which
is an upper bound and nearly tight; `epsilon_rdp` is the older bound by Renyi divergences.

References:
    Koskela et al. 2020, Computing tight differential privacy guarantees using FFT; Doroshenko
    et al. 2022, Connect the dots (the discretization used); Mironov 2017, Renyi differential
    privacy; Ganesh et al. 2025, arXiv:2508.15089 (truncated Poisson sampling); Canonne et al.
    2020, The discrete Gaussian for differential privacy; Agarwal et al. 2021, The Skellam
    mechanism for differentially private federated learning.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.skellam import renyi

INTERVAL = 1e-4  # of the discretized privacy loss
COARSE = 1e-3  # the same, looser by parts in a thousand at most, in a tenth of the time
RELATIONS = {
    'zero-out': 'REPLACE_SPECIAL',  # a unit's data become nothing; how many units there are stays
    'add-remove': 'ADD_OR_REMOVE_ONE',
    'replace-one': 'REPLACE_ONE',  # the accountant doubles the distance by itself
}
KINDS = (
    'gaussian', 'discrete gaussian', 'poisson gaussian', 'truncated poisson gaussian', 'skellam'
)
# Of Renyi divergences; smaller ones do not converge where epsilon is large.
ORDERS = (*(x / 10 for x in range(20, 110)), *range(11, 64), 128, 256, 512, 1024)
WHOLE = (*range(2, 64), *range(64, 128, 8), 128, 256, 512, 1024)  # Skellam's bound holds at these
GRAIN = 1000  # integers in a standard deviation, from where discrete noise counts as continuous


class Charge(NamedTuple):
    """`count` releases of one kind.

    sigma:       noise multiplier, the standard deviation over the sensitivity.
    sensitivity: L2, of one release, in the unit of what is released.
    rate:        q of the Poisson sample, 1 without sampling.
    size, cap:   truncated sampling: units at the center, and the most that a sample holds.
    grain:       discrete noise: its standard deviation in whole numbers.
    first:       the number of the first of these releases among those of its name.
    """

    name: str
    kind: str
    sigma: float
    sensitivity: float
    count: int = 1  # type: ignore[assignment]  # a tuple's own method has the name
    rate: float = 1.0
    size: int = 0
    cap: int = 0
    grain: float = 0.0
    first: int = 0


def check_charge(c: Charge) -> None:
    """Raises ValueError, in one line, for a charge that charges nothing or that has no event."""
    if c.kind not in KINDS:
        raise ValueError(f'{c.name}: kind {c.kind!r}: one of {", ".join(KINDS)}')
    if not (c.sigma > 0 and math.isfinite(c.sigma)):
        raise ValueError(f'{c.name}: sigma={c.sigma}: a noise multiplier above 0')
    if c.count < 1:
        raise ValueError(f'{c.name}: count={c.count}: a charge is of at least 1 release')
    if not 0 < c.rate <= 1:
        raise ValueError(f'{c.name}: rate={c.rate}: a sampling rate above 0, up to 1')
    sampled = 'poisson' in c.kind
    if not sampled and c.rate != 1:
        raise ValueError(f'{c.name}: rate={c.rate}: a {c.kind} release is of all units')
    if c.kind.startswith('truncated') and not 0 < c.cap <= c.size:
        raise ValueError(f'{c.name}: cap={c.cap}: from 1 to the {c.size} units')
    if c.kind in ('discrete gaussian', 'skellam') and c.grain < GRAIN:
        raise ValueError(
            f'{c.name}: noise of {c.grain:g} whole numbers: below {GRAIN} discrete noise in many '
            'coordinates is not charged as continuous noise is'
            + (f': raise privacy.{c.name}_noise' if c.name in ('descriptor', 'moments') else '')
        )


def merged(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """Charges that differ in their number alone, together; sorted."""
    total: dict[Charge, int] = {}
    for c in charges:
        kind = c._replace(count=1, first=0)
        total[kind] = total.get(kind, 0) + c.count
    return tuple(sorted(c._replace(count=n) for c, n in total.items()))


def event_of(c: Charge) -> Any:
    """The charge as an event of `dp_accounting`."""
    check_charge(c)
    dp = extra('dp_accounting', 'an epsilon')
    noise = dp.GaussianDpEvent(c.sigma)
    event = {
        'gaussian': lambda: noise,
        # Of so fine a grid both satisfy 1/(2 sigma^2)-zCDP (Canonne et al. 2020, theorem 4).
        'discrete gaussian': lambda: noise,
        # Its Renyi divergence is linear in the order, which is what this event says.
        'skellam': lambda: dp.ZCDpEvent(*renyi(c.sigma, c.grain)),
        'poisson gaussian': lambda: dp.PoissonSampledDpEvent(c.rate, noise),
        'truncated poisson gaussian': lambda: dp.dp_event.TruncatedSubsampledGaussianDpEvent(
            c.size, c.rate, c.cap, c.sigma
        ),
    }[c.kind]()
    return dp.SelfComposedDpEvent(event, c.count) if c.count > 1 else event


def epsilon(
    charges: Iterable[Charge], delta: float, relation: str = 'zero-out',
    interval: float = INTERVAL,
) -> float:
    """Epsilon of all charges at `delta`; 0 of none.

    interval: of the discretized privacy loss.  Any gives an upper bound, a smaller one a tighter.

    With Skellam noise among them, of which no privacy loss distribution is known, it is that by
    Renyi divergences.
    """
    charges = merged(charges)
    return _epsilon(charges, delta, relation, 0.0 if has_skellam(charges) else interval)


def has_skellam(charges: Iterable[Charge]) -> bool:
    """Whether the accountant is that of Renyi divergences."""
    return any(c.kind == 'skellam' for c in charges)


def epsilon_rdp(charges: Iterable[Charge], delta: float, relation: str = 'zero-out') -> float:
    """The same by Renyi divergences: a looser bound that is quick.

    It knows no truncated sampling, and takes it for Poisson sampling.
    """
    plain = (
        c._replace(kind='poisson gaussian', size=0, cap=0) if c.kind.startswith('trunc') else c
        for c in charges
    )
    return _epsilon(merged(plain), delta, relation, 0.0)


@functools.lru_cache(maxsize=512)
def _epsilon(charges, delta, relation, interval):
    """interval: 0: by Renyi divergences."""
    if not 0 < delta < 1:
        raise ValueError(f'delta={delta}: a probability between 0 and 1')
    if not charges:
        return 0.0
    neighbors = extra('dp_accounting', 'an epsilon').NeighboringRelation[RELATIONS[relation]]
    if interval:
        of = extra('dp_accounting.pld', 'an epsilon').PLDAccountant(neighbors, interval)
    else:
        if has_skellam(charges) and relation == 'replace-one':
            raise ValueError('skellam: a sensitivity of replacement would be twice that charged')
        orders = WHOLE if has_skellam(charges) else ORDERS
        of = extra('dp_accounting.rdp', 'an epsilon').RdpAccountant(orders, neighbors)
    for c in charges:
        of.compose(event_of(c))
    return float(of.get_epsilon(delta))
