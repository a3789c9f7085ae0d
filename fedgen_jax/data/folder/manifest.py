"""The text of a center folder: manifest.csv and classes.json, checked to the last cell.

Everything here is cheap: no pixel is read.  What is wrong is one `DataError` of one line that
names the file, the row as a spreadsheet numbers it (the header is row 1), the field, and the
way out.
"""

import csv
import io
import json
import pathlib
from typing import Any, NamedTuple, NoReturn

from fedgen_jax.data.examples import SPLITS, UNKNOWN
from fedgen_jax.data.folder import decode, volumes

COLUMNS = ('image', 'center', 'patient', 'split', 'label', 'mask')
REQUIRED = ('image', 'center')


class DataError(ValueError):
    """Bad input: one line that names the file, the row, the field and the way out."""

    def __init__(self, message: str):
        super().__init__(' '.join(str(message).split()))


class Row(NamedTuple):
    """One line of the manifest; an empty cell is ''.

    number: its row in a spreadsheet.
    image, mask: paths relative to the root, normalized ('./a.png' is 'a.png').
    volume: what the image is a slice of, '' if of nothing (`volumes.slices`).
    """

    number: int
    image: str
    center: str
    patient: str = ''
    split: str = ''
    label: str = ''
    mask: str = ''
    volume: str = ''


class Manifest(NamedTuple):
    """A manifest's file, its rows in order, and the columns that it has."""

    file: pathlib.Path
    rows: tuple[Row, ...]
    columns: tuple[str, ...]


def row_error(file: pathlib.Path, row: int, field: str, problem: str) -> NoReturn:
    raise DataError(f'{file}: row {row}, field {field}: {problem}')


def read_manifest(root: pathlib.Path) -> Manifest:
    """Reads and checks `root/manifest.csv`: cells, paths, duplicates, and splits of patients."""
    file = root / 'manifest.csv'
    lines = _read_csv(file)
    columns = _check_header(file, lines[0][1])
    rows = tuple(
        image
        for number, cells in lines[1:]
        for image in _images_of(root, file, _read_row(root, file, columns, number, cells))
    )
    if not rows:
        row_error(file, 2, 'image', 'no rows below the header: list one image a row')
    _check_duplicates(root, file, rows)
    _check_volumes(root, file, rows)
    _check_patients(file, rows)
    return Manifest(file, rows, columns)


