"""Shamir's sharing of a secret: any `threshold` of n shares give it, and fewer tell nothing.

References:
    Shamir 1979, How to share a secret, Communications of the ACM.
"""

import secrets
from collections.abc import Sequence

PRIME = 2**521 - 1  # a Mersenne prime, larger than any secret of 64 bytes

Share = tuple[int, int]


def split(secret: int, threshold: int, n: int) -> list[Share]:
    """n shares (x, y), x = 1 .. n: values of a random polynomial of degree threshold - 1 whose
    value at 0 is the secret."""
    if not 0 <= secret < PRIME:
        raise ValueError('a secret is a number from 0 to 2^521 - 2')
    if not 1 <= threshold <= n:
        raise ValueError(f'threshold={threshold}: from 1 to the {n} shares')
    coefficients = [secret, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [(x, _value_at(coefficients, x)) for x in range(1, n + 1)]


def join(shares: Sequence[Share]) -> int:
    """The secret of at least `threshold` shares: the polynomial through them at 0 (Lagrange).

    Of fewer, or of a changed share, it is another number, and nothing tells so.
    """
    xs = [x for x, _ in shares]
    if len(set(xs)) != len(xs) or 0 in xs:
        raise ValueError('shares of one secret have numbers of their own, from 1 on')
    total = 0
    for x, y in shares:
        above, below = 1, 1
        for other in xs:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        total = (total + y * above * pow(below, -1, PRIME)) % PRIME
    return total


def _value_at(coefficients, x):
    """Horner's rule."""
    value = 0
    for c in reversed(coefficients):
        value = (value * x + c) % PRIME
    return value
