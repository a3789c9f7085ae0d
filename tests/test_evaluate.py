"""The shuffled control: every column is a derangement, and its cost grows with the centers."""

import numpy as np
import pytest

from fedgen_jax.evaluate import MAX_OTHERS, others_of


@pytest.mark.parametrize('num', [2, 3, 21, 22, 50, 500])
def test_every_center_takes_the_descriptors_of_others(num):
    others = others_of(num)
    assert others.shape == (num, min(num - 1, MAX_OTHERS))
    for own, row in enumerate(others):
        assert own not in row and len(set(row)) == len(row)
    # Nobody's descriptor is taken more often than another's.
    assert set(np.bincount(others.ravel(), minlength=num)) == {others.shape[1]}
    np.testing.assert_array_equal(others_of(num), others)


@pytest.mark.parametrize('num', [22, 500])
def test_beyond_the_limit_each_column_is_a_derangement(num):
    for column in others_of(num).T:
        assert sorted(column) == list(range(num)) and (column != np.arange(num)).all()


def test_up_to_the_limit_all_others_are_taken():
    for own, row in enumerate(others_of(5)):
        assert sorted([own, *row]) == list(range(5))
