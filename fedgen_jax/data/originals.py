"""Images and masks as they came: their files, the size of their pixels, the way back to them."""

import math

import numpy as np

from fedgen_jax.data.examples import UNKNOWN, Original
from fedgen_jax.data.folder import decode
from fedgen_jax.data.folder.manifest import Manifest, Row
from fedgen_jax.data.folder.text import row_error

SPACING = 'spacing'  # a column: mm, '0.5', or height and width, '0.7 0.5'


def of_manifest(manifest: Manifest) -> dict[str, Original]:
    """{image: its files}; {} where images are no files.

    Raises DataError where a cell of the column `spacing` is no size of a pixel.
    """
    if manifest.images is not None:
        return {}
    root = manifest.file.parent
    return {
        row.image: Original(
            str(root / row.image), str(root / row.mask) if row.mask else '',
            _spacing(manifest, row),
        )
        for row in manifest.rows
    }


def _spacing(manifest: Manifest, row: Row) -> tuple[float, ...]:
    """What the row says of its pixels, (height, width) in mm; () for nothing."""
    text = row.more.get(SPACING, '')
    try:
        found = tuple(map(float, text.split()))
    except ValueError:
        found = (math.nan,)
    if len(found) > 2 or not all(0 < x < math.inf for x in found):
        row_error(
            manifest.file, row.number, SPACING,
            f'{text!r} is no size of a pixel in mm: write 0.5, or height and width, 0.7 0.5; or '
            'name the column otherwise',
        )
    return found * 2 if len(found) == 1 else found


def read_mask(original: Original) -> np.ndarray:
    """uint8 [H, W], as it lies in its file.  Raises ValueError where it cannot be read."""
    try:
        return decode.read_mask(original.mask, UNKNOWN)
    except (ValueError, OSError) as error:
        raise ValueError(f'{original.mask}: {error}') from error


def spacing_of(original: Original) -> tuple[float, ...]:
    """mm, the height and the width of a pixel: as the table says, else as the image's header does.

    () where neither does.  Raises ValueError where the header cannot be read.
    """
    return original.spacing or decode.pixel_of(original.image).spacing


def in_own_pixels(mask_SxS: np.ndarray, original: Original, shape: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W]: a mask of the image's square, in the pixels of its file; shape: (H, W)."""
    aspect = decode.pixel_of(original.image).aspect
    return decode.original_mask(mask_SxS, shape[1], shape[0], aspect)
