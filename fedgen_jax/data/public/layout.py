"""Published sets: what is known of one, and the way from its files to a center folder."""

import csv
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from fedgen_jax.data.folder.manifest import COLUMNS
from fedgen_jax.data.folder.text import DataError, collected, kind_of, raise_first, read_csv
from fedgen_jax.data.folder.words import listed

Prepare = Callable[[pathlib.Path, pathlib.Path], tuple[str, ...]]


class Download(NamedTuple):
    """A file at a plain https address.

    checksum: 'sha256:...' or 'md5:...', as its publisher or TFDS tells it.
    """

    url: str
    name: str
    checksum: str


class PublicSet(NamedTuple):
    """A published set.

    name:      of `launch.prepare --set`.
    task:      what it can be learned for, names of `tasks.TASKS` separated by commas.
    images:    how many, as the publisher says.
    centers:   their names in the manifest.
    size:      of the download.
    checksum:  of the download, 'sha256:...' or 'md5:...'; '' where none is known for sure.
    licence, citation, url: of the publisher.
    access:    how one comes to the files, in a few words.
    source:    what must lie in the folder SOURCE, in one line.
    prepare:   (SOURCE, an empty folder) -> notes: lays the center folder.  Raises DataError.
    caveats:   what a reader of scores must know.
    run_here:  whether the real images were used by this project.
    downloads: the files, where they can be had without an account.
    """

    name: str
    task: str
    images: str
    centers: tuple[str, ...]
    size: str
    checksum: str
    licence: str
    citation: str
    url: str
    access: str
    source: str
    prepare: Prepare
    caveats: str = ''
    run_here: bool = False
    downloads: tuple[Download, ...] = ()


def lay(one: PublicSet, source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Makes the center folder `root` of the files in `source`, whole or not at all; notes.

    Files are linked where `root` is on the same disk, else copied.  Raises DataError where `root`
    is there already, or `source` is not as published.
    """
    if not source.exists():
        raise DataError(f'{source}: no such file or folder: put there {one.source} ({one.url})')
    if root.exists():
        raise DataError(f'{root}: is there already: name another folder, or remove it')
    partial = root.with_name(f'{root.name}.partial')
    if partial.exists():
        raise DataError(f'{partial}: left by a command that was cut, or is being made: remove it')
    partial.mkdir(parents=True)
    try:
        notes = one.prepare(source, partial)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return notes


def found(source: pathlib.Path, *names: str) -> pathlib.Path:
    """The first of these files or folders that `source` has."""
    for name in names:
        if (source / name).exists():
            return source / name
    raise DataError(f'{source}: has no {" or ".join(names)}: put it there as it was published')


def table(file: pathlib.Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(row in a spreadsheet, cells by column) of a published csv, of these columns alone."""
    (_, header), *lines = read_csv(file)
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f'{file}: row 1, field {missing[0]}: the column is missing: take the file as published '
            f'(the header is {listed(header, 40)})'
        )
    place = {name: header.index(name) for name in columns}
    last = max(place.values())
    for number, cells in lines:
        if len(cells) <= last:
            fault(file, number, header[last], f'the row has {len(cells)} cells: repair it')
        yield number, {name: cells[i] for name, i in place.items()}


def fault(file: pathlib.Path, row: int, field: str, problem: str) -> NoReturn:
    """Raises DataError; `problem` ends with the way out, after its last colon."""
    raise DataError(f'{file}: row {row}, field {field}: {problem}', kind_of(field, problem))


def one_of(file: pathlib.Path, row: int, field: str, value: str, known: Sequence[str]) -> int:
    """The place of `value` among the values that a published column has."""
    if value not in known:
        fault(file, row, field, f'{value!r} is none of {listed(known)}: take the file as published')
    return known.index(value)


def whole(file: pathlib.Path, row: int, field: str, value: str, most: int) -> int:
    """A number from 0 to `most`, which may be written '3.0'."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number not in range(most + 1):
        fault(file, row, field, f'{value!r} is no number from 0 to {most}: take it as published')
    return int(number)


def check_files(table_file: pathlib.Path, files: Iterable[tuple[int, str, pathlib.Path]]) -> None:
    """Refuses (row, field, file) of a table whose file is missing, or listed before; how many are.
    """
    mistakes: list[DataError] = []
    first: dict[pathlib.Path, int] = {}
    for row, field, file in files:
        if first.setdefault(file, row) != row:
            with collected(mistakes):
                fault(table_file, row, field, f'{file.name} stands in row {first[file]} too: keep '
                      'one of the rows')
        if not file.is_file():
            with collected(mistakes):
                fault(table_file, row, field, f'{file} is missing: put all images there')
    raise_first(mistakes, 'rows')


def place(file: pathlib.Path, root: pathlib.Path, path: str) -> str:
    """Links or copies a file to `root/path`; returns `path`."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
    return path


def write_manifest(
    root: pathlib.Path, rows: Sequence[Mapping[str, str]], name: str = 'manifest.csv'
) -> None:
    """Writes a table of cells by column: ours first, and of those the ones that rows have."""
    if not rows:
        raise DataError(f'{root}: no image was found: give the set as it was published')
    columns = [name for name in COLUMNS if name in rows[0]]
    columns += [name for name in rows[0] if name not in columns]
    with open(root / name, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_classes(
    root: pathlib.Path, classes: Sequence[str] = (), mask_classes: Sequence[str] = ()
) -> None:
    """Writes classes.json, which fixes the order of the classes."""
    content = {'classes': list(classes), 'mask_classes': list(mask_classes)}
    (root / 'classes.json').write_text(json.dumps({k: v for k, v in content.items() if v}) + '\n')


def write_boxes(
    root: pathlib.Path,
    images: Sequence[tuple[str, int, int]],
    boxes: Sequence[tuple[int, int, Sequence[float]]],
    classes: Sequence[str],
) -> None:
    """Writes annotations.json in COCO's form.

    images: (path, width, height); boxes: (place in images, place in classes, (x, y, w, h)).
    """
    content: dict[str, list[dict[str, Any]]] = {
        'images': [
            {'id': i, 'file_name': path, 'width': width, 'height': height}
            for i, (path, width, height) in enumerate(images)
        ],
        'annotations': [
            {'id': i, 'image_id': image, 'category_id': k, 'bbox': list(box),
             'area': box[2] * box[3], 'iscrowd': 0}
            for i, (image, k, box) in enumerate(boxes)
        ],
        'categories': [{'id': k, 'name': name} for k, name in enumerate(classes)],
    }
    (root / 'annotations.json').write_text(json.dumps(content) + '\n')
