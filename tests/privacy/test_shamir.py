"""Enough shares give the secret, and fewer fit every secret."""

import numpy as np
import pytest

from fedgen_jax.privacy.shamir import PRIME, join, split


@pytest.mark.parametrize(('threshold', 'n'), [(1, 1), (2, 3), (3, 3), (14, 20)])
def test_any_threshold_of_shares_give_the_secret(threshold, n):
    rng = np.random.default_rng(1)
    for secret in (0, 2**256 - 1, PRIME - 1, 12345):
        shares = split(secret, threshold, n)
        for size in range(threshold, n + 1):
            chosen = [shares[i] for i in rng.permutation(n)[:size]]
            assert join(chosen) == secret


def test_fewer_shares_give_another_number_and_fit_every_secret():
    shares = split(7, 3, 5)
    assert join(shares[:2]) != 7
    # Two shares of three: for any secret there is a polynomial through them, so they tell nothing.
    for guess in (0, 7, PRIME - 1):
        third = join_at([(0, guess), *shares[:2]], 9)
        assert join([*shares[:2], (9, third)]) == guess
    assert split(7, 3, 5) != shares  # drawn anew


def join_at(points, at):
    """The polynomial through the points, at another place."""
    moved = [((x - at) % PRIME, y) for x, y in points]
    return join(moved)


def test_what_cannot_be_shared_or_joined_is_refused():
    for secret, threshold, n in ((PRIME, 2, 3), (-1, 2, 3), (1, 0, 3), (1, 4, 3)):
        with pytest.raises(ValueError):
            split(secret, threshold, n)
    with pytest.raises(ValueError, match='numbers of their own'):
        join([(1, 5), (1, 6)])
