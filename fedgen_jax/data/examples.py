"""The arrays that everything else works on: one client's examples, and many clients stacked.

A `Center` lives on the host, at its own length. `stack` pads centers to one length and stacks
them, so that a federation is one pytree whose leaves lead with `C` (clients) and `N` (examples).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

SPLITS = ('train', 'val', 'test')

UNKNOWN = 255  # the mask value of a pixel without a class

Array = Any  # of NumPy, of JAX, or one that stays on disk (`store.Rows`)


class Examples(NamedTuple):
    """Images with their targets.  Leaves lead with `N`, or with `C, N` when stacked.

    image:  uint8 [N, H, W, 3].
    target: what the task learns, a dict of arrays that lead with N (`data/targets.py`):
            'label' int32 [N] (-1: unknown), 'labels' int8 [N, K] (1: has the class, 0: has it not,
            -1: unknown), 'mask' uint8 [N, H, W] (255: unknown) with, where
            the source has volumes, 'volume' int32 [N], the number of each slice's (-1: none),
            'box' float32 [N, M, 4] (y0, x0, y1, x1 in pixels) with 'box_class' int32 [N, M]
            (-1: padding).
    weight: float32 [N], 1 for an example and 0 for padding.
    own:    `privacy.dpsgd.Own`, what private steps need; () without them.  What makes other
            examples of these drops it.
    features: [N, F], what the frozen layers make of the images (`frozen`), where that is known;
            None, which it is of all examples that are made of these: it is not.
    steps:  [T, B, F], the same of a round's batches (`step_features`), or None.
    """

    image: Array
    target: dict[str, Array]
    weight: Array
    own: Any = ()
    features: Array = None
    steps: Array = None


class Original(NamedTuple):
    """Where an image and its mask lie as they came, before they were made square.

    image, mask: files, as `decode` takes them; mask: '' where the image has none.
    spacing: mm, the height and the width of a pixel, as the table says; () where it does not.
    """

    image: str
    mask: str = ''
    spacing: tuple[float, ...] = ()


class Center(NamedTuple):
    """One center's examples on the host, with the split and the origin of each.

    split: int8 [N], an index into `SPLITS`.
    path:  the N files the examples came from, as the manifest names them.
    unit:  of each, what must lie in one split: its patient or, where none is known, the file.
    size:  'width x height' of the N images in their files, where there are files.
    assumed: what reading each of the N files took for granted, lines of text, '' for nothing.
    window: 'LOW:HIGH', what is black and white of its deep gray files; '' where each file says.
    original: the N files of images and masks, where masks are files.
    more:  of each, the cells of the table's further columns, by header; () where it has none.
    """

    name: str
    examples: Examples
    split: np.ndarray
    path: tuple[str, ...]
    unit: tuple[str, ...]
    size: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    window: str = ''
    original: tuple[Original, ...] = ()
    more: tuple[Mapping[str, str], ...] = ()


class Source(NamedTuple):
    """A data set: its centers, and its class names in the order of the label numbers.

    target: the kind of target that the classes are of (`data/targets.py`), None without one.
    notes:  what a person should know of its files, a line each.
    """

    centers: tuple[Center, ...]
    classes: tuple[str, ...]
    target: str | None = None
    notes: tuple[str, ...] = ()


def take(examples: Examples, index: np.ndarray | slice) -> Examples:
    """The examples at `index` (integers or booleans over N, or a slice of them)."""
    return Examples(
        examples.image[index],
        {k: v[index] for k, v in examples.target.items()},
        examples.weight[index],
    )


def of_split(center: Center, name: str) -> Examples:
    """A center's examples of one split."""
    return take(center.examples, center.split == SPLITS.index(name))


def adapted_on(center: Center) -> Examples:
    """The unlabelled images that a center's model is made from: those to train on, if it has any.
    """
    train = of_split(center, 'train')
    return train if len(train.weight) else center.examples


def pad(examples: Examples, length: int) -> Examples:
    """Pads N to `length` with zeros (weight 0)."""

    def grow(x):
        if len(x) > length:
            raise ValueError(f'cannot pad {len(x)} examples to {length}')
        if len(x) == length:
            return x
        return np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])

    return Examples(
        grow(examples.image),
        {k: grow(v) for k, v in examples.target.items()},
        grow(examples.weight),
    )


def stack(clients: Sequence[Examples], length: int | None = None) -> Examples:
    """Stacks clients to leaves [C, N, ...], padded to `length` (default: the longest)."""
    length = length or max(len(c.weight) for c in clients)
    padded = [pad(c, length) for c in clients]
    return Examples(
        np.stack([p.image for p in padded]),
        {k: np.stack([p.target[k] for p in padded]) for k in padded[0].target},
        np.stack([p.weight for p in padded]),
    )
