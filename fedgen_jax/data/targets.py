"""Kinds of target: what a task can learn from, one value each.

A kind of one's own is such a value in a module of one's own, and a task whose `target` names it,
'my_module:MY_TARGET'.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.data.folder import coco, decode, labels
from fedgen_jax.data.folder.manifest import Manifest, Row
from fedgen_jax.data.folder.text import DataError, row_error
from fedgen_jax.registry import look_up


class Scanned(NamedTuple):
    """What the text of a folder says of one kind of target.

    classes: the class names, in the order of their numbers.
    found:   whatever `Target.read` needs of it.
    options: what else the arrays depend on, as JSON.
    notes:   what a person should know, a line each.
    """

    classes: tuple[str, ...]
    found: Any = None
    options: Any = None
    notes: tuple[str, ...] = ()


class Frame(NamedTuple):
    """How an image is laid into its square of `size` pixels a side (`folder/square.py`).

    width, height: in its file.  aspect: the height of a pixel by its width.
    turned: whether the file's EXIF orientation turned it; width and height are those after it.
    """

    width: int
    height: int
    aspect: float
    size: int
    turned: bool = False


def _nothing(*_) -> tuple:
    return ()


class Target(NamedTuple):
    """A kind of target, as pure functions that raise DataError.

    arrays: the names of its arrays in `Examples.target`.
    has:    manifest -> whether a folder has it.
    scan:   (manifest, classes, max_boxes) -> Scanned, without reading a pixel; also of a folder
            that has none of it.  classes: a trained model's, or None.  max_boxes: what the
            objects of an image are padded to, or None.
    read:   (scanned, row, the `Frame` of its image) -> ({array: value of one example}, what
            `agree` should know of it).
    known:  target -> bool [N], the examples of which it is known.
    count:  (target, number of classes K) -> int [K], how many there are of each class.
    place:  (file, field) of a folder where it is written.
    agree:  (manifest, [(row, what `read` told)]) -> None, after all rows: refuses contradictions.
    files:  row -> files besides the image that `read` reads.
    texts:  further text files of the folder that `scan` reads.
    on_disk: the arrays that stay in the store with images='disk'.
    edge:   what surrounds a shrunk image, 'reflect' or 'nearest'.
    by_volume: whether slices of one volume are scored together.
    empty_counts: whether examples of which nothing is known are scored too: they show nothing.
    """

    name: str
    arrays: tuple[str, ...]
    has: Callable[[Manifest], bool]
    scan: Callable[[Manifest, Sequence[str] | None, int | None], Scanned]
    read: Callable[[Scanned, Row, Frame], tuple[dict, Any]]
    known: Callable[[dict], np.ndarray]
    count: Callable[[dict, int], np.ndarray]  # type: ignore[assignment]  # a tuple has one
    place: tuple[str, str]
    agree: Callable[[Manifest, list], Any] = _nothing
    files: Callable[[Row], Sequence[str]] = _nothing
    texts: tuple[str, ...] = ()
    on_disk: tuple[str, ...] = ()
    edge: str = 'reflect'
    by_volume: bool = False
    empty_counts: bool = False


def _check_size(frame: Frame, width: int, height: int, what: str, way_out: str) -> None:
    """Raises ValueError where a target was made for an image of another size."""
    if (frame.width, frame.height) == (width, height):
        return
    if frame.turned and (frame.height, frame.width) == (width, height):
        way_out = (
            'its EXIF orientation turns the image, and masks and boxes lie on the turned one: '
            'export them again, or save the image upright'
        )
    raise ValueError(
        f'{what} {width} x {height}, the image {frame.width} x {frame.height}: {way_out}'
    )


def target_of(name: str) -> Target:
    """One of `TARGETS`, or 'module:name' of one's own."""
    return look_up('target', name, TARGETS)


# -- label: one class an image, in the column `label`


def _scan_label(manifest, classes, max_boxes):
    del max_boxes
    classes, notes = labels.scan_one(manifest, classes)
    return Scanned(classes, notes=notes)


def _read_label(scanned, row, frame):
    del frame
    number = scanned.classes.index(row.label) if row.label else -1
    return {'label': np.int32(number)}, None


LABEL = Target(
    name='label',
    arrays=('label',),
    has=lambda manifest: 'label' in manifest.columns and not labels.has_several(manifest),
    scan=_scan_label,
    read=_read_label,
    known=lambda target: target['label'] >= 0,
    count=lambda target, k: np.bincount(target['label'][target['label'] >= 0], minlength=k),
    place=('manifest.csv', 'label'),
)


# -- labels: any number of classes an image, in the column `label`, 'Edema|Effusion'


def _scan_labels(manifest, classes, max_boxes):
    del max_boxes
    classes, notes = labels.scan_several(manifest, classes)
    return Scanned(classes, notes=notes)


def _read_labels(scanned, row, frame):
    """1 and 0; of an empty cell nothing is known.  'No Finding', if it is no class, is 0 alone."""
    del frame
    names = labels.names_in(row.label)
    found = [np.int8(name in names) if names else np.int8(-1) for name in scanned.classes]
    return {'labels': np.array(found, np.int8)}, None


LABELS = Target(
    name='labels',
    arrays=('labels',),
    has=labels.has_several,
    scan=_scan_labels,
    read=_read_labels,
    known=lambda target: (target['labels'] >= 0).any(1),
    count=lambda target, k: (target['labels'] > 0).sum(0),
    place=('manifest.csv', 'label'),
)


# -- mask: the number of a class in each pixel, in the files of the column `mask`


