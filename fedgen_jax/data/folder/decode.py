"""From one file to pixels: an RGB image, or a mask of class numbers, made square.

png, jpeg and tiff are read by Pillow; dicom (`.dcm`, one slice a file) by pydicom and nifti
(`vol.nii.gz#12` is axial slice 12) by nibabel, which are optional.  Functions raise ValueError
with what is wrong and the way out; the caller adds where.
"""

import contextlib
import functools
import importlib
import os
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from fedgen_jax.data.examples import UNKNOWN

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.dcm', '.nii', '.nii.gz')
_NIFTI = re.compile(r'(?P<file>.*\.nii(\.gz)?)(#(?P<slice>\d+))?', re.IGNORECASE)


def file_of(path: str) -> str:
    """The file that `path` names: without the '#k' that picks a slice of a nifti volume."""
    match = _NIFTI.fullmatch(path)
    return match['file'] if match else path


def check_suffix(path: str) -> None:
    if not file_of(path).lower().endswith(SUFFIXES):
        known = ' '.join(SUFFIXES)
        raise ValueError(f'{path!r} is of no type that is read: save it as one of {known}')


class Picture(NamedTuple):
    """An 8-bit RGB image, and what was assumed to read it: fixed sentences, one for each kind."""

    image: Image.Image
    assumed: tuple[str, ...] = ()


def open_image(path: str) -> Picture:
    """The picture in a file, or in a slice of one; see `read_image`."""
    return Picture(read_image(path))


def read_image(path: str) -> Image.Image:
    """An 8-bit RGB image.

    Integers of 16 bits are scaled from their full range and floats from [0, 1] or [0, 255];
    transparent pixels lie on white.  Dicom: rescale and window of the file, else its stored range.
    Nifti has no units: the 0.5 and 99.5 percentiles of the volume become black and white.
    No scale is fitted to a single image: its brightness is part of the shift between centers.
    """
    kind = file_of(path).lower()
    with one_kind_of_error():
        if kind.endswith('.dcm'):
            return _to_rgb(_read_dicom(path))
        if kind.endswith(('.nii', '.nii.gz')):
            return _to_rgb(_read_nifti(path, window=True))
        return _to_rgb(_read_pillow(path))


def read_mask(path: str, num_classes: int) -> np.ndarray:
    """A uint8 [H, W] mask of classes 0..num_classes-1, and `UNKNOWN`."""
    kind = file_of(path).lower()
    with one_kind_of_error():
        if kind.endswith('.dcm'):
            mask = _dicom_pixels(path)[1]
        elif kind.endswith(('.nii', '.nii.gz')):
            mask = _read_nifti(path, window=False)
        else:
            mask = np.asarray(_read_pillow(path))
    if mask.ndim != 2:
        raise ValueError(f'{mask.shape[2]} channels: save the mask as one channel of class numbers')
    if not np.all(np.isfinite(mask)) or np.any(mask != np.rint(mask)):
        raise ValueError('values that are no whole numbers: save the number of the class a pixel')
    values = np.unique(mask)
    bad = [int(v) for v in values if not (0 <= v < num_classes or v == UNKNOWN)]
    if bad:
        raise ValueError(
            f'class {bad[0]}, but mask_classes has {num_classes} names (0 to {num_classes - 1}; '
            f'{UNKNOWN}: unknown): correct the mask or classes.json'
        )
    return mask.astype(np.uint8)


