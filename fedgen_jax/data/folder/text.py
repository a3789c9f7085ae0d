"""Text files of a folder, CSV and JSON, and what is wrong with them as one line.

A `DataError` names the file, the row as a spreadsheet numbers it (the header is row 1) or the
entry, the field, and the way out.  Of many mistakes of one kind it tells the first, and how many.
"""

import contextlib
import csv
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn


class DataError(ValueError):
    """Bad input: one line that names the file, the row, the field and the way out.

    kind: mistakes of one kind are in one field and have one way out; '' for one of its own.
    """

    def __init__(self, message: str, kind: str = ''):
        super().__init__(' '.join(str(message).split()))
        self.kind = kind


def row_error(file: pathlib.Path, row: int, field: str, problem: str) -> NoReturn:
    """Raises DataError; `problem` ends with the way out, after its last colon."""
    raise DataError(f'{place_of(file, row, field)}: {problem}', kind_of(field, problem))


def place_of(file: pathlib.Path, row: int, field: str) -> str:
    """A cell, in words.  What is no table has no rows, but a first image, a second and so on."""
    of = 'row' if file.suffix.lower() in ('.csv', '.parquet') else 'image'
    return f'{file}: {of} {row}, field {field}'


def kind_of(field: str, problem: str) -> str:
    return f'{field}: {problem.rpartition(": ")[2]}'


@contextlib.contextmanager
def collected(mistakes: list[DataError]) -> Iterator[None]:
    """Appends a DataError to `mistakes`, so that the next row can be checked."""
    try:
        yield
    except DataError as error:
        mistakes.append(error)


def raise_first(mistakes: Sequence[DataError], what: str) -> None:
    """Raises the first of the mistakes, if there is one, with the number of those of its kind.

    what: the plural of what they are in, such as 'rows'.
    """
    if not mistakes:
        return
    first = mistakes[0]
    number = sum(bool(first.kind) and m.kind == first.kind for m in mistakes)
    if number < 2:
        raise first
    raise DataError(f'{first} ({number} {what} have this mistake)', first.kind) from first


def read_csv(file: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Numbered rows of stripped cells, header first; blank rows count but are left out."""
    if not file.is_file():
        row_error(file, 1, 'image,center', 'no such file: write a manifest.csv in this folder')
    content = file.read_bytes()
    if b'\0' in content:
        row_error(file, 1, '(all)', 'binary, not text: save the table as CSV UTF-8')
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b'\n') + 1
        row_error(file, number, '(all)', 'not UTF-8 text: save the table as CSV UTF-8')
    lines, number = [], 0
    try:
        reader = csv.reader(io.StringIO(text, newline=''), strict=True, skipinitialspace=True)
        for number, cells in enumerate(reader, start=1):
            cells = [cell.strip() for cell in cells]
            if any(cells):
                lines.append((number, cells))
    except csv.Error as error:
        row_error(file, number + 1, '(all)', f'not valid CSV ({error}): check its quotes')
    if not lines:
        row_error(file, 1, 'image,center', 'the file is empty: write a header and one row an image')
    return lines


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The JSON object in `file`; it may hold NaN, which `is_number` tells from numbers."""
    try:
        content = json.loads(file.read_bytes().decode('utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f'{file}: field (whole file): not valid JSON in UTF-8 ({error}): correct the file'
        ) from error
    if not isinstance(content, dict):
        raise DataError(f'{file}: field (whole file): must be a JSON object: {{"...": [...]}}')
    return content


def is_number(x) -> bool:
    """A number that a pixel's place can be; not NaN, nor true, nor what no float can hold."""
    return isinstance(x, (int, float)) and not isinstance(x, bool) and -1e9 < x < 1e9


def state_of(files: Sequence[pathlib.Path]) -> list:
    """What tells that files are as they were: names, sizes and times of change, as JSON."""
    return [(str(f), s.st_size, s.st_mtime_ns) for f in files for s in [f.resolve().stat()]]
