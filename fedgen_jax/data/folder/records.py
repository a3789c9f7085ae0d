"""A center folder on disk, in the format that people bring, to records of equal shape.

    root/manifest.csv      image,center[,patient][,split][,label][,mask]
    root/classes.json      {"classes": [...], "mask_classes": [...]}, optional
    root/annotations.json  COCO boxes, by file_name, optional

`scan` checks all that can be checked without decoding a pixel; `records` decodes.
"""

import collections
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.data.examples import TARGETS, UNKNOWN
from fedgen_jax.data.folder import coco, decode
from fedgen_jax.data.folder.manifest import (
    DataError,
    Manifest,
    read_classes,
    read_manifest,
    row_error,
)
from fedgen_jax.data.store import Record

VERSION = 5  # of what `records` computes; raising it makes stores anew


class Folder(NamedTuple):
    """A checked folder.

    classes: the class names of each target that it has.
    boxes:   by image path, None without annotations.json.
    max_boxes: M, the number of boxes that each image is padded to.
    """

    root: pathlib.Path
    manifest: Manifest
    classes: dict[str, tuple[str, ...]]
    boxes: dict[str, coco.Boxes] | None
    max_boxes: int


def scan(
    root: str | pathlib.Path,
    *,
    target: str | None = None,
    classes: Sequence[str] | None = None,
    max_boxes: int | None = None,
) -> Folder:
    """Reads and checks the text of a center folder.

    target:    'label', 'mask' or 'box': what will be learned.  It exists afterwards even if the
               folder has none of it (all unknown).  Default: the first of them that the folder has.
    classes:   the class names of that target, such as a trained model's; any other is an error.
               Default: the folder's (sorted labels, unless classes.json orders them).
    max_boxes: M.  Default: the most boxes in one image.

    Raises DataError.
    """
    root = pathlib.Path(root)
    if target is not None and target not in TARGETS:
        raise ValueError(f'target {target!r}: use one of {", ".join(TARGETS)}')
    manifest = read_manifest(root)
    named = read_classes(root)
    annotations = root / 'annotations.json'
    present = [key for key in ('label', 'mask') if key in manifest.columns]
    present += ['box'] if annotations.exists() else []
    target = target or next(iter(present), 'label' if classes else None)
    given = {target: tuple(classes)} if classes is not None else {}

    found = {}
    if 'label' in present or target == 'label':
        found['label'] = given.get('label') or named.get('classes') or _sorted_labels(manifest)
        _check_labels(manifest, found['label'])
    if 'mask' in present or target == 'mask':
        found['mask'] = _mask_classes(root, manifest, named.get('mask_classes'), given.get('mask'))
    boxes = None
    if 'box' in present:
        boxes, found['box'] = coco.read_coco(annotations, manifest, given.get('box'))
    elif target == 'box':
        found['box'] = given.get('box', ())
    return Folder(root, manifest, found, boxes, _max_boxes(annotations, boxes, max_boxes))


def fingerprint(folder: Folder, image_size: int) -> dict:
    """What `records(folder, image_size)` depends on, as JSON; files by size and time of change."""
    root = folder.root.resolve()
    files = sorted({decode.file_of(p) for row in folder.manifest.rows for p in (row.image, row.mask)
                    if p})
    stats = [(path, s.st_size, s.st_mtime_ns) for path in files for s in [(root / path).stat()]]
    texts = [root / name for name in ('manifest.csv', 'classes.json', 'annotations.json')]
    return {
        'version': VERSION,
        'root': str(root),
        'texts': [_hash(file.read_bytes()) if file.exists() else '' for file in texts],
        'files': _hash(json.dumps(stats).encode()),
        'classes': folder.classes,
        'max_boxes': folder.max_boxes,
        'image_size': image_size,
    }


