"""Tables whose headers have other names than ours: 'label:target,center:hospital'."""

import pathlib
from collections.abc import Collection, Sequence

from fedgen_jax.data.folder.manifest import COLUMNS
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.folder.words import listed


def parse(columns: str) -> dict[str, str]:
    """{our column: the header that stands for it}, of the text of `data.columns`."""
    found: dict[str, str] = {}
    for pair in filter(str.strip, columns.split(',')):
        ours, _, theirs = (part.strip() for part in pair.partition(':'))
        if ours not in COLUMNS or not theirs or ours in found or theirs in found.values():
            raise DataError(
                f'data.columns: {pair.strip()!r} is not OURS:HEADER, with each column and each '
                f'header once: ours are {", ".join(COLUMNS)}'
            )
        found[ours] = theirs
    return found


def check(file: pathlib.Path | str, headers: Collection[str], columns: dict[str, str]) -> None:
    """Refuses names of `data.columns` that are no headers of a table."""
    for ours, theirs in columns.items():
        if theirs not in headers:
            raise DataError(
                f'{file}: data.columns={ours}:{theirs}: no such column: use one of '
                f'{listed(list(headers), 40)}, by --columns'
            )


def renamed(
    file: pathlib.Path, header: Sequence[str], columns: dict[str, str]
) -> tuple[list[str], tuple[str, ...]]:
    """The header with our names, and notes.  A column that loses its name to another is kept."""
    check(file, header, columns)
    ours_of = {theirs: ours for ours, theirs in columns.items()}
    lost = [name for name in header if name in columns and name not in ours_of]
    notes = tuple(
        f'{file}: column {name!r} is kept but not read: {columns[name]!r} stands for it'
        for name in lost
    )
    return [ours_of.get(x, f'{x} (not read)' if x in lost else x) for x in header], notes


def none_for(columns: dict[str, str], what: str) -> None:
    """Refuses `data.columns` where there are no headers."""
    if columns:
        raise DataError(f'data.columns: {what} has no headers: leave it empty')
