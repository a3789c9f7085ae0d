"""What all parties of a secure sum know before it, and which numbers protect somebody."""

from collections.abc import Mapping
from typing import NamedTuple


class Setup(NamedTuple):
    """What all parties know before a sum.

    session:    bytes that no other sum has: of the run, the round and the attempt.
    identities: {number of a client: its public identity (`commit.identity`)}, from elsewhere than
                the server, which could register clients of its own.
    threshold:  how many clients give a secret back together.
    min_honest: the least clients whose words are in a sum beside those of colluders.
    colluding:  how many clients may show the server all they see.
    """

    session: bytes
    identities: Mapping[int, bytes]
    threshold: int
    min_honest: int = 3
    colluding: int = 0


def check_setup(setup: Setup) -> None:
    """Raises ValueError where a sum would protect nobody."""
    clients = len(setup.identities)
    if len(set(setup.identities.values())) < clients:
        raise ValueError('secure.on: two clients have one identity')
    check_numbers(clients, setup.threshold, setup.min_honest, setup.colluding)


def check_numbers(clients: int, threshold: int, min_honest: int, colluding: int) -> None:
    """The same of the numbers of a `Setup` of so many clients."""
    if clients < 3:
        raise ValueError(
            f"secure.on: {clients} clients: of two, each knows the other's words from the sum: "
            'at least 3'
        )
    if colluding < 0 or min_honest < 3:
        raise ValueError(
            f'secure.colluding={colluding}, secure.min_honest={min_honest}: at least 0, and at '
            'least 3'
        )
    if 2 * threshold <= clients + colluding or threshold > clients:
        raise ValueError(
            f'secure.threshold: {threshold} of {clients} clients, {colluding} of them colluding: a '
            'server that tells halves of them different things could take all masks off: more '
            f'than {(clients + colluding) / 2:g} clients, and all of them at most'
        )
    if min_honest + colluding > clients:
        raise ValueError(
            f'secure.min_honest={min_honest} beside secure.colluding={colluding}: more than the '
            f'{clients} clients of a round'
        )


def needed(setup: Setup) -> int:
    """The least clients that a sum may have."""
    return max(setup.threshold, setup.min_honest + setup.colluding)


def check_enough(setup: Setup, number: int, what: str) -> None:
    """Raises ValueError where fewer clients than `needed` did something."""
    if number < needed(setup):
        raise ValueError(
            f'secure.on: {number} of {len(setup.identities)} clients {what}, and a sum needs '
            f'{needed(setup)} (secure.threshold, secure.min_honest): nothing is summed'
        )
