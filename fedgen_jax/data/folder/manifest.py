"""The table of a data set, such as manifest.csv, and classes.json, checked to the last cell.

Everything here is cheap: no pixel is read.
"""

import glob
import pathlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fedgen_jax.data.examples import SPLITS, UNKNOWN
from fedgen_jax.data.folder import decode, patients, volumes, words
from fedgen_jax.data.folder.text import (
    DataError,
    collected,
    raise_first,
    read_json,
    row_error,
)

COLUMNS = ('image', 'center', 'patient', 'split', 'label', 'mask')
REQUIRED = ('image', 'center')
NAMED = (*COLUMNS, 'spacing')  # columns that have a meaning; the last goes with the others


Images = Callable[[], Iterator[Any]]


class Table(NamedTuple):
    """What a data set lists, a line an image, before it is checked.

    file:   what messages name.  The folder that it lies in is that of classes.json and of paths;
            what is no table is called `*` there.
    lines:  numbers, as messages tell them, and cells of text; the header comes first.
    names:  the class names, by field, as `read_classes` has them.
    notes:  what a person should know, a line each.
    images: None where the cells `image` are paths of files.  Else they are names, and this gives
            the images in the order of the lines, each as `decode.open_image` takes it.
    state:  what these depend on, as JSON.
    """

    file: pathlib.Path
    lines: Sequence[tuple[int, Sequence[str]]]
    names: Mapping[str, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()
    images: Images | None = None
    state: Any = None


class Row(NamedTuple):
    """One image of a table; an empty cell is ''.

    number: its row in a spreadsheet.
    image, mask: paths relative to the root, normalized ('./a.png' is 'a.png').
    volume: what the image is a slice of, '' if of nothing (`volumes.slices`); series: the DICOM
        series that it belongs to, if it names one, else the volume.
    more:   the cells of further columns, by header.
    """

    number: int
    image: str
    center: str
    patient: str = ''
    split: str = ''
    label: str = ''
    mask: str = ''
    volume: str = ''
    series: str = ''
    more: Mapping[str, str] = {}


class Manifest(NamedTuple):
    """A checked table: its file, its rows in order, and all columns that it has.

    names, notes, images, state: as in `Table`.
    """

    file: pathlib.Path
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    images: Images | None = None
    state: Any = None


def check_table(table: Table) -> Manifest:
    """Checks cells, paths, duplicates, and splits of patients.  Raises DataError."""
    file, root = table.file, table.file.parent
    (_, columns), *lines = table.lines
    notes = _check_header(file, columns, [cells for _, cells in lines])
    of_files = table.images is None
    pairs: list[tuple[Row, volumes.Slice]] = []
    mistakes: list[DataError] = []
    for number, cells in lines:
        with collected(mistakes):
            row = _read_row(root, file, columns, number, cells, of_files)
            pairs += _images_of(root, file, row) if of_files else [_alone(row)]
    raise_first(mistakes, 'rows')
    if not pairs:
        row_error(file, 2, 'image', 'no rows below the header: list one image a row')
    rows, of_patients = patients.settle(pairs)
    checks = (_check_duplicates, _check_volumes, _check_patients)
    for check in checks if of_files else (_check_patients,):
        check(root, file, rows, mistakes)
    raise_first(mistakes, 'rows')
    return Manifest(
        file, tuple(rows), tuple(columns), table.names, (*table.notes, *notes, *of_patients),
        table.images, table.state,
    )


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
        with_suffix = [x.name for x in sorted(file.parent.glob(f'{glob.escape(file.name)}.*'))]
        raise ValueError(f'{path!r} does not exist: ' + (
            f'write its suffix too, as in {with_suffix[0]}' if with_suffix
            else 'add the file, or remove the row'
        ))
    if not file.is_dir():
        decode.check_suffix(path, root)
    return decode.plain_path(path)


def _check_header(
    file: pathlib.Path, header: Sequence[str], lines: Sequence[Sequence[str]]
) -> list[str]:
    """Refuses a header that lacks a column; notes on further columns that may be mistakes."""
    for i, name in enumerate(header):
        if name and name in header[:i]:
            row_error(file, 1, name, 'the column comes twice: remove one')
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        hint = 'separate cells with commas' if len(header) == 1 else f'the header is {header}'
        pairs = ','.join(f'{name}:HEADER' for name in missing)
        row_error(
            file, 1, missing[0],
            f'the column is missing: add it, or name yours by --columns={pairs}, which is the '
            f'field data.columns ({hint})',
        )
    absent = [name for name in NAMED if name not in header]
    notes = []
    for i, name in enumerate(header):
        meant = words.meant_by(name, absent)
        if name and name not in NAMED and meant:
            notes.append(
                f'{file}: column {name!r} is kept but not read: write {meant}, or '
                f'data.columns={meant}:{name}, if it is meant'
            )
        if not name and any(cells[i:i + 1] != [''] for cells in lines):
            notes.append(
                f'{file}: column {i + 1} has no header and is not read: name it if it is meant'
            )
    return notes


def _read_row(root, file, columns, number, cells, of_files) -> Row:
    if len(cells) != len(columns):
        field = columns[min(len(cells), len(columns)) - 1]
        row_error(
            file, number, field,
            f'the row has {len(cells)} cells, the header {len(columns)}: check commas and quotes',
        )
    cell_of = dict(zip(columns, cells))
    known = {name: value for name, value in cell_of.items() if name in COLUMNS}
    more = {name: value for name, value in cell_of.items() if name and name not in COLUMNS}
    for field, value in known.items():
        if not value and field in REQUIRED:
            row_error(file, number, field, 'the cell is empty: fill it in')
        if any(unicodedata.category(c) in ('Cc', 'Zl', 'Zp') for c in value):
            row_error(file, number, field, f'{value!r} has a control character: remove it')
        # A name may well be 'NA'; 'nan' is how tables are saved with a value missing.
        if value.lower() == 'nan' and field != 'label':
            row_error(file, number, field, f'{value!r}: leave the cell empty if it is unknown')
    row = Row(number=number, **known, more=more)
    split = words.split_of(row.split)
    if split is None:
        row_error(
            file, number, 'split',
            f'{row.split!r} is no split: use {", ".join(SPLITS)}, or nothing',
        )
    row = row._replace(split=split)
    for field in ('image', 'mask'):
        if of_files and getattr(row, field):
            try:
                path: Any = relative_path(root, getattr(row, field))
                row = row._replace(**{field: path})
            except ValueError as error:
                row_error(file, number, field, str(error))
            except (OSError, RuntimeError) as error:  # a name too long, a loop of links
                row_error(file, number, field, f'no readable path ({error}): correct it')
    return row


def _alone(row) -> tuple[Row, volumes.Slice]:
    """An image that is no file: of no volume, and without a header."""
    return row, volumes.Slice(row.image, '', '')


def _images_of(root, file, row) -> list[tuple[Row, volumes.Slice]]:
    """What the row stands for, a row for each image: one, or the slices of a volume."""
    found: dict[str, list[volumes.Slice]] = {}
    for field in ('image', 'mask'):
        path = getattr(row, field)
        try:
            found[field] = volumes.slices(root, path) if path else []
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
        (
            row._replace(
                image=image.path, mask=masks[i].path if masks else '', volume=image.volume,
                series=image.series or image.volume,
            ),
            image,
        )
        for i, image in enumerate(images)
    ]


