"""How many clients of which kind a round has, and which."""

import jax
import numpy as np
import pytest

from fedgen_jax.engine.cohorts import Mix, clients_of, cohort, mix_of


@pytest.mark.parametrize(
    ('cohort', 'share', 'mix'),
    [
        (0, -1, None),
        (0, 0, None),
        (0, 0.5, Mix(8, 4)),
        (0, 0.75, Mix(16, 12)),
        (0, 1, Mix(4, 4)),
        (6, -1, Mix(6, None)),
        (4, 0, Mix(4, 0)),
        (6, 0.5, Mix(6, 3)),
        (6, 1, Mix(6, 6)),
    ],
)
def test_the_mix_of_four_centers_and_twenty_drawn_ones(cohort, share, mix):
    if (cohort, share) != (0, -1):
        assert mix_of(cohort, share, 4, 20) == mix
    if share <= 0:
        assert mix_of(cohort, share, 4, 0) == mix


@pytest.mark.parametrize(
    ('cohort', 'share', 'num_virtual', 'message'),
    [
        (0, -1, 20, 'data.virtual=20: .*data.virtual_share'),
        (2, -1, -1, 'data.virtual=-1: a number from 0'),
        (0, 0.5, 0, 'data.virtual_share=0.5: .*data.virtual'),
        (0, 1.5, 20, 'data.virtual_share=1.5: from 0 to 1'),
        (0, 0.5, 3, '4 centers and 4 drawn ones a round, of 4 and 3'),
        (0, 0.1, 20, '4 centers and 0 drawn ones'),  # a share that rounds to nothing
        (8, 0.25, 20, '6 centers and 2 drawn ones a round, of 4 and 20'),
        (2, 0.9, 20, '0 centers and 2 drawn ones'),
    ],
)
def test_a_mix_that_cannot_be_is_refused(cohort, share, num_virtual, message):
    with pytest.raises(ValueError, match=message) as error:
        mix_of(cohort, share, 4, num_virtual)
    assert '\n' not in str(error.value)


def test_a_round_has_both_kinds_in_their_numbers():
    key = jax.random.key(0)
    rounds = [clients_of(key, r, 6, 30, Mix(5, 3)) for r in range(20)]
    for r, number_K in enumerate(rounds):
        assert number_K.dtype == np.int32 and (np.diff(number_K) > 0).all()
        assert (number_K < 6).sum() == 2 and number_K.max() < 36
        np.testing.assert_array_equal(clients_of(key, r, 6, 30, Mix(5, 3)), number_K)
    assert set(np.concatenate(rounds)) > {*range(6)} and len(set(np.concatenate(rounds))) > 25
    np.testing.assert_array_equal(clients_of(key, 0, 6, 30, Mix(8, 2))[:6], np.arange(6))


def test_as_they_come_a_round_is_a_cohort_of_all():
    key = jax.random.key(0)
    np.testing.assert_array_equal(clients_of(key, 2, 6, 30, Mix(5, None)), cohort(key, 2, 36, 5))
    np.testing.assert_array_equal(clients_of(key, 2, 6, 0, Mix(5, 0)), cohort(key, 2, 6, 5))
