"""From one file, or what one holds, to pixels: an RGB image, or a mask of class numbers.

png, jpeg and tiff are read by Pillow; dicom (one slice a file, known by its content) by pydicom
and nifti (`vol.nii.gz#12` is axial slice 12) by nibabel, which are optional.  Functions raise
ValueError with what is wrong and the way out; the caller adds where.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.data.folder import dicom, nifti, pictures
from fedgen_jax.data.folder.dicom_gray import Scale
from fedgen_jax.data.folder.reading import Picture, Problem, Window, extra, one_kind_of_error
from fedgen_jax.data.folder.square import (
    original_boxes,
    original_mask,
    square_boxes,
    square_frame,
    square_image,
    square_mask,
    square_pixels,
)

__all__ = [
    'NOT_SQUARE', 'SUFFIXES', 'Picture', 'Pixel', 'Problem', 'check_suffix', 'extra', 'file_of',
    'kind_of', 'Window', 'modality_of', 'one_kind_of_error', 'open_image', 'original_boxes',
    'original_mask',
    'pixel_of', 'plain_path', 'read_image', 'read_mask', 'read_values', 'scale_of_series',
    'square_boxes', 'square_frame', 'square_image', 'square_mask',
]

SUFFIXES = (*pictures.SUFFIXES, '.dcm', *nifti.SUFFIXES)
NOT_SQUARE = 'pixels that are not square: resampled by their spacing'


class Pixel(NamedTuple):
    """What a file's header says of its pixels.

    aspect:  the height by the width.
    spacing: mm, the height and the width; () where the file does not say.
    """

    aspect: float = 1.0
    spacing: tuple[float, ...] = ()


def file_of(path: str) -> str:
    """The file that `path` names: without the '#k' that picks a slice of a nifti volume."""
    return nifti.parts(path)[0]


def plain_path(path: str) -> str:
    """A normalized path, the same for all ways to write one image."""
    return nifti.plain(str(pathlib.PurePosixPath(path)))


def kind_of(path: str | os.PathLike) -> str:
    """'picture', 'nifti' or 'dicom': by suffix, else by content; '' if it is none of them."""
    name = str(path).lower()
    if name.endswith(pictures.SUFFIXES):
        return 'picture'
    if nifti.is_nifti(name):
        return 'nifti'
    found = name.endswith('.dcm') or (os.path.isfile(path) and dicom.is_dicom(path))
    return 'dicom' if found else ''


def check_suffix(path: str, root: str | os.PathLike = '') -> None:
    """That the file `path` below `root`, or its content, is of a type that is read."""
    if not kind_of(os.path.join(root, path)):
        known = ' '.join(SUFFIXES)
        raise ValueError(f'{path!r} is of no type that is read: save it as one of {known}')


def scale_of_series(paths: Sequence[str]) -> Scale | None:
    """The gray scale of all images of a DICOM series, for `open_image`; of others None."""
    with one_kind_of_error():
        return dicom.scale_of_series(paths) if kind_of(paths[0]) == 'dicom' else None


def open_image(
    path: str | bytes | np.ndarray, scale: Scale | None = None, window: Window | None = None
) -> Picture:
    """The picture in a file, or in a slice of one, and what was assumed to read it.

    path:  of the file; or the content of a png, jpeg or tiff; or pixels, uint8 [H, W] or
        [H, W, 1 or 3].
    scale:  of the series that it belongs to; default: its own.
    window: what is black and white of gray files of more than 8 bits, in place of the rules below.

    Integers of 16 bits are scaled from their full range, or from the bits that the file says it
    uses, and floats from [0, 1] or [0, 255]; transparent pixels lie on white.  Dicom: rescale and
    window of the files, else their stored range; padding is black.  Nifti has no units: the 0.5 and
    99.5 percentiles of the volume become black and white, or those of what is not background in a
    sparse one.  No scale is fitted to a single image: its brightness is part of the shift between
    centers.
    """
    with one_kind_of_error():
        kind = kind_of(path) if isinstance(path, str) else 'picture'
        if isinstance(path, str) and kind == 'dicom':
            picture = dicom.read_image(path, scale, window)
        elif isinstance(path, str) and kind == 'nifti':
            picture = nifti.read_image(path, window)
        else:
            picture = pictures.read_image(path, window)
        square_pixels(*picture.image.size, picture.aspect)
    if _is_square(picture.aspect):
        return picture._replace(aspect=1.0)
    return picture._replace(assumed=(*picture.assumed, NOT_SQUARE))


def _is_square(aspect: float) -> bool:
    return abs(aspect - 1) < 1e-3  # as digits are rounded


def pixel_of(path: str) -> Pixel:
    """The size of a file's pixels, from its header alone.

    DICOM: PixelSpacing, else that at the detector or of the film.  NIfTI: the affine, in mm unless
    the header names another unit.  Other files: pixels are square, and of no known size.
    """
    with one_kind_of_error():
        match kind_of(path):
            case 'dicom':
                head = dicom.header(path)
                pixel = Pixel(head.aspect, head.spacing)
            case 'nifti':
                spacing = nifti.spacing(path)
                pixel = Pixel(spacing[0] / spacing[1], spacing)
            case _:
                pixel = Pixel()
    return pixel._replace(aspect=1.0) if _is_square(pixel.aspect) else pixel


def modality_of(path: str) -> str:
    """What a DICOM file says in its tag Modality, such as 'CT'; '' if nothing."""
    with one_kind_of_error():
        return dicom.header(path).scale.modality


def read_values(path: str | bytes | np.ndarray) -> np.ndarray | None:
    """[H, W]: the numbers of a gray file of more than 8 bits, which a window is of; else None."""
    with one_kind_of_error():
        kind = kind_of(path) if isinstance(path, str) else 'picture'
        if isinstance(path, str) and kind == 'dicom':
            return dicom.read_values(path)
        if isinstance(path, str) and kind == 'nifti':
            return nifti.read_values(path)
        return pictures.read_values(path)


def read_image(path: str) -> Image.Image:
    """The image that `open_image` finds, on the gray scale of this file alone."""
    return open_image(path).image


def read_mask(path: str, num_classes: int) -> np.ndarray:
    """A uint8 [H, W] mask of classes 0..num_classes-1, and `UNKNOWN`."""
    with one_kind_of_error():
        match kind_of(path):
            case 'dicom':
                mask = dicom.read_mask(path)
            case 'nifti':
                mask = nifti.read_values(path)
            case _:
                mask = pictures.read_mask(path)
    if mask.ndim != 2:
        raise ValueError(f'{mask.shape[2]} channels: save the mask as one channel of class numbers')
    whole = mask.dtype.kind in 'biu'
    if not whole and (not np.all(np.isfinite(mask)) or np.any(mask != np.rint(mask))):
        raise ValueError('values that are no whole numbers: save the number of the class a pixel')
    values = np.unique(mask)
    bad = [int(v) for v in values if not (0 <= v < num_classes or v == UNKNOWN)]
    if bad:
        raise ValueError(
            f'class {bad[0]}, but mask_classes has {num_classes} names (0 to {num_classes - 1}; '
            f'{UNKNOWN}: unknown): correct the mask or classes.json'
        )
    return mask.astype(np.uint8)
