"""A data set on disk, in a form that people bring (`data/forms.py`), to records of equal shape.

    root/manifest.csv      image,center[,patient][,split][,label][,mask][,...]
    root/classes.json      {"classes": [...], "mask_classes": [...]}, optional
    root/annotations.json  COCO boxes, by file_name, optional

`scan` checks all that can be checked without decoding a pixel; `records` decodes.
"""

import collections
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fedgen_jax.data import forms
from fedgen_jax.data.folder import decode, pictures, windows
from fedgen_jax.data.folder.manifest import Manifest, check_table
from fedgen_jax.data.folder.text import DataError, collected, raise_first, row_error
from fedgen_jax.data.store import Record
from fedgen_jax.data.targets import TARGETS, Frame, Scanned, Target, target_of

VERSION = 9  # of what `records` computes; raising it makes stores anew


class Folder(NamedTuple):
    """A checked data set; of each kind of target that it has, what was found of it.

    root: the folder that paths are relative to.
    """

    root: pathlib.Path
    manifest: Manifest
    found: tuple[tuple[Target, Scanned], ...]

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The class names of each target."""
        return {target.name: scanned.classes for target, scanned in self.found}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, a line each."""
        return sum((scanned.notes for _, scanned in self.found), self.manifest.notes)


def scan(
    root: str | os.PathLike,
    *,
    target: str | None = None,
    classes: Sequence[str] | None = None,
    max_boxes: int | None = None,
    columns: str = '',
) -> Folder:
    """Reads and checks the text of a data set.

    root, columns: as `forms.read_table` takes them.
    target:    the kind of target that will be learned, as `targets.target_of` takes it.  It exists
               afterwards even if the folder has none of it (all unknown).  A mistake in the text of
               another kind is then a note, and that kind is left out.  Default: the first that the
               folder has, and all are read.
    classes:   the class names of that target, such as a trained model's; any other is an error.
               Default: the folder's (sorted labels, unless classes.json orders them).
    max_boxes: M.  Default: the most boxes in one image.

    Raises DataError.
    """
    asked = target_of(target) if target is not None else None
    manifest = check_table(forms.read_table(root, columns))
    kinds = [t for t in TARGETS.values() if t is asked or t.has(manifest)]
    if asked is None:
        asked = next(iter(kinds), TARGETS['label'] if classes else None)
    if asked and asked not in kinds:
        kinds.append(asked)
    found, notes = [], list(manifest.notes)
    for kind in kinds:
        try:
            names = tuple(classes) if classes and kind is asked else None
            found.append((kind, kind.scan(manifest, names, max_boxes)))
        except DataError as error:
            if target is None or kind is asked:
                raise
            notes.append(f'{error} (the {kind.name} is not learned here, and left out)')
    manifest = manifest._replace(notes=tuple(notes))
    return Folder(manifest.file.parent, manifest, tuple(found))


def fingerprint(folder: Folder, image_size: int, window: str = '') -> dict:
    """What `records` of these depends on, as JSON; files by size and time of change."""
    root = folder.root.resolve()
    kinds = [target for target, _ in folder.found]
    rows = [row._replace(number=0)._asdict() for row in folder.manifest.rows]
    files = sorted({
        decode.file_of(path)
        for row in folder.manifest.rows if folder.manifest.images is None
        for path in (row.image, *(f for target in kinds for f in target.files(row)))
    })
    stats = [(path, s.st_size, s.st_mtime_ns) for path in files for s in [(root / path).stat()]]
    names = ['classes.json', *(name for target in kinds for name in target.texts)]
    texts = [root / name for name in names]
    return {
        'version': VERSION,
        'root': str(root),
        'rows': _hash(json.dumps(rows).encode()),
        'state': folder.manifest.state,
        'texts': [_hash(file.read_bytes()) if file.exists() else '' for file in texts],
        'files': _hash(json.dumps(stats).encode()),
        'classes': folder.classes,
        'options': {target.name: scanned.options for target, scanned in folder.found},
        'image_size': image_size,
        'window': window,
    }


def records(folder: Folder, image_size: int, window: str = '') -> Iterator[Record]:
    """Decodes the images and targets, in the manifest's order.  Raises DataError.

    window: as `windows.of_centers` takes it.
    """
    scale_of = _scales(folder)
    centers = [row.center for row in folder.manifest.rows]
    window_of = windows.of_centers(window, centers, lambda: _images(folder))
    told: list[list] = [[] for _ in folder.found]
    mistakes: list[DataError] = []
    for row, image in zip(folder.manifest.rows, _images(folder), strict=True):
        with collected(mistakes):
            record, of_kinds = _read(
                folder, row, image, scale_of, window_of.get(row.center), image_size
            )
            for of_kind, what in zip(told, of_kinds):
                of_kind.append((row, what))
        if not mistakes:
            yield record
    raise_first(mistakes, 'rows')
    for (target, _), of_kind in zip(folder.found, told):
        target.agree(folder.manifest, of_kind)


def _images(folder) -> Iterator[Any]:
    """The images of the rows, as `decode.open_image` takes them."""
    if folder.manifest.images is not None:
        return folder.manifest.images()
    return (str(folder.root / row.image) for row in folder.manifest.rows)


def _scales(folder):
    """From a series to the gray scale of its images, wherever they lie."""
    images = collections.defaultdict(list)
    for row in folder.manifest.rows:
        images[row.center, row.patient, row.series].append(str(folder.root / row.image))
    return functools.cache(lambda *series: decode.scale_of_series(images[series]))


def _read(folder, row, image, scale_of, window, image_size) -> tuple[Record, list]:
    """A row's record, and what each kind of target tells of it; scale_of: see `_scales`."""
    try:
        image, assumed, aspect = decode.open_image(
            image,
            scale_of(row.center, row.patient, row.series) if row.series and not window else None,
            window,
        )
        square = decode.square_image(image, image_size, aspect)
    except ValueError as error:
        row_error(folder.manifest.file, row.number, 'image', f'{row.image!r}: {error}')
    turned = pictures.TURNED in assumed
    frame = Frame(image.width, image.height, aspect, image_size, turned)
    arrays: dict[str, Any] = {}
    told = []
    for target, scanned in folder.found:
        of_target, what = target.read(scanned, row, frame)
        arrays |= of_target
        told.append(what)
    record = Record(
        square, arrays, row.center, row.image, row.patient, row.split, row.volume,
        size=f'{image.width} x {image.height}', assumed='\n'.join(assumed),
        window=windows.text_of(window),
    )
    return record, told


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
