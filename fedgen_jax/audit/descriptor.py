"""Who learns a center's descriptor: from its contribution, from a sum, from the pool at a join."""

import functools
from typing import Any

import numpy as np

from fedgen_jax.audit.base import Finding, Subject, told
from fedgen_jax.audit.canaries import mechanism_of
from fedgen_jax.audit.drawn import public_mean
from fedgen_jax.audit.leaks import contributions, error, nearest, ratio, span_share, z_of
from fedgen_jax.data.examples import SPLITS, Center, of_split
from fedgen_jax.evaluate import canonical, statistic_of
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.onboard import recalculate
from fedgen_jax.privacy.dpsgd import Own, Private
from fedgen_jax.privacy.release import release
from fedgen_jax.privacy.units import patient_table
from fedgen_jax.statistics import Statistics

SIGMA = 4.0  # noise multiplier of a release, where the run has none
ONE_STEP: dict[str, Any] = {
    'local_steps': 1, 'fedgen.local': 'meta', 'fedgen.jitter': 0.0, 'fedgen.pooled': 0.0,
    'fedgen.base_share': 0.0,
}


def released_of(
    subject: Subject, center: Center, around: np.ndarray, number: int
) -> Statistic:
    """A center's statistic with noise: the run's, or one that is made here as a private run's."""
    trained = subject.trained
    if trained.released is not None and center.name in trained.released:
        return trained.released[center.name]
    own = of_split(center, 'train')
    assert trained.program.describe
    vectors = trained.program.describe(trained.shared, canonical(trained, own, own).image)
    table = patient_table([f'{i}' for i in range(len(vectors))], 1)
    psi = descriptor.hash_of(trained.shared['psi'])
    key = np.random.default_rng(number).bytes(32)
    radius = subject.run.config.privacy.descriptor_radius
    return release(vectors, table, around, radius, SIGMA, key, psi, 'image')


def hidden(center: Center, m_E: np.ndarray, sigma: float = 0.0, most: int = 10**9) -> Own:
    """What private steps of a center need, on its released descriptor; most: images of it."""
    images = min(most, int((center.split == SPLITS.index('train')).sum()))
    index, real = patient_table([f'{i}' for i in range(images)], 1)
    secret = np.frombuffer(np.random.default_rng(images).bytes(8), np.uint32)
    return Own(index, real, np.float32(images), secret, np.float32(sigma), m_E)


def differencing(before: dict[str, Statistic], name: str, joins: Statistic) -> np.ndarray:
    """What the pool's change at a join tells of the newcomer's descriptor [E]."""
    pool = Statistics(before, descriptor.pool(before.values()))
    after = recalculate(pool, {name: joins}).statistics.pooled
    return descriptor.mean(descriptor.remove(after, pool.pooled))


def audit(subject: Subject) -> Finding:
    """On messages that the run's centers would send next."""
    finding = functools.partial(
        Finding, 'The descriptor of a center',
        'Can the numbers that describe a center be read from what it sends, or from sums?',
    )
    run, trained = subject.run, subject.trained
    if run.program.describe is None:
        return finding(missing='the run has no learned descriptor, so centers send none')
    if run.config.privacy.unit == 'client':
        return finding(missing='its unit is the client: the server meets messages in the clear')
    normal = trained.shared['normal']
    own = {c.name: statistic_of(trained, of_split(c, 'train')) for c in (*run.seen, *run.unseen)}
    around, centers = public_mean(subject), (*run.seen, *run.unseen)
    noisy = {c.name: released_of(subject, c, around, i) for i, c in enumerate(centers)}
    z = {name: z_of(descriptor.mean(s), normal) for name, s in own.items()}
    seen = [z[c.name] for c in run.seen]

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

    def row(found: list[np.ndarray]):
        named = np.mean([nearest(x, seen) == i for i, x in enumerate(found)])
        return float(np.median([error(x, y) for x, y in zip(found, seen)])), float(named)

    rows = {
        'a message of one step': row([ratio(x) for x in one]),
        f'a message of {run.config.local_steps} steps': row([ratio(x) for x in many]),
        'one step on a released descriptor': row([ratio(x) for x in control]),
    }
    if not run.guard:
        read = [z_of(x.read, normal) for x in many if x.read is not None]
        rows['what a message holds for the pool'] = row(read)
    fed = [m if x.support is None else x.support for x, m in zip(one, m_C)]
    exact = max(error(ratio(x), z_of(m, normal)) for x, m in zip(one, fed))
    only = max(error(ratio(x), z_of(m, normal)) for x, m in zip(control, m_C))
    total = np.sum([x.kernel for x in one], 0)
    inside = [span_share(total, z_of(m, normal), len(one)) for m in fed]
    others = [span_share(total, z[c.name], len(one)) for c in run.unseen]

    joins = (*run.unseen, run.seen[-1])[0].name
    before = {c.name: own[c.name] for c in run.seen if c.name != joins}
    gap = error(differencing(before, joins, own[joins]), descriptor.mean(own[joins]))
    before = {c.name: noisy[c.name] for c in run.seen if c.name != joins}
    seen_E = differencing(before, joins, noisy[joins])
    same = error(seen_E, descriptor.mean(noisy[joins]))
    off = error(seen_E, descriptor.mean(own[joins]))
    return finding(
        answer=f'A message of one step {"gives" if exact < 0.1 else "hides"} what the generator '
        f'was fed (relative error {told(exact)}); messages of {run.config.local_steps} steps name '
        'the center in '
        f'{rows_named(rows, 1)} of cases (guessing: {1 / len(seen):.0%}). The sum over {len(one)} '
        f'centers holds {min(inside):.4f} of each one\'s in its span'
        + (f' ({max(others):.2f} at most of a center that is not in it)' if others else '')
        + ('' if run.guard else '. A message also holds the descriptor itself, for the pool, which '
           f'names {rows_named(rows, 3)}') +
        f'. When {joins} joins with an exact statistic, the change of the pool is its descriptor '
        f'(error {told(gap)}).',
        control=f'Where a center uses a descriptor that was released with noise, its message gives '
        f'that one (to {told(only)}) and no other, and the pool\'s change too (to {told(same)}; '
        f'{told(off)} from the exact one).',
        holds=only < 1e-3 and same == 0 and off > 0,
        head=('from', 'relative error to its own descriptor, normalized', 'named right'),
        rows=[[name, told(a), f'{b:.0%}'] for name, (a, b) in rows.items()],
        numbers={
            'one_step_error': exact, 'released_error': only, 'in_span': inside,
            'others_in_span': others, 'difference_error': gap, 'released_difference_error': same,
            'released_from_exact': off,
            'rows': {name: {'error': a, 'named': b} for name, (a, b) in rows.items()},
        },
    )


def rows_named(rows, place: int) -> str:
    """The share of centers that a row of the table names right."""
    return f'{list(rows.values())[place][1]:.0%}'
