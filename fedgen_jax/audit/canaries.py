"""Whether a run's private steps are refuted by canaries (`one_run`)."""

import functools

from fedgen_jax.audit.base import Finding, Subject, told
from fedgen_jax.audit.one_run import CONFIDENCE, Mechanism, lower_bound, play, stated

CANARIES = 2500  # with which a bound may reach 9.9


def mechanism_of(subject: Subject) -> Mechanism | None:
    """That of the run's training; None: it has none."""
    c, guard = subject.run.config, subject.run.guard
    if not c.privacy.unit or guard is None:
        return None
    plans = [of.account.plan for of in guard.ledgers.values()]
    charges = [x for plan in plans for x in plan if x.name == 'training']
    if not charges:
        return None
    first = charges[0]
    return Mechanism(first.sigma, c.privacy.rate, first.count, first.sensitivity,
                     c.privacy.multiplicity)


def audit(subject: Subject) -> Finding:
    """Of the run's own mechanism."""
    finding = functools.partial(
        Finding, 'Canaries in private training',
        'Is training as private as its epsilon says?',
    )
    if subject.run.config.privacy.unit == 'client':
        return finding(missing='its unit is the client: canaries test private steps of a center')
    m, delta = mechanism_of(subject), subject.run.config.privacy.delta
    if m is None:
        return finding(missing='the run has no privacy.unit, so there is no epsilon to test')
    count, claim = CANARIES, stated(m, CANARIES, delta)
    guesses = [play(m, subject.local, count, 1, share) for share in (1, 1 / 6, 0)]
    found, sixth, most = bounds = [lower_bound(scores, delta) for scores in guesses]
    of_any = [lower_bound(scores, delta, gaussian=False) for scores in guesses]
    ok = found <= claim
    text = 'refutes the stated one: do not release' if not ok else 'does not refute the stated one'
    control = f'With a sixth of the noise it is at least {told(sixth)}'
    if sixth > claim:
        control += ', above the stated epsilon, as it must be: the audit sees too little noise.'
    else:
        control += (
            f'; without any noise {told(most)}. The stated epsilon is too large for '
            f'{count} canaries to refute even a sixth of its noise, so this audit is blind here.'
        )
    return finding(
        answer=f'Epsilon is at least {told(found)} with {CONFIDENCE:.0%} confidence, which {text}: '
        f'{told(claim)} for training alone, at delta {delta:g}. The bound takes the trade-off of '
        'false alarms and misses for a Gaussian\'s, as that of many noisy steps nearly is; '
        f'without that it is {told(of_any[0])}.',
        control=control,
        holds=sixth > claim,
        head=('noise', 'epsilon is at least', 'of any trade-off', 'stated'),
        rows=[[name, told(x), told(y), told(claim)]
              for name, x, y in zip(('as stated', 'a sixth of it', 'none'), bounds, of_any)],
        numbers={
            'lower_bound': found, 'lower_bound_of_any': of_any[0], 'confidence': CONFIDENCE,
            'canaries': count, 'stated': claim, 'refuted': not ok, 'sixth_of_the_noise': sixth,
            'no_noise': most, 'delta': delta, **m._asdict(),
        },
    )
