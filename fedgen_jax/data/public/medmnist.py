"""Files .npz as MedMNIST has them: {train,val,test}_{images,labels}, a center each.

Labels are [N, 1] numbers of classes, or [N, K] of 0 and 1, several classes an image.

Reference: Yang et al., 2023, MedMNIST v2, Scientific Data 10:41.
"""

import pathlib
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from fedgen_jax.data.examples import SPLITS
from fedgen_jax.data.folder.headers import Columns, none_for
from fedgen_jax.data.folder.labels import BETWEEN
from fedgen_jax.data.folder.manifest import Table, read_classes
from fedgen_jax.data.folder.text import DataError, state_of
from fedgen_jax.data.public.labels import NOTHING

# What readers of a damaged or foreign file raise.
_DAMAGED = (
    OSError, ValueError, EOFError, TypeError, KeyError, zipfile.BadZipFile, zlib.error,
)


def has(path: pathlib.Path) -> bool:
    return bool(_files(path))


def read_table(path: pathlib.Path, columns: Columns) -> Table:
    """A row for each image of one file, or of all files of a folder.

    Classes are numbers, which "classes" of a classes.json beside the file names.  Nothing is
    unpickled.
    """
    none_for(columns, 'an .npz file')
    files = _files(path)
    table_file = path / '*.npz' if path.is_dir() else path
    names = read_classes(table_file.parent)
    parts = [(file, split) for file in files for split in _splits(file)]
    labels = [_labels(file, split) for file, split in parts]
    classes = _agreed(parts, labels, names.get('classes', ()))
    lines: list[tuple[int, list[str]]] = [(0, ['image', 'center', 'split', 'label'])]
    for (file, split), label_NxK in zip(parts, labels):
        for i, label_K in enumerate(label_NxK):
            of = label_K if len(label_K) == 1 else np.flatnonzero(label_K)
            cell = BETWEEN.join(classes[k] for k in of) or NOTHING
            lines.append((len(lines), [f'{file.stem}/{split}/{i}', file.stem, split, cell]))
    return Table(
        table_file, lines, {**names, 'classes': classes},
        images=lambda: (x for file, split in parts for x in _images(file, split)),
        state=state_of(files),
    )


def _agreed(parts, labels, names) -> tuple[str, ...]:
    """The classes, by default numbers; refuses labels of another kind, or too many."""
    several = labels[0].shape[1]
    highest = several - 1 if several > 1 else max(int(x.max()) for x in labels)
    classes = names or tuple(map(str, range(1 + highest)))
    for (file, split), label_NxK in zip(parts, labels):
        field = f'{file}: field {split}_labels'
        if label_NxK.shape[1] != several:
            raise DataError(
                f'{field}: {label_NxK.shape[1]} numbers an image, elsewhere {several}: pass one '
                'data set'
            )
        own = highest if several > 1 else label_NxK.max()
        if own >= len(classes) or several > 1 and several != len(classes):
            raise DataError(
                f'{field}: up to {own}, but classes.json has {len(classes)} classes: name all of '
                'them'
            )
    return classes


def _files(path):
    if path.is_dir():
        return sorted(path.glob('*.npz'))
    return [path] if path.suffix.lower() == '.npz' and path.is_file() else []


def _splits(file) -> list[str]:
    """The splits that a file has; its arrays are checked."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [pathlib.PurePath(name).stem for name in archive.namelist()]
    except _DAMAGED as error:
        raise _unreadable(file, '(all)', error) from error
    found = [split for split in SPLITS if f'{split}_images' in names or f'{split}_labels' in names]
    if not found:
        raise DataError(
            f'{file}: has {", ".join(names) or "nothing"}: must have train_images and '
            'train_labels, and so on, as MedMNIST has'
        )
    for split in found:
        for what in ('images', 'labels'):
            if f'{split}_{what}' not in names:
                raise DataError(
                    f'{file}: field {split}_{what}: missing: save it as MedMNIST does'
                )
    return found


def _labels(file, split) -> np.ndarray:
    """int [N, 1], numbers from 0; or [N, K], 0 and 1."""
    shape, dtype = head(file, f'{split}_images')
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise DataError(
            f'{file}: field {split}_images: {dtype} {list(shape)}: must be uint8 [N, H, W] or '
            '[N, H, W, 3]'
        )
    field = f'{split}_labels'
    try:
        with open(file, 'rb') as opened, np.load(opened, allow_pickle=False) as archive:
            label_N = archive[field]
    except _DAMAGED as error:
        raise _unreadable(file, field, error) from error
    label_NxK = label_N.reshape(len(label_N), -1) if label_N.ndim else label_N
    if label_NxK.shape[:1] != shape[:1] or label_NxK.dtype.kind not in 'iu':
        raise DataError(
            f'{file}: field {field}: {label_N.dtype} {list(label_N.shape)}: must be integers, a '
            f'row for each of the {shape[0]} images'
        )
    if not label_NxK.size or label_NxK.min() < 0:
        raise DataError(f'{file}: field {field}: empty, or below 0: number classes from 0')
    if label_NxK.shape[1] > 1 and label_NxK.max() > 1:
        raise DataError(
            f'{file}: field {field}: {label_NxK.shape[1]} numbers an image, up to '
            f'{label_NxK.max()}: must be one class, or 0 and 1 for each of several'
        )
    return label_NxK.astype(int)


def _images(file, split) -> Iterator[np.ndarray]:
    """uint8 [H, W] or [H, W, 1 or 3], one after another: the file may be larger than memory."""
    name = f'{split}_images'
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f'{name}.npy') as stream:
            (number, *shape), is_fortran, _ = _read_head(stream)
            if is_fortran:
                raise DataError(f'{file}: field {name}: in Fortran order: save it in C order')
            for _ in range(number):
                yield np.frombuffer(stream.read(int(np.prod(shape))), np.uint8).reshape(shape)
    except _DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(file, name, error) from error


def head(file: pathlib.Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which is not read.  Raises DataError."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f'{name}.npy') as stream:
            shape, _, dtype = _read_head(stream)
            return shape, dtype
    except _DAMAGED as error:
        raise _unreadable(file, name, error) from error


def _read_head(stream):
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _unreadable(file, name, error) -> DataError:
    return DataError(
        f'{file}: field {name}: cannot be read ({error}): save plain arrays with numpy.savez'
    )