def _scan_masks(manifest, classes, max_boxes):
    """The numbers of a mask mean nothing without names."""
    del max_boxes
    named = manifest.names.get('mask_classes')
    row = next((row for row in manifest.rows if row.mask), None)
    if row and named is None:
        row_error(
            manifest.file, row.number, 'mask',
            'masks need classes.json: {"mask_classes": ["background", ...]}, in order of number',
        )
    if classes and named and tuple(classes) != named:
        raise DataError(
            f'{manifest.file.parent / "classes.json"}: field mask_classes: {", ".join(named)} '
            f"differ from the model's {', '.join(classes)}: renumber the masks and correct the "
            'names'
        )
    return Scanned(tuple(classes or named or ()), manifest.file)


def _read_mask(scanned, row, frame):
    """Tells `agree` the numbers that the file holds."""
    file = scanned.found
    numbers = frozenset()
    mask = np.full((frame.height, frame.width), UNKNOWN, np.uint8)
    if row.mask:
        try:
            mask = decode.read_mask(str(file.parent / row.mask), len(scanned.classes))
            _check_size(frame, *mask.shape[::-1], 'the mask is', 'save both at one size')
        except ValueError as error:
            row_error(file, row.number, 'mask', f'{row.mask!r}: {error}')
        numbers = frozenset(np.unique(mask).tolist())
    return {'mask': decode.square_mask(mask, frame.size, frame.aspect)}, numbers


def _one_meaning(manifest, found):
    """Of each center, 255 is unknown and not the foreground of some files.

    A file of 0 and 255 alone may be either, unless others of the center hold 255 beside a class.
    """
    by_center = {}
    for row, numbers in found:
        by_center.setdefault(row.center, []).append((row, numbers))
    for center, of in by_center.items():
        beside = any(UNKNOWN in numbers and numbers - {0, UNKNOWN} for _, numbers in of)
        doubt = [row for row, numbers in of if numbers == {0, UNKNOWN}]
        if not doubt and not any(numbers - {0, UNKNOWN} for _, numbers in of):
            doubt = [row for row, numbers in of if numbers == {UNKNOWN}]
        if doubt and not beside:
            row_error(
                manifest.file, doubt[0].number, 'mask',
                f'{doubt[0].mask!r}: {len(doubt)} of {len(of)} masks of {center!r} have 0 and '
                f'{UNKNOWN} alone, and none has {UNKNOWN}, which means unknown, beside a class: '
                'save the foreground as the number of its class, such as 1',
            )


def _count_masks(target, k):
    mask_NxP = target['mask'].reshape(len(target['mask']), -1)
    return np.array([np.sum((mask_NxP == i).any(1)) for i in range(k)], int)


MASK = Target(
    name='mask',
    arrays=('mask',),
    has=lambda manifest: 'mask' in manifest.columns,
    scan=_scan_masks,
    read=_read_mask,
    known=lambda target: (target['mask'][:] != UNKNOWN).any((1, 2)),
    count=_count_masks,
    place=('manifest.csv', 'mask'),
    agree=_one_meaning,
    files=lambda row: (row.mask,) if row.mask else (),
    on_disk=('mask',),
    by_volume=True,
)


# -- box: objects of an image, in annotations.json


def _annotations(manifest):
    return manifest.file.parent / 'annotations.json'


def _scan_boxes(manifest, classes, max_boxes):
    file = _annotations(manifest)
    if not file.exists():
        room = max_boxes or 1
        return Scanned(tuple(classes or ()), (manifest.file, {}, room), room)
    boxes, names, notes = coco.read_coco(file, manifest, classes)
    most = max((len(b.box) for b in boxes.values()), default=0)
    for name, b in boxes.items():
        if max_boxes is not None and len(b.box) > max_boxes:
            raise DataError(
                f'{file}: annotations of {name!r}, field bbox: {len(b.box)} boxes, but max_boxes '
                f'is {max_boxes}: raise max_boxes to {most}'
            )
    room = max(most, 1) if max_boxes is None else max_boxes
    return Scanned(names, (manifest.file, boxes, room), room, notes)


def _read_boxes(scanned, row, frame):
    file, boxes, room = scanned.found
    box = np.zeros((room, 4), np.float32)
    box_class = np.full(room, -1, np.int32)
    found = boxes.get(row.image)
    if found:
        if frame.aspect != 1:
            row_error(
                file, row.number, 'image',
                f'{row.image!r} has pixels {frame.aspect:.3g} times as high as wide, on which '
                'boxes are not read: save it with square pixels',
            )
        try:
            _check_size(
                frame, found.width, found.height,
                'annotations.json says', 'correct its width and height',
            )
        except ValueError as error:
            row_error(file, row.number, 'image', f'{row.image!r}: {error}')
        box[: len(found.box)] = decode.square_boxes(
            found.box, frame.width, frame.height, frame.size
        )
        box_class[: len(found.box)] = found.box_class
    return {'box': box, 'box_class': box_class}, None


BOX = Target(
    name='box',
    arrays=('box', 'box_class'),
    has=lambda manifest: _annotations(manifest).exists(),
    scan=_scan_boxes,
    read=_read_boxes,
    known=lambda target: (target['box_class'] >= 0).any(1),
    count=lambda target, k: np.bincount(
        target['box_class'][target['box_class'] >= 0], minlength=k
    ),
    place=('annotations.json', 'annotations'),
    texts=('annotations.json',),
    edge='nearest',  # objects seen in a reflection would have no boxes
    empty_counts=True,
)

TARGETS = {target.name: target for target in (LABEL, LABELS, MASK, BOX)}