def records(folder: Folder, image_size: int) -> Iterator[Record]:
    """Decodes the images and targets, in the manifest's order.  Raises DataError."""
    scale_of = _scales(folder)
    in_doubt, named = {}, set()  # by center: the first mask of 0 and 255 alone; any with classes
    for row in folder.manifest.rows:
        try:
            image, _, aspect = decode.open_image(
                str(folder.root / row.image), scale_of(row.volume) if row.volume else None
            )
        except ValueError as error:
            row_error(folder.manifest.file, row.number, 'image', f'{row.image!r}: {error}')
        target = {}
        if 'label' in folder.classes:
            known = folder.classes['label']
            target['label'] = np.int32(known.index(row.label) if row.label else -1)
        if 'mask' in folder.classes:
            mask = _read_mask(folder, row, image.size)
            target['mask'] = decode.square_mask(mask, image_size, aspect)
            values = set(np.unique(mask))
            if values - {0, UNKNOWN}:
                named.add(row.center)
            elif row.mask and UNKNOWN in values:
                in_doubt.setdefault(row.center, row)
        if 'box' in folder.classes:
            if folder.boxes is not None and aspect != 1:
                row_error(
                    folder.manifest.file, row.number, 'image',
                    f'{row.image!r} has pixels {aspect:.3g} times as high as wide, on which boxes '
                    'are not read: save it with square pixels',
                )
            target.update(_read_boxes(folder, row, image.size, image_size))
        yield Record(
            decode.square_image(image, image_size, aspect), target,
            row.center, row.image, row.patient, row.split, row.volume,
        )
    for center, row in in_doubt.items():
        if center not in named:
            row_error(
                folder.manifest.file, row.number, 'mask',
                f'{row.mask!r}: all masks of {center!r} have 0 and {UNKNOWN} alone, which '
                'means unknown: save the foreground as 1',
            )


def _scales(folder):
    """From a volume's name to the gray scale of its images."""
    images = collections.defaultdict(list)
    for row in folder.manifest.rows:
        images[row.volume].append(str(folder.root / row.image))
    return functools.cache(lambda volume: decode.scale_of_series(images[volume]))


def _sorted_labels(manifest):
    return tuple(sorted({row.label for row in manifest.rows} - {''}))


def _check_labels(manifest, classes):
    for row in manifest.rows:
        if row.label and row.label not in classes:
            row_error(
                manifest.file, row.number, 'label',
                f'unknown label {row.label!r}: use one of {", ".join(classes)}, or nothing',
            )


def _mask_classes(root, manifest, named, given):
    """The mask's class names; its numbers mean nothing without them."""
    row = next((row for row in manifest.rows if row.mask), None)
    if row and named is None:
        row_error(
            manifest.file, row.number, 'mask',
            'masks need classes.json: {"mask_classes": ["background", ...]}, in order of number',
        )
    if given and named and given != named:
        raise DataError(
            f'{root / "classes.json"}: field mask_classes: {", ".join(named)} differ from the '
            f"model's {', '.join(given)}: renumber the masks and correct the names"
        )
    return given or named or ()


def _max_boxes(file, boxes, limit):
    most = max((len(b.box) for b in boxes.values()), default=0) if boxes else 0
    if limit is None:
        return max(most, 1)
    for name, b in (boxes or {}).items():
        if len(b.box) > limit:
            raise DataError(
                f'{file}: annotations of {name!r}, field bbox: {len(b.box)} boxes, but max_boxes '
                f'is {limit}: raise max_boxes to {most}'
            )
    return limit


def _read_mask(folder, row, image_shape):
    width, height = image_shape
    if not row.mask:
        return np.full((height, width), UNKNOWN, np.uint8)
    try:
        mask = decode.read_mask(str(folder.root / row.mask), len(folder.classes['mask']))
        if mask.shape != (height, width):
            raise ValueError(
                f'the mask is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}: '
                'save both at one size'
            )
    except ValueError as error:
        row_error(folder.manifest.file, row.number, 'mask', f'{row.mask!r}: {error}')
    return mask


def _read_boxes(folder, row, image_shape, image_size):
    box = np.zeros((folder.max_boxes, 4), np.float32)
    box_class = np.full(folder.max_boxes, -1, np.int32)
    if folder.boxes is not None:
        found = folder.boxes[row.image]
        if image_shape != (found.width, found.height):
            width, height = image_shape
            row_error(
                folder.manifest.file, row.number, 'image',
                f'{row.image!r} is {width} x {height}, but annotations.json says {found.width} x '
                f'{found.height}: correct its width and height',
            )
        box[: len(found.box)] = decode.square_boxes(found.box, *image_shape, image_size)
        box_class[: len(found.box)] = found.box_class
    return {'box': box, 'box_class': box_class}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
