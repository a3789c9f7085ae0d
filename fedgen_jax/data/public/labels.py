"""Labels that are numbers, as data sets for machines have them, to the text of a table."""

import pathlib
from collections.abc import Sequence
from typing import Any

from fedgen_jax.data.folder.labels import BETWEEN
from fedgen_jax.data.folder.text import row_error

NOTHING = 'No Finding'  # of an image that shows none of several classes


def to_text(
    file: pathlib.Path, values: Sequence[Any], names: Sequence[str] = ()
) -> tuple[list[str], tuple[str, ...]]:
    """Labels as text, and the class names of numbers in their order, () of text.

    values: one a row; None: unknown, and -1, as Hugging Face and TFDS write it.
    names:  of the numbers; default: '0', '1' and so on.
    """
    values = [None if value != value else value for value in values]  # NaN, of pandas
    known = [value for value in values if value is not None]
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in known):
        return ['' if value is None else str(value).strip() for value in values], ()
    bad = next((x for x in known if x != int(x) or x < -1), None)
    if bad is not None:
        row_error(file, values.index(bad) + 1, 'label', f'{bad!r} is no class: number them from 0')
    names = tuple(names or map(str, range(1 + int(max(known, default=-1)))))
    high = next((x for x in known if x >= len(names)), None)
    if high is not None:
        row_error(
            file, values.index(high) + 1, 'label',
            f'{high}, but there are {len(names)} classes: name all of them',
        )
    return ['' if x is None or x < 0 else names[int(x)] for x in values], names


def lists_to_text(
    file: pathlib.Path, values: Sequence[Sequence[Any] | None], names: Sequence[str] = ()
) -> tuple[list[str], tuple[str, ...]]:
    """The same of lists, of the classes that an image shows; None: nothing is known of it."""
    flat, classes = to_text(file, [x for value in values for x in value or ()], names)
    each, cells = iter(flat), []
    for value in values:
        shown = [next(each) for _ in value or ()]
        cells.append('' if value is None else BETWEEN.join(shown) or NOTHING)
    return cells, classes or tuple(sorted(set(flat)))
