"""Boxes from a COCO annotations.json, by file_name, in the forms in which tools export it."""

import pathlib
from typing import NamedTuple, NoReturn

import numpy as np

from fedgen_jax.data.folder import words
from fedgen_jax.data.folder.coco_forms import bbox_of, by_base_alone, find_paths, is_true, key_of
from fedgen_jax.data.folder.manifest import Manifest
from fedgen_jax.data.folder.text import (
    DataError,
    collected,
    is_number,
    kind_of,
    raise_first,
    read_json,
    row_error,
)


class Boxes(NamedTuple):
    """The boxes of one image, in its own pixels.

    width, height: of the image that the boxes were drawn on.
    box:       float32 [n, 4], (y0, x0, y1, x1), clipped to the image.
    box_class: int32 [n].
    """

    width: int
    height: int
    box: np.ndarray
    box_class: np.ndarray


class Coco(NamedTuple):
    """Boxes by image path, the class names, and what a person should know, a line each."""

    boxes: dict[str, Boxes]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


class _Image(NamedTuple):
    """An entry of `images`; path: in the manifest, None if it is not there."""

    path: str | None
    width: int
    height: int


class _Box(NamedTuple):
    """An annotation; outside: by how many pixels it stuck out of its image."""

    number: int
    path: str
    corners: tuple[float, ...]
    box_class: int
    outside: float


def read_coco(
    file: pathlib.Path, manifest: Manifest, classes: tuple[str, ...] | None = None
) -> Coco:
    """The boxes of the manifest's images; classes: default the categories' names, by id.

    Every image of the manifest must be listed; one without annotations has no boxes.  Images that
    the manifest lacks are left out.  What sticks out of its image is clipped.
    """
    content = read_json(file)
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(f'{file}: field {key}: must be a list of objects: see the COCO format')
    class_of, classes = _read_categories(file, content['categories'], classes)
    images = _read_images(file, content['images'], manifest)
    _check_numbers(file, content['annotations'], images)
    found: list[_Box] = []
    mistakes: list[DataError] = []
    for i, entry in enumerate(content['annotations']):
        with collected(mistakes):
            found += _read_annotation(file, i, entry, images, class_of)
    raise_first(mistakes, 'annotations')
    of_path: dict[str, list[_Box]] = {image.path: [] for image in images.values() if image.path}
    for box in found:
        of_path[box.path].append(box)
    boxes = {
        image.path: Boxes(
            image.width, image.height,
            np.array([b.corners for b in of_path[image.path]], np.float32).reshape(-1, 4),
            np.array([b.box_class for b in of_path[image.path]], np.int32),
        )
        for image in images.values() if image.path
    }
    return Coco(boxes, classes, _notes(file, content, images, found))


def _fail(file, key, i, field, problem) -> NoReturn:
    problem = f'{problem}: correct or remove the entry'
    raise DataError(f'{file}: {key}[{i}], field {field}: {problem}', kind_of(field, problem))


def _read_categories(file, categories, classes):
    names = {}
    for i, entry in enumerate(categories):
        key, name = key_of(entry.get('id')), entry.get('name')
        if key is None or key in names:
            _fail(file, 'categories', i, 'id', f'{entry.get("id")!r} is no id, or comes twice')
        if not isinstance(name, str) or not name.strip() or name in names.values():
            _fail(file, 'categories', i, 'name', f'{name!r} is no name, or comes twice')
        if classes is not None and name not in classes:
            _fail(file, 'categories', i, 'name', f'{name!r} is none of {", ".join(classes)}')
        names[key] = name
    if classes is None:
        numbered = [key for key in names if key.lstrip('-').isdecimal()]
        rest = sorted(names.keys() - numbered)
        classes = tuple(names[key] for key in (*sorted(numbered, key=int), *rest))
    return {key: classes.index(name) for key, name in names.items()}, classes


def _read_images(file, entries, manifest) -> dict[str, _Image]:
    """{id: image}."""
    row_of = {row.image: row.number for row in manifest.rows}
    images: dict[str, _Image] = {}
    seen: set[str] = set()
    mistakes: list[DataError] = []
    for i, entry in enumerate(entries):
        with collected(mistakes):
            name, key = entry.get('file_name'), key_of(entry.get('id'))
            if not isinstance(name, str) or not name:
                _fail(file, 'images', i, 'file_name', f'{name!r} is no path')
            if key is None or key in images:
                _fail(file, 'images', i, 'id', f'{entry.get("id")!r} is no id, or comes twice')
            images[key] = _Image(name, 0, 0)
    raise_first(mistakes, 'images')
    try:
        paths = find_paths([image.path or '' for image in images.values()], list(row_of))
    except ValueError as error:
        raise DataError(f'{file}: field file_name: {error}') from error
    for i, (key, path, entry) in enumerate(zip(images, paths, entries)):
        images[key] = _Image(None, 0, 0)
        if path is None:
            continue
        with collected(mistakes):
            if path in seen:
                _fail(file, 'images', i, 'file_name', f'{path!r} comes twice')
            for field in ('width', 'height'):
                if not is_number(entry.get(field)) or entry[field] < 1:
                    _fail(file, 'images', i, field, f'{entry.get(field)!r} is no number of pixels')
            images[key] = _Image(path, int(entry['width']), int(entry['height']))
            seen.add(path)
    unlisted = [entry['file_name'] for path, entry in zip(paths, entries) if path is None]
    beside = f', which has {unlisted[0]!r} and others' if unlisted else ''
    for name in sorted(row_of.keys() - seen, key=row_of.__getitem__):
        with collected(mistakes):
            row_error(
                manifest.file, row_of[name], 'image',
                f'{name!r} is not in {file.name}{beside}: add it to its images (without '
                'annotations if it shows nothing), or correct its file_name',
            )
    raise_first(mistakes, 'images')
    return images


