"""Boxes from a COCO annotations.json, by file_name."""

import pathlib
from typing import NamedTuple

import numpy as np

from fedgen_jax.data.folder.manifest import DataError, Manifest, is_number, read_json


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


def read_coco(
    file: pathlib.Path, manifest: Manifest, classes: tuple[str, ...] | None = None
) -> tuple[dict[str, Boxes], tuple[str, ...]]:
    """The boxes by image path, and the class names (`classes`, or the categories by id).

    The file must list just the images of the manifest; one without annotations has no boxes.
    A box may stick out of its image by one pixel, as rounding does, and is clipped.
    """
    content = read_json(file)
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(f'{file}: field {key}: must be a list of objects: see the COCO format')
    class_of, classes = _read_categories(file, content['categories'], classes)
    images = _read_images(file, content['images'], manifest)
    found = {name: ([], []) for name, *_ in images.values()}
    for i, entry in enumerate(content['annotations']):
        if not _is_key(entry.get('image_id'), images):
            _fail(file, 'annotations', i, 'image_id', f'{entry.get("image_id")!r} is no image id')
        name, width, height = images[entry['image_id']]
        where = f'annotations[{i}] of {name!r}'
        if not _is_key(entry.get('category_id'), class_of):
            raise DataError(
                f'{file}: {where}, field category_id: {entry.get("category_id")!r} is no category '
                'id: add the category, or remove the annotation'
            )
        if entry.get('iscrowd'):
            raise DataError(f'{file}: {where}, field iscrowd: a crowd is no box: remove it')
        try:
            box = _to_corners(entry.get('bbox'), width, height)
        except ValueError as error:
            raise DataError(f'{file}: {where}, field bbox: {error}') from error
        found[name][0].append(box)
        found[name][1].append(class_of[entry['category_id']])
    boxes = {
        name: Boxes(
            width, height,
            np.array(found[name][0], np.float32).reshape(-1, 4),
            np.array(found[name][1], np.int32),
        )
        for name, width, height in images.values()
    }
    return boxes, classes


def _is_key(x, known):
    return isinstance(x, int) and x in known  # a list would not even hash


def _fail(file, key, i, field, problem):
    raise DataError(f'{file}: {key}[{i}], field {field}: {problem}: correct or remove the entry')


def _read_categories(file, categories, classes):
    names = {}
    for i, entry in enumerate(categories):
        if not isinstance(entry.get('id'), int) or entry['id'] in names:
            _fail(file, 'categories', i, 'id', f'{entry.get("id")!r} is no integer, or comes twice')
        name = entry.get('name')
        if not isinstance(name, str) or not name.strip() or name in names.values():
            _fail(file, 'categories', i, 'name', f'{name!r} is no name, or comes twice')
        if classes is not None and name not in classes:
            _fail(file, 'categories', i, 'name', f'{name!r} is none of {", ".join(classes)}')
        names[entry['id']] = name
    if classes is None:
        classes = tuple(names[i] for i in sorted(names))
    return {i: classes.index(name) for i, name in names.items()}, classes


def _read_images(file, entries, manifest):
    row_of = {row.image: row.number for row in manifest.rows}
    images, names = {}, set()
    for i, entry in enumerate(entries):
        name = entry.get('file_name')
        if not isinstance(name, str):
            _fail(file, 'images', i, 'file_name', f'{name!r} is no path')
        name = str(pathlib.PurePosixPath(name))
        if name not in row_of:
            _fail(file, 'images', i, 'file_name', f'{name!r} is not in {manifest.file.name}')
        if name in names:
            _fail(file, 'images', i, 'file_name', f'{name!r} comes twice')
        if not isinstance(entry.get('id'), int) or entry['id'] in images:
            _fail(file, 'images', i, 'id', f'{entry.get("id")!r} is no integer, or comes twice')
        for field in ('width', 'height'):
            if not is_number(entry.get(field)) or entry[field] < 1:
                _fail(file, 'images', i, field, f'{entry.get(field)!r} is no number of pixels')
        images[entry['id']] = (name, int(entry['width']), int(entry['height']))
        names.add(name)
    missing = row_of.keys() - names
    if missing:
        name = min(missing, key=row_of.get)
        raise DataError(
            f'{manifest.file}: row {row_of[name]}, field image: {name!r} is not in {file.name}: '
            'add it to its images (without annotations if it shows nothing)'
        )
    return images


def _to_corners(bbox, width, height):
    """(y0, x0, y1, x1) of a COCO (x, y, width, height)."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise ValueError(f'{bbox!r}: must be four finite numbers, [x, y, width, height]')
    x, y, w, h = bbox
    if w <= 0 or h <= 0:
        raise ValueError(f'{bbox!r} has no area: remove it, or give its width and height')
    if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:
        raise ValueError(f'{bbox!r} leaves the image of {width} x {height}: correct the box')
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + h, height), min(x + w, width)
    if y0 >= y1 or x0 >= x1:
        raise ValueError(f'{bbox!r} lies outside the image of {width} x {height}: remove it')
    return y0, x0, y1, x1
