"""The forms in which data comes, each known by its path: all become one table of images.

    FOLDER                 with manifest.csv: a center folder
    FOLDER/table.csv       the same table under another name, paths relative to its folder
    FOLDER                 folders of images, CENTER/CLASS/x.png and so on (`folder/tree.py`)
    set.npz, or a FOLDER of them   arrays as MedMNIST has them (`public/medmnist.py`)
    x.parquet, or a FOLDER of them images as Hugging Face has them (`public/parquet.py`)
    tfds:NAME              a set of the TFDS catalog (`public/tfds_catalog.py`)
"""

import collections
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from fedgen_jax.data.folder import decode, tree
from fedgen_jax.data.folder.headers import Columns, parse, renamed
from fedgen_jax.data.folder.manifest import Table, read_classes
from fedgen_jax.data.folder.text import DataError, read_csv
from fedgen_jax.data.public import medmnist, parquet, tfds_catalog


class Form(NamedTuple):
    """A form of data.

    name: for messages.
    has:  whether what lies at a path is of this form, by names of files.
    read: (path, {our column: the header that stands for it}) -> `Table`.  Raises DataError.
    """

    name: str
    has: Callable[[pathlib.Path], bool]
    read: Callable[[pathlib.Path, Columns], Table]


def read_table(root: str | os.PathLike, columns: str = '') -> Table:
    """The table of the data at `root`.

    columns: 'label:target,center:hospital', which headers stand for our columns.

    Raises DataError where the form is not plain, or a header is missing.
    """
    return form_of(root).read(pathlib.Path(root), parse(columns))


def form_of(root: str | os.PathLike) -> Form:
    """The one form that the data at `root` have; a manifest.csv tells it alone."""
    path = pathlib.Path(root)
    found = [form for form in FORMS if form.has(path)]
    if FOLDER in found:
        return FOLDER
    if len(found) > 1:
        names = ' and '.join(form.name for form in found)
        raise DataError(f'{path}: {names}: move one away, or pass the file instead of the folder')
    if not found and not path.exists():
        raise DataError(f'{path}: no such file or folder: correct the path')
    if not found and path.is_file():
        raise DataError(
            f'{path}: of no form that is read: pass a folder, or a file .csv, .npz or .parquet'
        )
    if not found:
        _check_types(path)
    return found[0] if found else FOLDER  # whose reader says what is missing


def _check_types(folder: pathlib.Path) -> None:
    """Refuses a folder that holds files, and none that is read."""
    files = (f for f in folder.rglob('*') if f.is_file() and not f.name.startswith('.'))
    count = collections.Counter(f.suffix.lower() or f.name for f in files)
    if count and not {'.csv', '.json'} & count.keys():
        (suffix, number), *_ = count.most_common(1)
        raise DataError(
            f'{folder}: {number} files {suffix}, and none of a type that is read: save images as '
            f'one of {" ".join(decode.SUFFIXES)}'
        )


def folder_of(root: str | os.PathLike) -> pathlib.Path:
    """The folder that annotations.json and classes.json lie in."""
    path = pathlib.Path(root)
    return path.parent if path.is_file() else path


def _read_csv(file: pathlib.Path, columns: Columns) -> Table:
    (number, header), *lines = read_csv(file)
    header, notes = renamed(file, header, columns)
    return Table(file, [(number, header), *lines], read_classes(file.parent), notes)


FOLDER = Form(
    'a manifest.csv', lambda path: (path / 'manifest.csv').is_file(),
    lambda path, columns: _read_csv(path / 'manifest.csv', columns),
)

FORMS = (
    FOLDER,
    Form('a table', lambda path: path.suffix.lower() == '.csv' and path.is_file(), _read_csv),
    Form('.npz files', medmnist.has, medmnist.read_table),
    Form('.parquet files', parquet.has, parquet.read_table),
    Form('a name of the TFDS catalog', tfds_catalog.has, tfds_catalog.read_table),
    Form('folders of images', tree.has, tree.read_table),
)
