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


def _shown_of(
    file, values: Sequence[Sequence[Any] | None], names: Sequence[str]
) -> tuple[list[Sequence[Any] | None], Sequence[str]]:
    """(lists of the classes that are 1, names) of lists of a 0 or 1 for each class; else both as
    they are.

    Numbers of classes do not repeat in a list; 0 and 1 for each of several classes do.
    """
    known = [list(value) for value in values if value is not None]
    lengths = {len(value) for value in known}
    each = [x for value in known for x in value]
    once = all(len(set(value)) == len(value) for value in known)
    if len(lengths) != 1 or min(lengths) < 2 or any(x not in (0, 1) for x in each) or (
        once and names
    ):
        return list(values), names
    if once:
        row_error(
            file, 1, 'label', 'lists of one 0 and one 1 in all rows: as numbers of classes each '
            'image shows both, as a 0 or 1 for each class it shows one: write names of classes',
        )
    shown: list[Sequence[Any] | None] = [
        None if v is None else [i for i, x in enumerate(v) if x] for v in values
    ]
    return shown, names or tuple(map(str, range(lengths.pop())))


def lists_to_text(
    file: pathlib.Path, values: Sequence[Sequence[Any] | None], names: Sequence[str] = ()
) -> tuple[list[str], tuple[str, ...]]:
    """The same of lists, of the classes that an image shows; None: nothing is known of it."""
    values, names = _shown_of(file, values, names)
    flat, classes = to_text(file, [x for value in values for x in value or ()], names)
    each, cells = iter(flat), []
    for value in values:
        shown = [next(each) for _ in value or ()]
        cells.append('' if value is None else BETWEEN.join(shown) or NOTHING)
    return cells, classes or tuple(sorted(set(flat)))
