"""The forms in which tools write COCO's ids, flags, names of files and shapes."""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle


def key_of(x: Any) -> str | None:
    """An id as text: 7, 7.0 and '7' are one; None if it is no id."""
    if isinstance(x, str):
        return x.strip() or None
    if isinstance(x, int) and not isinstance(x, bool):
        return str(x)
    return str(int(x)) if isinstance(x, float) and x.is_integer() else None


def is_true(x: Any) -> bool:
    """Whether a flag is set; '0' and 'false' are not."""
    return str(x or 0).strip().casefold() not in ('', '0', '0.0', 'false', 'no')


def find_paths(names: Sequence[str], paths: Sequence[str]) -> list[str | None]:
    """For each file_name the path that equals it, that it ends with, or that ends with it.

    Else the path with its base name, if that is unique on both sides; else None.  A path that
    equals one file_name belongs to no other.

    Raises ValueError where several paths end with a file_name.
    """
    names = [_plain(name) for name in names]
    known = set(paths)
    unnamed = known - set(names)
    ending = collections.defaultdict(list)
    for path in sorted(unnamed):
        for tail in _tails(path):
            ending[tail].append(path)
    bases = collections.Counter(_tails(name)[-1] for name in names)

    def find(name):
        if name in known:
            return name
        longer = next((tail for tail in _tails(name) if tail in unnamed), None)
        if longer or len(ending[name]) == 1:
            return longer or ending[name][0]
        if ending[name]:
            first, second = ending[name][:2]
            raise ValueError(f'{name!r} is {first!r} or {second!r}: write the whole path')
        base = _tails(name)[-1]
        return ending[base][0] if len(ending[base]) == bases[base] == 1 else None

    return [find(name) for name in names]


def by_base_alone(name: str, path: str) -> bool:
    """Whether a file_name and its path share their base name alone."""
    tails = _tails(_plain(name)), _tails(path)
    return tails[0][0] not in tails[1] and tails[1][0] not in tails[0]


def bbox_of(entry: dict, width: int, height: int) -> Any:
    """[x, y, width, height] of an annotation: its bbox, or around its polygons or RLE.

    Raises ValueError.
    """
    bbox, shape = entry.get('bbox'), entry.get('segmentation')
    if bbox or not shape:
        return bbox
    try:
        if isinstance(shape, list):
            polygons = shape if isinstance(shape[0], list) else [shape]
            xy_Px2 = np.concatenate([np.reshape(np.array(p, float), (-1, 2)) for p in polygons])
            low, high = xy_Px2.min(0), xy_Px2.max(0)
            return [*low.tolist(), *(high - low).tolist()]
        counts = shape['counts']
        if list(shape['size']) != [height, width]:
            raise ValueError(f'its size is {shape["size"]}, the image {height} x {width}')
        counts = counts if isinstance(counts, list) else _counts(counts)
        if sum(counts) != width * height or min(counts) < 0:
            raise ValueError(f'its counts do not sum to {width * height}')
        whole = {'size': [height, width], 'counts': counts}
        return rle.toBbox(rle.frPyObjects(whole, height, width)).tolist()
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f'no bbox, and no polygon or RLE ({error}): add a bbox') from error


def _counts(text: str) -> list[int]:
    """The numbers of a compressed RLE, which the library reads without a check.

    Each is of characters of 5 bits, the lowest first; from the fourth on, the difference to
    the last but one.
    """
    counts: list[int] = []
    number = bits = 0
    for character in text:
        x = ord(character) - 48
        if not 0 <= x < 64:
            raise ValueError(f'{character!r} is no part of an RLE')
        number |= (x & 31) << bits
        bits += 5
        if x & 32:  # more follows
            continue
        number -= (x & 16) << bits - 4  # the sign
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = bits = 0
    return counts


def _plain(name: str) -> str:
    return str(pathlib.PurePosixPath(name.replace('\\', '/')))


def _tails(path: str) -> list[str]:
    """'a/b/c', 'b/c', 'c'."""
    parts = path.split('/')
    return ['/'.join(parts[i:]) for i in range(len(parts))]