def _check_duplicates(root, file, rows, mistakes):
    seen = {}
    for row in rows:
        name = decode.file_of(row.image)
        target = str((root / name).resolve()) + row.image[len(name) :]
        first = seen.setdefault(target, row.number)
        if first != row.number:
            with collected(mistakes):
                row_error(
                    file, row.number, 'image',
                    f'{row.image!r} is listed in row {first} already: remove one of the rows',
                )


def _check_volumes(root, file, rows, mistakes):
    """All slices of a volume are of one patient at one center, so that no split parts them."""
    seen = {}
    for row in rows:
        if not row.volume:
            continue
        volume = str((root / row.volume).resolve())
        center, patient, first = seen.setdefault(volume, (row.center, row.patient, row.number))
        for field, is_, was in (('center', row.center, center), ('patient', row.patient, patient)):
            if is_ != was:
                with collected(mistakes):
                    row_error(
                        file, row.number, field,
                        f'{is_!r} here, {was!r} in row {first}, of one volume {row.volume!r}: '
                        'give all slices of a volume one patient and center',
                    )


def _check_patients(root, file, rows, mistakes):
    seen = {}
    for row in rows:
        if not (row.patient and row.split):
            continue
        split, first = seen.setdefault((row.center, row.patient), (row.split, row.number))
        if split != row.split:
            with collected(mistakes):
                row_error(
                    file, row.number, 'split',
                    f'patient {row.patient!r} is in {row.split!r} here, in {split!r} in row '
                    f'{first}: give all images of a patient one split',
                )
