"""Pictures that a model is asked about: read as training reads them, and the way back.

    picture.png, scan.nii.gz, scan.nii.gz#12    one file: a picture, a volume's slices, one of them
    pictures/*.png                              a glob
    pictures/, series/                          all images that lie right in a folder
    what data.root may be                       the images of a data set (`data/forms.py`)
"""

import collections
import functools
import glob
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fedgen_jax.data import forms
from fedgen_jax.data.check import say
from fedgen_jax.data.folder import decode, dicom, volumes, windows
from fedgen_jax.data.folder.manifest import check_table
from fedgen_jax.data.folder.reading import Window
from fedgen_jax.data.folder.square import original_boxes, original_mask, square_image
from fedgen_jax.data.targets import Frame


class Listed(NamedTuple):
    """A picture that is still to be read.

    name:   unique among those it is listed with.
    source: as `decode.open_image` takes it.
    series: what shares one gray scale with it, () for nothing.  center: '' where none is named.
    more:   the cells of further columns of the table that lists it, by header.
    """

    name: str
    source: Any
    series: tuple[str, ...] = ()
    center: str = ''
    more: Mapping[str, str] = {}


class Picture(NamedTuple):
    """A picture in its own pixels (8-bit RGB), and how it lies in its square.

    assumed: what had to be assumed to read it, a line each.
    source:  the file that it was read from, '' of none.
    more:    as of `Listed`.
    """

    name: str
    image: Image.Image
    frame: Frame
    assumed: tuple[str, ...] = ()
    source: str = ''
    more: Mapping[str, str] = {}

    @property
    def square(self) -> np.ndarray:
        """uint8 [S, S, 3], as training has it."""
        return square_image(self.image, self.frame.size, self.frame.aspect)


def listed(
    images: str | os.PathLike | Sequence[str | os.PathLike], columns: str = ''
) -> list[Listed]:
    """The pictures that files, globs or folders name, in order.

    columns: which headers of tables stand for our columns, as `data.columns`.

    Raises ValueError, in one line, where there are none.
    """
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    files: list[pathlib.Path] = []
    found: list[Listed] = []
    for text in (os.fspath(x) for x in given):
        if inside := _right_in(pathlib.Path(text)):
            files += inside
        elif any(form.has(pathlib.Path(text)) for form in forms.FORMS):
            found += _of_table(text, columns)
        else:
            files += _files_of(text)
    base = os.path.commonpath([os.path.abspath(f.parent) for f in files]) if files else ''
    for file in files:
        found += _of_file(file, base)
    if not found:
        names = ', '.join(str(x) for x in given)
        raise ValueError(f'{names}: no image: name files, or a folder')
    twice = [n for n, k in collections.Counter(x.name for x in found).items() if k > 1]
    if twice:
        raise ValueError(f'{twice[0]}: listed twice: name each image once')
    return found


def read(
    pictures: Iterable[Listed], size: int, window: Window | None = None,
    unread: list[str] | None = None,
) -> Iterator[Picture]:
    """Reads pictures one by one; size: S, of the square that each is laid into.

    All images of a DICOM series that are listed share one gray scale, as in training.
    window: what is black and white of deep gray files, where training had `data.window`.

    unread: takes a line for each file that does not read, which is then left out; None: that
        raises ValueError.
    """
    pictures = list(pictures)
    of_series = collections.defaultdict(list)
    for x in pictures:
        of_series[x.series].append(x.source)
    scale_of = functools.cache(lambda series: decode.scale_of_series(of_series[series]))
    for x in pictures:
        try:
            scale = scale_of(x.series) if x.series and not window else None
            image, assumed, aspect = decode.open_image(x.source, scale, window)
        except ValueError as error:
            if unread is None:
                raise ValueError(f'{_place(x)}: {error}') from error
            unread.append(f'{_place(x)}: {error}')
            continue
        source = x.source if isinstance(x.source, str) else ''
        yield Picture(x.name, image, Frame(*image.size, aspect, size), assumed, source, x.more)


def window_of(text: str, pictures: Sequence[Listed]) -> Window | None:
    """What `data.window` makes of one center's images."""
    return windows.of_centers(
        text, [''] * len(pictures), lambda: (x.source for x in pictures)
    ).get('')


