"""Tables whose headers have other names than ours: 'label:target,center:hospital'."""

import pathlib
from collections.abc import Collection, Sequence

from fedgen_jax.data.folder.manifest import NAMED, REQUIRED
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.folder.words import listed

IF_THERE = '?'  # begins columns that other data need not have


class Columns(dict):
    """{our column: the header that stands for it}.

    strict: whether all must be there; else those need not that a table can do without, or has by
        our name.
    """

    strict = True


def for_others(columns: str) -> str:
    """The columns of a run's data, for a table of other data: labels, say, need not be there."""
    return IF_THERE + columns if columns and not columns.startswith(IF_THERE) else columns


def parse(columns: str) -> Columns:
    """Of the text of `data.columns`."""
    found = Columns()
    found.strict = not columns.startswith(IF_THERE)
    for pair in filter(str.strip, columns.removeprefix(IF_THERE).split(',')):
        ours, _, theirs = (part.strip() for part in pair.partition(':'))
        if ours not in NAMED or not theirs or ours in found or theirs in found.values():
            raise DataError(
                f'data.columns: {pair.strip()!r} is not OURS:HEADER, with each column and each '
                f'header once: ours are {", ".join(NAMED)}'
            )
        found[ours] = theirs
    return found


def check(file: pathlib.Path | str, headers: Collection[str], columns: Columns) -> None:
    """Refuses names of `data.columns` that are no headers of a table."""
    for ours, theirs in columns.items():
        needed = columns.strict or (ours in REQUIRED and ours not in headers)
        if theirs not in headers and needed:
            hint = ', or separate cells with commas' * (len(headers) == 1)
            raise DataError(
                f'{file}: data.columns={ours}:{theirs}: no such column: use one of '
                f'{listed(list(headers), 40)}, by --columns{hint}'
            )


def renamed(
    file: pathlib.Path, header: Sequence[str], columns: Columns
) -> tuple[list[str], tuple[str, ...]]:
    """The header with our names, and notes.  A column that loses its name to another is kept."""
    check(file, header, columns)
    there = {ours: theirs for ours, theirs in columns.items() if theirs in header}
    ours_of = {theirs: ours for ours, theirs in there.items()}
    lost = [name for name in header if name in there and name not in ours_of]
    notes = tuple(
        f'{file}: column {name!r} is kept but not read: {there[name]!r} stands for it'
        for name in lost
    )
    return [ours_of.get(x, f'{x} (not read)' if x in lost else x) for x in header], notes


def none_for(columns: Columns, what: str) -> None:
    """Refuses `data.columns` where there are no headers."""
    if columns and columns.strict:
        raise DataError(f'data.columns: {what} has no headers: leave it empty')
