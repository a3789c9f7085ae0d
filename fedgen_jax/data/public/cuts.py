"""Labelled sets without centers (of `medmnist`, `tfds_catalog`), cut into clients.

The cuts are pure numpy: they return, for each client, the indices of its examples.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fedgen_jax.data.examples import Source
from fedgen_jax.data.folder import decode
from fedgen_jax.data.source import assemble
from fedgen_jax.data.store import Record


class Arrays(NamedTuple):
    """A labelled set in memory.

    image:   N uint8 images [H, W] or [H, W, 1 or 3], of any sizes.
    label:   int32 [N], -1: unknown.
    path:    N names, unique.
    split:   N of 'train', 'val', 'test', or '' to be drawn.
    classes: the class names in the order of the label numbers.
    column:  further values by name, each [N], such as a site or a patient.
    """

    image: Sequence[np.ndarray]
    label: np.ndarray
    path: tuple[str, ...]
    split: tuple[str, ...]
    classes: tuple[str, ...]
    column: dict[str, np.ndarray]


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


def cut_by_column(value_N: np.ndarray) -> dict[str, np.ndarray]:
    """One client for each value of a column, by its text."""
    text_N = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in value_N])
    return {str(value): np.flatnonzero(text_N == value) for value in np.unique(text_N)}


def to_source(
    arrays: Arrays,
    parts: Sequence[np.ndarray] | dict[str, np.ndarray],
    image_size: int,
    seed: int,
    patient: str | None = None,
) -> Source:
    """The clients of a cut as centers, 'client-000' and so on unless `parts` names them.

    patient: the column that names the patients, if there is one.  Splits: see `source.assemble`.
    """
    if not isinstance(parts, dict):
        parts = {f'client-{i:03d}': part for i, part in enumerate(parts)}
    records = _to_records(arrays, parts, image_size, patient)
    return assemble(records, {'label': arrays.classes}, seed)


def _to_records(arrays, parts, image_size, patient) -> Iterator[Record]:
    for client, index in parts.items():
        for i in index:
            who = str(arrays.column[patient][i]) if patient else ''
            yield Record(
                decode.square_image(_to_rgb(arrays.image[i]), image_size),
                {'label': np.asarray(arrays.label[i], np.int32)},
                client, arrays.path[i], who, arrays.split[i],
            )


def _to_rgb(image: np.ndarray) -> Image.Image:
    gray = image.ndim == 3 and image.shape[-1] == 1
    return Image.fromarray(image[..., 0] if gray else image).convert('RGB')