def read_classes(root: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """`root/classes.json`: 'classes' (of the label column) and 'mask_classes', each optional."""
    file = root / 'classes.json'
    if not file.exists():
        return {}
    content = read_json(file)
    for key, names in content.items():
        if key not in ('classes', 'mask_classes'):
            raise DataError(f'{file}: field {key}: unknown: use classes or mask_classes')
        if not isinstance(names, list) or not names:
            raise DataError(f'{file}: field {key}: must be a list of names, like ["a", "b"]')
        for i, name in enumerate(names):
            if not isinstance(name, str) or not name.strip():
                raise DataError(f'{file}: field {key}[{i}]: {name!r} is no name: write text')
            if name in names[:i]:
                raise DataError(f'{file}: field {key}[{i}]: {name!r} comes twice: remove one')
    if len(content.get('mask_classes', ())) == 1:
        raise DataError(
            f'{file}: field mask_classes: one name, and 0 is the background: name what to find'
        )
    if len(content.get('mask_classes', ())) > UNKNOWN:
        raise DataError(f'{file}: field mask_classes: more than {UNKNOWN} names: merge some')
    return {key: tuple(names) for key, names in content.items()}


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


def relative_path(root: pathlib.Path, path: str) -> str:
    """`path` normalized; ValueError if it is no file, or not inside `root`."""
    if '\\' in path:
        raise ValueError(f'{path!r} has a backslash: separate folders with /')
    pure = pathlib.PurePosixPath(path)
    if pure.is_absolute() or '..' in pure.parts:
        raise ValueError(f'{path!r} leaves the folder: give a path relative to {root}, without ..')
    file = root / decode.file_of(str(pure))
    if not file.resolve().is_relative_to(root.resolve()):
        raise ValueError(f'{path!r} links to a file outside the folder: copy the file into {root}')
    if not file.exists():
        raise ValueError(f'{path!r} does not exist: add the file, or remove the row')
    if not file.is_dir():
        decode.check_suffix(path, root)
    return str(pure)


def _read_csv(file: pathlib.Path) -> list[tuple[int, list[str]]]:
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
        reader = csv.reader(io.StringIO(text, newline=''), strict=True)
        for number, cells in enumerate(reader, start=1):
            cells = [cell.strip() for cell in cells]
            if any(cells):
                lines.append((number, cells))
    except csv.Error as error:
        row_error(file, number + 1, '(all)', f'not valid CSV ({error}): check its quotes')
    if not lines:
        row_error(file, 1, 'image,center', 'the file is empty: write a header and one row an image')
    return lines


def _check_header(file: pathlib.Path, header: list[str]) -> tuple[str, ...]:
    for i, name in enumerate(header):
        if name in header[:i]:
            row_error(file, 1, name or '(empty)', 'the column comes twice: remove one')
    for name in REQUIRED:
        if name not in header:
            hint = 'separate cells with commas' if len(header) == 1 else f'the header is {header}'
            row_error(file, 1, name, f'the column is missing: add it ({hint})')
    for name in header:
        if name not in COLUMNS:
            known = ', '.join(COLUMNS)
            row_error(file, 1, name or '(empty)', f'unknown column: remove it, or use {known}')
    return tuple(header)


def _read_row(root, file, columns, number, cells) -> Row:
    if len(cells) != len(columns):
        field = columns[min(len(cells), len(columns)) - 1]
        row_error(
            file, number, field,
            f'the row has {len(cells)} cells, the header {len(columns)}: check commas and quotes',
        )
    row = Row(number=number, **dict(zip(columns, cells)))
    for field in columns:
        value = getattr(row, field)
        if not value and field in REQUIRED:
            row_error(file, number, field, 'the cell is empty: fill it in')
        # A name may well be 'NA'; 'nan' is how tables are saved with a value missing.
        if value.lower() == 'nan':
            row_error(file, number, field, f'{value!r}: leave the cell empty if it is unknown')
    if row.split and row.split not in SPLITS:
        known = ', '.join(SPLITS)
        row_error(file, number, 'split', f'{row.split!r} is no split: use {known}, or nothing')
    for field in ('image', 'mask'):
        if getattr(row, field):
            try:
                row = row._replace(**{field: relative_path(root, getattr(row, field))})
            except ValueError as error:
                row_error(file, number, field, str(error))
            except (OSError, RuntimeError) as error:  # a name too long, a loop of links
                row_error(file, number, field, f'no readable path ({error}): correct it')
    return row


def _images_of(root, file, row) -> list[Row]:
    """A row for each image that the row stands for: one, or the slices of a volume."""
    found = {}
    for field in ('image', 'mask'):
        path = getattr(row, field)
        try:
            found[field] = volumes.slices(root, path) if path else None
        except ValueError as error:
            row_error(file, row.number, field, f'{path!r}: {error}')
    images, masks = found['image'], found['mask']
    if masks and len(masks) != len(images):
        row_error(
            file, row.number, 'mask',
            f'{row.mask!r} has {len(masks)} slices, its image {len(images)}: save both alike',
        )
    if masks and not volumes.same_place(root, row.image, row.mask):
        row_error(
            file, row.number, 'mask',
            f'{row.mask!r} lies otherwise in space than its image (affine or orientation): '
            "save it on the image's own grid",
        )
    return [
        row._replace(
            image=image.path,
            mask=masks[i].path if masks else '',
            patient=row.patient or image.patient,
            volume=image.volume,
        )
        for i, image in enumerate(images)
    ]


def _check_duplicates(root, file, rows):
    seen = {}
    for row in rows:
        name = decode.file_of(row.image)
        target = str((root / name).resolve()) + row.image[len(name) :]
        if target in seen:
            first = seen[target]
            row_error(
                file, row.number, 'image',
                f'{row.image!r} is listed in row {first} already: remove one of the rows',
            )
        seen[target] = row.number


def _check_volumes(root, file, rows):
    """All slices of a volume are of one patient at one center, so that no split parts them."""
    seen = {}
    for row in rows:
        if not row.volume:
            continue
        volume = str((root / row.volume).resolve())
        center, patient, first = seen.setdefault(volume, (row.center, row.patient, row.number))
        for field, is_, was in (('center', row.center, center), ('patient', row.patient, patient)):
            if is_ != was:
                row_error(
                    file, row.number, field,
                    f'{is_!r} here, {was!r} in row {first}, of one volume {row.volume!r}: '
                    'give all slices of a volume one patient and center',
                )


def _check_patients(file, rows):
    seen = {}
    for row in rows:
        if not (row.patient and row.split):
            continue
        split, first = seen.setdefault((row.center, row.patient), (row.split, row.number))
        if split != row.split:
            row_error(
                file, row.number, 'split',
                f'patient {row.patient!r} is in {row.split!r} here, in {split!r} in row {first}: '
                'give all images of a patient one split',
            )


def is_number(x) -> bool:
    """A number that a pixel's place can be; not NaN, nor true, nor what no float can hold."""
    return isinstance(x, (int, float)) and not isinstance(x, bool) and -1e9 < x < 1e9