def check_shallow(pictures: Sequence[Listed], why: str) -> None:
    """Raises ValueError where a picture is gray and deeper than 8 bits, with `why` it may not."""
    for x in pictures:
        try:
            deep = decode.read_values(x.source) is not None
        except ValueError as error:
            raise ValueError(f'{_place(x)}: {error}') from error
        if deep:
            raise ValueError(f'{_place(x)}: gray of more than 8 bits, and {why}')


def _place(x: Listed) -> str:
    return x.source if isinstance(x.source, str) else x.name


def of_array(image_HxWx3: np.ndarray, size: int, name: str = '') -> Picture:
    """A picture of an array uint8 [H, W, 3].  Raises ValueError for any other."""
    x = np.asarray(image_HxWx3)
    if x.dtype != np.uint8 or x.ndim != 3 or x.shape[2] != 3 or 0 in x.shape:
        raise ValueError(
            f'an image of type {x.dtype} and shape {x.shape}: pass uint8 [H, W, 3] with red, green '
            'and blue from 0 to 255, or the path of a file'
        )
    return Picture(name, Image.fromarray(x), Frame(x.shape[1], x.shape[0], 1.0, size))


def in_own_pixels(found: Any, frame: Frame) -> Any:
    """What is said of a picture's square, 'mask' [S, S] or 'box' [M, 4], in the picture's pixels.

    Other entries stay as they are.
    """
    if not isinstance(found, dict):
        return found
    back = dict(found)
    if 'mask' in found:
        back['mask'] = original_mask(found['mask'], frame.width, frame.height, frame.aspect)
    if 'box' in found:
        back['box'] = original_boxes(found['box'], *frame[:2], frame.size, frame.aspect)
    return back


def _of_table(text: str, columns: str) -> list[Listed]:
    """The images of a data set, a row each."""
    table = check_table(forms.read_table(text, columns))
    root, rows = table.file.parent, table.rows
    sources = table.images() if table.images else (str(root / row.image) for row in rows)
    return [
        Listed(
            row.image, source, (row.center, row.patient, row.series) if row.series else (),
            row.center, row.more,
        )
        for row, source in zip(rows, sources, strict=True)
    ]


def _right_in(path: pathlib.Path) -> list[pathlib.Path]:
    """The images that lie right in a folder without a manifest.csv; of others there is a note."""
    if not path.is_dir() or (path / 'manifest.csv').is_file():
        return []
    found = [f for f in sorted(path.iterdir()) if f.is_file() and _is_image(f)]
    rest = sorted(set(path.rglob('*')) - set(found))
    others = [
        str(f.relative_to(path)) for f in rest if f.is_file() and not f.name.startswith('.')
    ]
    if found and others:
        say(f'{path}: {len(others)} other files are left out, such as {others[0]!r}: name images '
            'below a folder by a glob, FOLDER/**/*.png')
    return found


def _files_of(text: str) -> list[pathlib.Path]:
    """The files that a path or a glob names, of a volume with the slice that it picks."""
    path = pathlib.Path(text)
    if path.is_dir():
        raise ValueError(
            f'{text}: no image lies in it: name files, a glob such as FOLDER/**/*.png, or data as '
            'data.root takes them'
        )
    if pathlib.Path(decode.file_of(text)).is_file():
        return [path]
    found = sorted(glob.glob(text, recursive=True))
    if not found:
        raise ValueError(f'{text}: no such file, and a glob that fits none')
    return [pathlib.Path(f) for f in found if os.path.isfile(f)]


def _is_image(file: pathlib.Path) -> bool:
    kind = '' if file.name.startswith('.') else decode.kind_of(file)
    return bool(kind) and (kind != 'dicom' or dicom.header(file).has_pixels)


def _of_file(file: pathlib.Path, base: str) -> list[Listed]:
    """A file's picture, or the slices of a volume; named from the folder `base` on."""
    folder = os.path.relpath(os.path.abspath(file.parent), base)
    try:
        decode.check_suffix(decode.file_of(file.name), file.parent)
        slices = volumes.slices(file.parent, file.name)
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error
    return [
        Listed(
            x.path if folder == '.' else f'{folder}/{x.path}', str(file.parent / x.path),
            ('', x.patient, x.series or x.volume) if x.volume else (),
        )
        for x in slices
    ]
