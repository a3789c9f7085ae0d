"""Data of one center, cut into several.

The cuts of arrays are pure numpy: they return, for each client, the indices of its examples.
"""

import collections
from collections.abc import Iterable, Iterator

import numpy as np

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.store import Record

KINDS = ('dirichlet', 'quantity')
LEAST = 5  # patients, or images without one, of a client: less say little


def cut_of(records: Iterable[Record], text: str, seed: int) -> Iterator[Record]:
    """Records whose one center is cut into client-000, client-001 and so on; patients stay whole.

    text: 'dirichlet:CENTERS:ALPHA', by label (`cut_by_label`), or 'quantity:CENTERS:ALPHA', into
        sizes (`cut_by_quantity`).  Each client has at least `LEAST` patients.

    Raises DataError where there are several centers already, or no such cut.
    """
    kind, num_clients, alpha = _parse(text)
    found = list(records)
    centers = sorted({r.center for r in found})
    if len(centers) > 1:
        raise DataError(
            f'data.cut={text}: the data have {len(centers)} centers, {centers[0]!r} and so on: '
            'leave it empty'
        )
    units = collections.defaultdict(list)
    for i, r in enumerate(found):
        units[r.patient or ('image', r.path)].append(i)
    parts = list(units.values())
    if kind == 'dirichlet' and 'label' not in found[0].target:
        raise DataError(f'data.cut={text}: the data have no labels: use quantity:CENTERS:ALPHA')
    try:
        if kind == 'quantity':
            clients = cut_by_quantity(len(parts), num_clients, alpha, seed, LEAST)
        else:
            # A patient goes by the label of its first image.
            label_U = np.array([int(found[part[0]].target['label']) for part in parts])
            clients = cut_by_label(label_U, num_clients, alpha, seed, LEAST)
    except ValueError as error:
        raise DataError(f'data.cut={text}: {error}') from error
    width = max(3, len(str(num_clients - 1)))
    for client, members in enumerate(clients):
        for i in sorted(i for unit in members for i in parts[unit]):
            yield found[i]._replace(center=f'client-{client:0{width}d}')


def _parse(text):
    kind, *numbers = text.split(':')
    try:
        num_clients, alpha = int(numbers[0]), float(numbers[1])
        is_good = kind in KINDS and len(numbers) == 2 and num_clients > 0 and 0 < alpha < np.inf
    except (ValueError, IndexError):
        is_good = False
    if not is_good:
        raise DataError(
            f'data.cut={text}: is neither dirichlet:CENTERS:ALPHA nor quantity:CENTERS:ALPHA, such '
            'as dirichlet:5:0.5'
        )
    return kind, num_clients, alpha


def cut_by_label(
    label_N: np.ndarray, num_clients: int, alpha: float, seed: int, min_examples: int = 1
) -> list[np.ndarray]:
    """Cuts each class among the clients in shares drawn from Dirichlet(alpha, ..., alpha).

    Small alpha: each client sees few classes; large alpha: all see the same mix.  Draws anew until
    each client has `min_examples`; ValueError if 1000 draws do not give that.

    References: Hsu, Qi and Brown, 2019, Measuring the effects of non-identical data distribution
    for federated visual classification, arXiv:1909.06335; the cut of each class: Yurochkin et al.,
    2019, Bayesian nonparametric federated learning of neural networks, ICML.
    """
    label_N = np.asarray(label_N)
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        client_N = np.empty(len(label_N), np.int64)
        for k in np.unique(label_N):
            index = rng.permutation(np.flatnonzero(label_N == k))
            share_C = rng.dirichlet(np.full(num_clients, alpha))
            bounds = np.rint(np.cumsum(share_C)[:-1] * len(index)).astype(int)
            for client, part in enumerate(np.split(index, bounds)):
                client_N[part] = client
        if np.bincount(client_N, minlength=num_clients).min() >= min_examples:
            return [np.flatnonzero(client_N == c) for c in range(num_clients)]
    raise ValueError(
        f'no cut of {len(label_N)} examples gives {num_clients} clients {min_examples} each with '
        f'alpha={alpha}: raise alpha, or lower num_clients or min_examples'
    )


def cut_by_quantity(
    num_examples: int, num_clients: int, alpha: float, seed: int, min_examples: int = 1
) -> list[np.ndarray]:
    """Cuts at random into sizes drawn from Dirichlet(alpha, ..., alpha), each >= min_examples."""
    spare = num_examples - num_clients * min_examples
    if spare < 0:
        raise ValueError(
            f'{num_examples} examples are too few for {num_clients} clients of {min_examples}: '
            'lower num_clients or min_examples'
        )
    rng = np.random.default_rng(seed)
    share_C = rng.dirichlet(np.full(num_clients, alpha))
    bounds = np.rint(np.cumsum(share_C)[:-1] * spare).astype(int)
    bounds += min_examples * np.arange(1, num_clients)
    return [np.sort(part) for part in np.split(rng.permutation(num_examples), bounds)]