def _check_numbers(file, annotations, images):
    """Refuses boxes that are plainly corners, or fractions of the image."""
    found = []
    for entry in annotations:
        bbox, image = entry.get('bbox'), images.get(key_of(entry.get('image_id')))
        four = isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))
        if four and image and image.path:
            found.append((*bbox, image.width, image.height))
    if not found:
        return
    low, high, size = np.split(np.array(found, float), 3, axis=1)
    end = low + high
    far = np.any(end > 1.1 * size, axis=1).mean()  # no sloppy border
    if np.all(low >= -1) and np.all(high > low) and np.all(high <= size + 1) and far > 0.2:
        raise DataError(
            f'{file}: field bbox: all read like corners, [x0, y0, x1, y1]: write '
            '[x, y, width, height]'
        )
    if np.all(high > 0) and np.all(end <= 1) and np.all(size > 1):
        raise DataError(
            f'{file}: field bbox: all lie within one pixel, like fractions of the image: write '
            'pixels'
        )


def _read_annotation(file, i, entry, images, class_of) -> list[_Box]:
    """One box, or none where the manifest lacks its image."""
    image = images.get(key_of(entry.get('image_id')))
    if image is None:
        _fail(file, 'annotations', i, 'image_id', f'{entry.get("image_id")!r} is no image id')
    if image.path is None:
        return []

    def fail(field, problem):
        where = f'annotations[{i}] of {image.path!r}'
        raise DataError(f'{file}: {where}, field {field}: {problem}', kind_of(field, problem))

    category = key_of(entry.get('category_id'))
    if category not in class_of:
        fail(
            'category_id',
            f'{entry.get("category_id")!r} is no category id: add the category, or remove the '
            'annotation',
        )
    if is_true(entry.get('iscrowd')):
        fail('iscrowd', 'a crowd is no box: remove it')
    try:
        bbox = bbox_of(entry, image.width, image.height)
        corners, outside = _to_corners(bbox, image.width, image.height)
    except ValueError as error:
        fail('bbox', str(error))
    return [_Box(i, image.path, corners, class_of[category], outside)]


def _to_corners(bbox, width, height):
    """(y0, x0, y1, x1) of a COCO (x, y, width, height), clipped; the pixels it stuck out."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise ValueError(f'{bbox!r}: must be four finite numbers, [x, y, width, height]')
    x, y, w, h = bbox
    if np.float32(x + w) <= np.float32(x) or np.float32(y + h) <= np.float32(y):
        raise ValueError(f'{bbox!r} has no area: remove it, or give its width and height')
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + h, height), min(x + w, width)
    if np.float32(y0) >= np.float32(y1) or np.float32(x0) >= np.float32(x1):
        raise ValueError(f'{bbox!r} lies outside the image of {width} x {height}: remove it')
    outside = max(-x, -y, x + w - width, y + h - height)
    if outside > 1 and (y1 - y0) * (x1 - x0) < w * h / 4:
        raise ValueError(
            f'{bbox!r} lies mostly outside the image of {width} x {height}: correct the box'
        )
    return (y0, x0, y1, x1), outside


def _notes(file, content, images, found) -> tuple[str, ...]:
    notes = []
    unlisted = [e for e in content['images'] if images[key_of(e['id'])].path is None]
    if unlisted:
        notes.append(
            f'{file}: {len(unlisted)} images, the first {unlisted[0]["file_name"]!r}, are not in '
            'manifest.csv and are left out with their boxes: add them if they are meant'
        )
    by_base = [
        (e['file_name'], path) for e in content['images']
        for path in [images[key_of(e['id'])].path] if path and by_base_alone(e['file_name'], path)
    ]
    if by_base:
        notes.append(
            f'{file}: {len(by_base)} images are told by their base name alone, the first '
            f'{by_base[0][0]!r} is {by_base[0][1]!r}: correct file_name if it is another'
        )
    outside = [box for box in found if box.outside > 1]  # less is rounding
    if outside:
        notes.append(
            f'{file}: {len(outside)} boxes, the first annotations[{outside[0].number}] of '
            f'{outside[0].path!r}, leave their images by up to '
            f'{max(box.outside for box in outside):g} pixels and are clipped: correct them'
        )
    first: dict[tuple, _Box] = {}
    twice = [b for b in found if first.setdefault(b[1:4], b) is not b]
    if twice:
        notes.append(
            f'{file}: {len(twice)} boxes, the first annotations[{twice[0].number}] of '
            f'{twice[0].path!r}, repeat another to the digit and count again: remove them'
        )
    for names in words.spellings(e['name'] for e in content['categories']):
        notes.append(
            f'{file}: categories {words.shown(names, " and ")} differ in spelling alone and '
            f'count as {len(names)} classes: write one name'
        )
    return tuple(notes)
