"""Who learns a center's descriptor: from its contribution, and from a sum of them."""

import functools
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.audit.base import Finding, Subject, told
from fedgen_jax.audit.canaries import mechanism_of
from fedgen_jax.audit.differencing import described
from fedgen_jax.audit.leaks import Leak, contributions, error, nearest, ratio, span_share, z_of
from fedgen_jax.data.examples import SPLITS, Center
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.privacy.dpsgd import Own, Private
from fedgen_jax.privacy.units import patient_table

ONE_STEP: dict[str, Any] = {
    'local_steps': 1, 'fedgen.local': 'meta', 'fedgen.jitter': 0.0, 'fedgen.pooled': 0.0,
    'fedgen.base_share': 0.0,
}


def hidden(center: Center, m_E: np.ndarray, sigma: float = 0.0, most: int = 10**9) -> Own:
    """What private steps of a center need, on its released descriptor; most: images of it."""
    images = min(most, int((center.split == SPLITS.index('train')).sum()))
    index, real = patient_table([f'{i}' for i in range(images)], 1)
    secret = np.frombuffer(np.random.default_rng(images).bytes(8), np.uint32)
    return Own(index, real, np.float32(images), secret, np.float32(sigma), m_E)


class Sent(NamedTuple):
    """What each seen center would send: of one step, of the run's number of steps, and of one step
    that uses its released descriptor.  fed: what the generator was fed in the first [C, E]."""

    one: list[Leak]
    many: list[Leak]
    control: list[Leak]
    fed: list[np.ndarray]


def sent_of(subject: Subject, noisy: dict[str, Statistic]) -> Sent:
    """Messages of a round in the middle of the run."""
    run, trained = subject.run, subject.trained
    m_C = [descriptor.mean(noisy[c.name]) for c in run.seen]
    own_C = None
    if run.guard:
        m = mechanism_of(subject)
        own_C = [hidden(c, x, m.sigma if m else 0.0) for c, x in zip(run.seen, m_C)]
    one = contributions(run, trained, ONE_STEP, own_C)
    many = contributions(run, trained, {}, own_C)
    bare = Private(np.inf, 1.0, lambda path: True)
    control = contributions(
        run, trained, ONE_STEP, [hidden(c, m, most=8) for c, m in zip(run.seen, m_C)], bare
    )
    fed = [m if x.support is None else x.support for x, m in zip(one, m_C)]
    return Sent(one, many, control, fed)


def named_by(found: list[np.ndarray], seen: list[np.ndarray]) -> tuple[float, float]:
    """(median relative error, share of centers named right) of what was read of each center."""
    named = np.mean([nearest(x, seen) == i for i, x in enumerate(found)])
    return float(np.median([error(x, y) for x, y in zip(found, seen)])), float(named)


def audit(subject: Subject) -> Finding:
    """On messages that the run's centers would send next."""
    finding = functools.partial(
        Finding, 'The descriptor of a center',
        'Can the numbers that describe a center be read from what it sends, or from a sum?',
    )
    run = subject.run
    if run.program.describe is None:
        return finding(missing='the run has no learned descriptor, so centers send none')
    if run.config.privacy.unit == 'client':
        return finding(missing='its unit is the client: the server meets messages in the clear')
    normal, steps = subject.trained.shared['normal'], run.config.local_steps
    own, noisy = described(subject)
    z = {name: z_of(descriptor.mean(s), normal) for name, s in own.items()}
    seen, sent = [z[c.name] for c in run.seen], sent_of(subject, noisy)
    rows = {
        'a message of one step': named_by([ratio(x) for x in sent.one], seen),
        f'a message of {steps} steps': named_by([ratio(x) for x in sent.many], seen),
        'one step on a released descriptor': named_by([ratio(x) for x in sent.control], seen),
    }
    if not run.guard:
        read = [z_of(x.read, normal) for x in sent.many if x.read is not None]
        rows['what a message holds for the pool'] = named_by(read, seen)
    used = [z_of(descriptor.mean(noisy[c.name]), normal) for c in run.seen]
    exact = max(error(ratio(x), z_of(m, normal)) for x, m in zip(sent.one, sent.fed))
    only = max(error(ratio(x), m) for x, m in zip(sent.control, used))
    off = float(np.median([error(x, y) for x, y in zip(used, seen)]))
    total = np.sum([x.kernel for x in sent.one], 0)
    inside = [span_share(total, z_of(m, normal), len(seen)) for m in sent.fed]
    others = [span_share(total, z[c.name], len(seen)) for c in run.unseen]
    return finding(
        answer=f'A message of one step {"gives" if exact < 0.1 else "hides"} what the generator '
        f'was fed (relative error {told(exact)}); messages of {steps} steps name the center in '
        f'{rows_named(rows, 1)} of cases (guessing: {1 / len(seen):.0%}). The sum over '
        f'{len(seen)} centers holds {min(inside):.4f} of each one\'s in its span'
        + (f' ({max(others):.2f} at most of a center that is not in it)' if others else '')
        + ('' if run.guard else '. A message also holds the descriptor itself, for the pool, which '
           f'names {rows_named(rows, 3)}') + '.',
        control=f'Where a center uses a descriptor that was released with noise, its message gives '
        f'that one (to {told(only)}) and no other ({told(off)} from the exact one).',
        holds=only < 1e-3 and off > 10 * only,
        head=('from', 'relative error to its own descriptor, normalized', 'named right'),
        rows=[[name, told(a), f'{b:.0%}'] for name, (a, b) in rows.items()],
        numbers={
            'one_step_error': exact, 'released_error': only, 'released_from_exact': off,
            'in_span': inside, 'others_in_span': others,
            'rows': {name: {'error': a, 'named': b} for name, (a, b) in rows.items()},
        },
    )


def rows_named(rows, place: int) -> str:
    """The share of centers that a row of the table names right."""
    return f'{list(rows.values())[place][1]:.0%}'
