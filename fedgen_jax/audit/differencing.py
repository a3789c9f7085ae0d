"""What the change of the pool at a join tells of the newcomer.

    pool(t+1) - pool(t) = what the newcomer added, to the last digit, whatever carried the sums

Joining, updating and leaving are exact by design (`hypernet.descriptor`), so masks do not help, and
nor does noise that others added, which cancels.  Only noise in the newcomer's own statistic stays.
"""

import functools
from typing import NamedTuple

import numpy as np

from fedgen_jax.audit.base import Finding, Subject, told
from fedgen_jax.audit.drawn import public_mean
from fedgen_jax.budget import site_of
from fedgen_jax.data.examples import SPLITS, Center, of_split
from fedgen_jax.evaluate import canonical, statistic_of
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.onboard import recalculate
from fedgen_jax.privacy.release import release
from fedgen_jax.statistics import Statistics

SIGMA = 4.0  # noise multiplier of a release, where the run has none


class Described(NamedTuple):
    """Statistics of the run's centers, seen and unseen, by name: exact, and with noise."""

    exact: dict[str, Statistic]
    noisy: dict[str, Statistic]


def described(subject: Subject) -> Described:
    """The noisy ones are the run's own releases where it has any, else made as a private run's."""
    trained, around = subject.trained, public_mean(subject)
    centers = (*subject.run.seen, *subject.run.unseen)
    noisy = {c.name: released_of(subject, c, around, i) for i, c in enumerate(centers)}
    exact = {
        c.name: statistic_of(trained, of_split(c, 'train'))._replace(unit=noisy[c.name].unit)
        for c in centers  # sums of images in both, whatever they are counted by
    }
    return Described(exact, noisy)


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
    psi = descriptor.hash_of(trained.shared['psi'])
    key = np.random.default_rng(number).bytes(32)
    c = subject.run.config
    site = site_of(c, center)
    unit = next((s.unit for s in (trained.released or {}).values()), site.unit)
    return release(
        vectors, site.table, around, c.privacy.descriptor_radius, SIGMA, key, psi, unit
    )


def difference(before: dict[str, Statistic], name: str, joins: Statistic) -> Statistic:
    """What the pool changes by when a center joins those that were there before."""
    pool = Statistics(before, descriptor.pool(before.values()))
    after = recalculate(pool, {name: joins}).statistics.pooled
    return descriptor.remove(after, pool.pooled)


def gap(found: Statistic, true: Statistic) -> np.ndarray:
    """How far off [E] a descriptor is that was read, in its own unit."""
    return descriptor.mean(found).astype(np.float64) - descriptor.mean(true)


def joins_of(
    own: dict[str, Statistic], others: dict[str, Statistic], exact: dict[str, Statistic]
) -> tuple[float, float]:
    """(relative error, error in standard errors of the noise) where each center joins the others.

    own: what each adds.  others: what lies in the pool before.  exact: what the attack is after.
    Both are root mean squares over centers and numbers; without noise the second is 0.
    """
    relative, in_noise = [], []
    for name, joins in own.items():
        before = {k: s for k, s in others.items() if k != name}
        off = gap(difference(before, name, joins), exact[name])
        relative.append(np.sum(off**2) / np.sum(descriptor.mean(exact[name]) ** 2))
        noise = descriptor.standard_error(joins)
        in_noise.append(np.mean(off**2) / noise**2 if noise else 0.0)
    return float(np.mean(relative) ** 0.5), float(np.mean(in_noise) ** 0.5)


def audit(subject: Subject) -> Finding:
    """On the run's centers, each of which joins the others."""
    finding = functools.partial(
        Finding, 'A center that joins',
        'What does the change of the sum of all descriptors tell of the center that joined?',
    )
    run = subject.run
    if run.program.describe is None:
        return finding(missing='the run has no learned descriptor, so centers send none')
    if run.config.privacy.unit == 'client':
        return finding(missing='its unit is the client: no statistics are kept, and nobody joins')
    exact, noisy = described(subject)
    cases = {
        'exact statistics': joins_of(exact, exact, exact),
        'noise of the others alone': joins_of(exact, noisy, exact),
        'a release with its own noise': joins_of(noisy, noisy, exact),
    }
    bare, shared, own = cases.values()
    images = [int((c.split == SPLITS.index('train')).sum()) for c in run.seen]
    protects = ' This run releases with such noise.' if run.guard else (
        ' This run\'s statistics are exact: masks would not change that.'
    )
    return finding(
        answer=f'When one of {len(exact)} centers joins the others with an exact statistic, the '
        f'change of the pool is its descriptor (relative error {told(bare[0])}), and with noise '
        f'that only the others added too ({told(shared[0])}). A release with noise of its own '
        f'leaves an error of {told(own[0])}, which is {told(own[1])} times the noise.' + protects,
        control='Without noise nothing may be left of the error, and with the newcomer\'s own it '
        'must be as large as that noise.',
        holds=bare[0] == shared[0] == 0 and own[1] > 0.8,
        head=('the newcomer adds', 'relative error', 'in standard errors of the noise'),
        rows=[[name, told(a), told(b) if b else '']
              for name, (a, b) in cases.items()],
        numbers={
            'centers': len(exact), 'images': int(np.median(images)),
            'joins': {name: {'error': a, 'in_noise': b} for name, (a, b) in cases.items()},
        },
    )
