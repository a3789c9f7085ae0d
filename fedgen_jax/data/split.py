"""Training, validation and test: 60/20/20 of a center's patients, by hash.

Splits that a data set gives are kept (`assign_splits`).  Where it gives training and test alone,
validation is taken out of training first (`add_validation`).
"""

import collections
import hashlib
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from fedgen_jax.data.examples import SPLITS

# A draw in [0, 1) below the first bound is training, below the second validation.
BOUNDS = (0.6, 0.8)

VALIDATION = 0.2  # of the training units, where no split is given for it


def assign_splits(
    center: str,
    path_N: Sequence[str],
    patient_N: Sequence[str],
    stratum_N: Sequence[Hashable | None],
    given_N: Sequence[str],
    seed: int,
) -> np.ndarray:
    """int8 [N]: for each of one center's images an index into `SPLITS`.

    A unit, a patient or an image whose patient is unknown (''), lies in one split.  A given split
    ('' for none) is kept, for all of the patient's images.  The other units are split 60/20/20
    within each stratum: each split of a stratum of n units gets its share of n, up to one unit.
    Where no split is given and the draw leaves nothing to train on, one unit moves to training.

    stratum_N: None where the class is unknown; such a unit moves only if there is no other.

    The result depends on (seed, center, path or patient) alone: not on other centers, nor on the
    order of the images, nor on how the strata are named.

    Raises ValueError if a patient's given splits differ.
    """
    units = _units(path_N, patient_N)
    split_N = np.zeros(len(path_N), np.int8)
    strata = collections.defaultdict(list)
    for unit, members in units.items():
        given = sorted({given_N[i] for i in members} - {''})
        if len(given) > 1:
            where = ' and in '.join(given)
            raise ValueError(f'center {center!r}: {unit[0]} {unit[1]!r} is in {where}: choose one')
        if given:
            split_N[members] = SPLITS.index(given[0])
        else:
            strata[_stratum(members, stratum_N)].append(unit)

    for stratum in strata.values():
        for unit, position in _positions(seed, center, stratum):
            split_N[units[unit]] = np.searchsorted(BOUNDS, position, side='right')

    if not any(given_N) and not np.any(split_N == SPLITS.index('train')):
        known = [u for stratum, of in strata.items() if stratum is not None for u in of]
        moved = min(known or units, key=lambda unit: _uniform(seed, center, *unit, 'train'))
        split_N[units[moved]] = SPLITS.index('train')
    return split_N


def add_validation(
    center: str,
    path_N: Sequence[str],
    patient_N: Sequence[str],
    stratum_N: Sequence[Hashable | None],
    given_N: Sequence[str],
    seed: int,
) -> list[str]:
    """The given splits, with validation where they are training and test alone.

    That is a fifth of each stratum's training units, rounded up or down by a draw; one unit at
    least of the center's, and never a stratum's only one unless all are.  Depends on what
    `assign_splits` depends on.
    """
    found = list(given_N)
    if set(given_N) != {'train', 'test'}:
        return found
    units = _units(path_N, patient_N)
    strata = collections.defaultdict(list)
    for unit, members in units.items():
        if all(given_N[i] == 'train' for i in members):
            strata[_stratum(members, stratum_N)].append(unit)
    several = [of for of in strata.values() if len(of) > 1] or [sum(strata.values(), [])]
    chosen = [
        unit for of in several for unit, position in _positions(seed, center, of, 'val')
        if position < VALIDATION
    ]
    if not chosen and len(several[0]) > 1:
        every = [unit for of in several for unit in of]
        chosen = [min(every, key=lambda unit: _uniform(seed, center, *unit, 'val'))]
    for unit in chosen[: sum(map(len, strata.values())) - 1]:  # one is left to train on
        for i in units[unit]:
            found[i] = 'val'
    return found


def _units(path_N, patient_N) -> dict[tuple[str, str], list[int]]:
    """The images of each patient, and each image whose patient is unknown, by path."""
    units = collections.defaultdict(list)
    for i in np.argsort(np.array(path_N, dtype=str), kind='stable'):
        unit = ('patient', patient_N[i]) if patient_N[i] else ('image', path_N[i])
        units[unit].append(i)
    return units


def _stratum(members, stratum_N):
    """Of equally common labels the one of the first path counts."""
    return collections.Counter(stratum_N[i] for i in members).most_common(1)[0][0]


def _positions(seed, center, units, *word: str) -> Iterator[tuple]:
    """(unit, its place in [0, 1) among the units), in the order of a draw."""
    draw = {unit: _uniform(seed, center, *unit, *word) for unit in units}
    ranked = sorted(units, key=draw.__getitem__)
    # A random start makes the expected shares exact even where the stratum has one unit.
    start = _uniform(seed, center, *ranked[0], *word, 'start') if ranked else 0.0
    for rank, unit in enumerate(ranked):
        yield unit, (rank + start) / len(ranked)


def _uniform(seed: int, *parts: str) -> float:
    """A number in [0, 1) that is a pure function of its arguments."""
    digest = hashlib.blake2b('\0'.join((str(int(seed)), *parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, 'big') >> 11) / 2**53
