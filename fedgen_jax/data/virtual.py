"""Virtual centers: drawn cells, beside the centers of a source and under its class names.

A drawn center follows from the configuration and its number alone, so that every process draws the
same, and none is kept on disk.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import UNKNOWN, Examples
from fedgen_jax.data.folder.words import listed
from fedgen_jax.data.targets import TARGETS

SPREAD = 2.0  # of drawn scanners beside real ones, from which they then differ about as much

# What a class number becomes where the source has no such class, and what a person is told of it.
NO_CLASS = {
    'label': (-1, 'their labels are unknown'),
    'mask': (UNKNOWN, 'their pixels are unknown'),
    'box': (-1, 'they have no boxes'),
}


class Drawing(NamedTuple):
    """What decides drawn centers, but for their number.

    seed, first: the drawn center i is client `first` + i of `synthetic.draw_client`.
    number_K: of each drawn class the source's number, or `NO_CLASS`; the last one is of padding.
    arrays:   names of the source's target arrays.
    room:     M, the boxes that an image has room for; 0 without boxes.
    """

    seed: int
    first: int
    num_examples: int
    image_size: int
    spread: float
    target: str
    number_K: np.ndarray
    arrays: tuple[str, ...]
    room: int


def drawing_for(
    examples: Examples,
    target: str,
    classes: Sequence[str],
    pairs: Sequence[str],
    *,
    seed: int,
    first: int,
    num_examples: int,
    spread: float,
) -> Drawing:
    """How centers are drawn beside those of a source.

    examples: of one of the source's centers.  target, classes: what the task learns.
    pairs: 'DRAWN=CLASS', as `numbers_of` takes them.

    Raises ValueError.
    """
    if target not in NO_CLASS:
        raise ValueError(
            f'data.virtual: centers are drawn with {listed(list(NO_CLASS))}, and the task learns '
            f'from {target!r}: set data.virtual to 0'
        )
    unknown, _ = NO_CLASS[target]
    numbers = [*numbers_of(target, classes, pairs), None]
    room = max(synthetic.MAX_BOXES, examples.target['box'].shape[1]) if target == 'box' else 0
    return Drawing(
        seed, first, num_examples, examples.image.shape[1], spread, target,
        np.array([unknown if n is None else n for n in numbers], np.int32),
        tuple(examples.target), room,
    )


def numbers_of(
    target: str, classes: Sequence[str], pairs: Sequence[str]
) -> tuple[int | None, ...]:
    """The number in `classes` of each class that is drawn; None: it has none.

    A class is the one of its name, in capitals or not, unless one of the pairs 'DRAWN=CLASS' says
    another ('DRAWN=': none).

    Raises ValueError, also where no class has a number, in masks none but the background.
    """
    drawn = synthetic.CLASSES_OF[target]
    both = f'drawn are {", ".join(drawn)}; the classes are {", ".join(classes) or "none"}'
    number = {name: _place(name, classes) for name in drawn}
    told: set[str] = set()
    for pair in pairs:
        name, equals, own = pair.partition('=')
        place = _place(own, classes)
        if not equals or name not in drawn or name in told or (own and place is None):
            raise ValueError(
                f"data.virtual_classes: {pair!r} is not 'DRAWN=CLASS', each drawn one once: {both}"
            )
        told.add(name)
        number[name] = place
    if all(number[name] is None for name in drawn[target == 'mask' :]):
        raise ValueError(
            f"data.virtual_classes: no drawn class is one of the data: write 'DRAWN=CLASS' of "
            f'those that are, or set data.virtual to 0: {both}'
        )
    return tuple(number.values())


def _place(name, classes):
    """The only class of a name, which counts before others that differ in capitals alone."""
    for form in (str, str.casefold):
        found = [i for i, other in enumerate(classes) if form(other) == form(name)]
        if len(found) == 1:
            return found[0]
    return None


def without_class(drawing: Drawing) -> str:
    """The drawn classes that the source does not have, in words; '' if there are none."""
    unknown, words = NO_CLASS[drawing.target]
    names = synthetic.CLASSES_OF[drawing.target]
    lacking = [repr(x) for x, n in zip(names, drawing.number_K) if n == unknown]
    return f'drawn {", ".join(lacking)}: no such class here, so {words}' if lacking else ''


def draw_virtual(drawing: Drawing, i: int) -> Examples:
    """The drawn center i, on the host, in the arrays of the source."""
    d = drawing
    drawn = jax.device_get(synthetic.draw_client(
        jax.random.key(d.seed), d.first + i, d.num_examples, d.image_size, spread=d.spread
    ))
    target, of_class = drawn.target, TARGETS[d.target].arrays[-1]
    target[of_class] = d.number_K[target[of_class]].astype(target[of_class].dtype)
    if d.target == 'box':
        target['box'] = np.where(target['box_class'][..., None] < 0, 0, target['box'])
    target['volume'] = np.full(d.num_examples, -1, np.int32)
    found = Examples(drawn.image, {name: target[name] for name in d.arrays}, drawn.weight)
    return with_room(found, d.room)


def with_room(examples: Examples, room: int) -> Examples:
    """Boxes padded to M = `room`, where there are any."""
    if 'box' not in examples.target or examples.target['box'].shape[1] == room:
        return examples
    box, box_class = examples.target['box'], examples.target['box_class']
    missing = (0, room - box.shape[1])
    return examples._replace(target={
        **examples.target,
        'box': np.pad(box, ((0, 0), missing, (0, 0))),
        'box_class': np.pad(box_class, ((0, 0), missing), constant_values=-1),
    })
