"""Which clients take part in a round, where these are not simply all centers of the run."""

from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.random import stream


class Mix(NamedTuple):
    """How many clients a round has.

    drawn: those of them that are virtual, the others being centers of the run; None: as they come.
    """

    size: int
    drawn: int | None


def mix_of(cohort: int, share: float, num_own: int, num_virtual: int) -> Mix | None:
    """The mix of a run's rounds; None where all of its own centers take part, and they alone.

    cohort: clients of a round; 0: all own ones, and as many virtual ones as make the share.  Where
        the share is 1, there are then as many virtual ones as the run has centers.
    share:  of virtual clients in a round; below 0: a cohort is drawn from all alike.

    Raises ValueError.
    """
    if share > 1 or share > 0 and not num_virtual:
        raise ValueError(
            f'data.virtual_share={share}: from 0 to 1, with a number of drawn centers, data.virtual'
        )
    if num_virtual < 0 or num_virtual and share < 0 and not cohort:
        raise ValueError(
            f'data.virtual={num_virtual}: a number from 0 on, with data.virtual_share (the share '
            'of drawn centers in a round, such as 0.5) or with a cohort'
        )
    if share < 0:
        return Mix(cohort, None) if cohort else None
    if cohort:
        drawn = round(share * cohort)
        own = cohort - drawn
    elif share < 1:
        own, drawn = num_own, round(share / (1 - share) * num_own)
    else:
        own, drawn = 0, num_own
    rounded_away = (drawn > 0) != (share > 0) or (own > 0) != (share < 1)
    if own > num_own or drawn > num_virtual or rounded_away:
        raise ValueError(
            f'data.virtual_share={share}: makes {own} centers and {drawn} drawn ones a round, of '
            f'{num_own} and {num_virtual} (data.virtual): change one of these, or cohort'
        )
    return Mix(own + drawn, drawn) if cohort or drawn else None


def clients_of(
    key: jax.Array, round_: int, num_own: int, num_virtual: int, mix: Mix
) -> np.ndarray:
    """int32 [K]: the clients of a round, sorted; the run's own are 0 .. num_own - 1."""
    if mix.drawn is None:
        return cohort(key, round_, num_own + num_virtual, mix.size)
    own = cohort(key, round_, num_own, mix.size - mix.drawn)
    drawn = cohort(stream(key, 'virtual'), round_, num_virtual, mix.drawn)
    return np.concatenate([own, num_own + drawn])


def cohort(key: jax.Array, round_: int, num_clients: int, size: int) -> np.ndarray:
    """int32 [size], sorted: some of the clients, a pure function of the key and the round."""
    draw = jax.random.fold_in(stream(key, 'cohort'), round_)
    return np.sort(np.asarray(jax.random.permutation(draw, num_clients)[:size], np.int32))