def square_image(image: Image.Image, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: padded with black to a centered square, resized with antialiasing."""
    side, y0, x0 = square_frame(*image.size)
    canvas = Image.new('RGB', (side, side))
    canvas.paste(image, (x0, y0))
    return np.array(canvas.resize((size, size), Image.Resampling.BICUBIC))


def square_mask(mask_HxW: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size]: padded with `UNKNOWN` to a centered square; of each pixel, most of it.

    The nearest pixel would be half a pixel off where the size is halved.
    """
    height, width = mask_HxW.shape
    side, y0, x0 = square_frame(width, height)
    canvas = np.full((side, side), UNKNOWN, np.uint8)
    canvas[y0 : y0 + height, x0 : x0 + width] = mask_HxW
    values = np.unique(canvas)
    cover = [
        Image.fromarray((canvas == v).astype(np.float32)).resize((size, size), Image.Resampling.BOX)
        for v in values
    ]
    return values[np.argmax(np.stack(cover), axis=0)]


def square_boxes(box_Mx4: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """float32 [M, 4] boxes (y0, x0, y1, x1), moved from a width x height image to its square."""
    side, y0, x0 = square_frame(width, height)
    offset = np.array([y0, x0, y0, x0], np.float32)
    return ((box_Mx4 + offset) * np.float32(size / side)).astype(np.float32)


def original_boxes(box_Mx4: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """The inverse of `square_boxes`, clipped to the image."""
    side, y0, x0 = square_frame(width, height)
    offset = np.array([y0, x0, y0, x0], np.float32)
    limit = np.array([height, width, height, width], np.float32)
    return np.clip(np.asarray(box_Mx4) * np.float32(side / size) - offset, 0, limit)


def square_frame(width: int, height: int) -> tuple[int, int, int]:
    """The side of the centered square around an image, and where the image lies in it (y, x)."""
    side = max(width, height)
    return side, (side - height) // 2, (side - width) // 2


class Problem(ValueError):
    """A problem that already says the way out."""


@contextlib.contextmanager
def one_kind_of_error():
    """Raises whatever a reader raises as a ValueError that says the way out."""
    try:
        yield
    except Problem:
        raise
    except Exception as error:  # readers raise nearly every type on a malformed file
        raise ValueError(
            f'does not decode ({type(error).__name__}: {error}): replace the file, or remove '
            'the row'
        ) from error


def _read_pillow(path: str) -> Image.Image:
    with Image.open(path, formats=('PNG', 'JPEG', 'TIFF')) as image:
        frames = getattr(image, 'n_frames', 1)
        if frames > 1:
            raise Problem(f'{frames} pages in one file: save the one you want by itself')
        image.load()
        return image


def _to_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert('RGB')
    if image.mode.startswith('I'):
        x = np.asarray(image).astype(np.int64)
        if x.min() < 0 or x.max() > 65535:
            raise Problem('integers outside 0 to 65535: save the image with 8 or 16 bits')
        return Image.fromarray(np.rint(x / 257).astype(np.uint8)).convert('RGB')
    if image.mode == 'F':
        x = np.asarray(image)
        if not np.all(np.isfinite(x)):
            raise Problem('NaN or infinite pixels: correct the image')
        if x.min() < 0 or x.max() > 255:
            raise Problem('floats outside [0, 1] and [0, 255]: save the image with 8 or 16 bits')
        x = np.rint(x * (255 if x.max() <= 1 else 1))
        return Image.fromarray(x.astype(np.uint8)).convert('RGB')
    if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image.convert('RGB')


def extra(module: str):
    """A module of the `medical` extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition('.')[0]
        raise Problem(f"needs {name}: pip install 'fedgen_jax[medical]'") from error


def _dicom_pixels(path: str):
    dataset = extra('pydicom').dcmread(path)
    if int(dataset.get('NumberOfFrames', 1) or 1) > 1:
        raise Problem('several frames in one dicom file: save one slice a file')
    return dataset, dataset.pixel_array


def _read_dicom(path: str) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3]."""
    dataset, stored = _dicom_pixels(path)
    if stored.ndim == 3:
        if stored.dtype != np.uint8:
            raise Problem(f'color of type {stored.dtype}: save it with 8 bits')
        return stored
    if not dataset.PhotometricInterpretation.startswith('MONOCHROME'):
        raise Problem(f'{dataset.PhotometricInterpretation} pixels: save as gray or RGB')
    pixels = extra('pydicom.pixels')
    bits = dataset.BitsStored
    low = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    # The window maps to the range that the stored integers have after rescaling.
    limits = pixels.apply_modality_lut(np.array([[low, low + 2**bits - 1]]), dataset)
    x = pixels.apply_windowing(pixels.apply_modality_lut(stored, dataset), dataset)
    x = _to_unit(x, limits.min(), limits.max())
    if dataset.PhotometricInterpretation == 'MONOCHROME1':
        x = 1 - x
    return np.rint(x * 255).astype(np.uint8)


def _read_nifti(path: str, window: bool) -> np.ndarray:
    """[H, W]: uint8 if windowed, else the values themselves."""
    match = _NIFTI.fullmatch(path)
    volume, low, high = _load_volume(match['file'], os.stat(match['file']).st_mtime_ns)
    depth = volume.shape[2]
    if match['slice'] is None and depth > 1:
        raise Problem(f'a volume of {depth} slices: name one, like {os.path.basename(path)}#0')
    k = int(match['slice'] or 0)
    if k >= depth:
        raise Problem(f'no slice {k}: the volume has slices 0 to {depth - 1}')
    # Rows from anterior to posterior, columns from the patient's right: as dicom slices lie.
    x = np.rot90(volume[:, :, k])[:, ::-1]
    return np.rint(_to_unit(x, low, high) * 255).astype(np.uint8) if window else x


@functools.lru_cache(maxsize=2)  # the slices of a volume and of its masks follow one another
def _load_volume(file: str, mtime_ns: int):
    del mtime_ns  # part of the key: an edited file is read again
    nibabel = extra('nibabel')
    volume = np.asarray(nibabel.as_closest_canonical(nibabel.load(file)).dataobj, np.float32)
    volume = volume[..., None] if volume.ndim == 2 else volume
    if volume.ndim != 3:
        raise Problem(f'{volume.ndim} dimensions: save a volume of 3')
    if not np.all(np.isfinite(volume)):
        raise Problem('NaN or infinite voxels: correct the volume')
    return volume, *np.percentile(volume, [0.5, 99.5])


def _to_unit(x: np.ndarray, low: float, high: float) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if not (np.all(np.isfinite(x)) and np.isfinite(low) and np.isfinite(high)):
        raise Problem('NaN or infinite pixels: correct the image')
    return np.clip((x - low) / max(high - low, 1e-12), 0, 1)
