"""NIfTI volumes: `vol.nii.gz#12` is axial slice 12, counted from the feet up."""

import functools
import os
import re
from collections.abc import Sequence

import numpy as np

from fedgen_jax.data.folder.reading import (
    Picture,
    Problem,
    Window,
    black_and_white,
    extra,
    to_rgb,
    to_unit,
)

SUFFIXES = ('.nii', '.nii.gz')
_PATH = re.compile(r'(?P<file>.*\.nii(\.gz)?)(#(?P<slice>\d+))?', re.IGNORECASE)


def plain(path: str) -> str:
    """`path` with the slice as it is written elsewhere: 'v.nii#01' is 'v.nii#1'."""
    file, k = parts(path)
    return file if k is None else f'{file}#{k}'


def parts(path: str) -> tuple[str, int | None]:
    """The file that `path` names, and the slice after '#'."""
    match = _PATH.fullmatch(path)
    if not match:
        return path, None
    return match['file'], None if match['slice'] is None else int(match['slice'])


def is_nifti(path: str) -> bool:
    return _PATH.fullmatch(path) is not None


def read_image(path: str, window: Window | None = None) -> Picture:
    """One slice, on the gray scale of its whole volume, or of a window."""
    volume, aspect = _load(*_key(path))
    low, high, assumed = (*window, ()) if window else _grays(*_key(path))
    return Picture(to_rgb(to_unit(_slice(volume, path), low, high)), assumed, aspect)


def read_values(path: str) -> np.ndarray:
    """[H, W]: the numbers of one slice."""
    return _slice(_load(*_key(path))[0], path)


def geometry(file: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine [4, 4] (to mm, RAS) of the volume turned to right, front, up: no voxel read.

    Slices are shown with rows from front to back and columns from the patient's right.
    """
    return _geometry(*_key(file))


@functools.lru_cache(maxsize=16)
def _geometry(file, mtime_ns):
    del mtime_ns  # part of the key: an edited file is read again
    nibabel = extra('nibabel')
    image = nibabel.load(file)
    shape = _three(image.shape)
    turn = nibabel.io_orientation(image.affine)
    affine = image.affine @ nibabel.orientations.inv_ornt_aff(turn, shape)
    order = np.argsort(turn[:, 0])
    return tuple(shape[i] for i in order), affine


def spacing(path: str) -> tuple[float, float]:
    """mm, the height and the width of a pixel of a slice: no voxel is read."""
    return _spacing(*_key(path))


def write_mask(file: str | os.PathLike, like: str, slices: Sequence[np.ndarray]) -> None:
    """Writes a mask on the voxels of the volume `like`, in its orientation and with its affine.

    slices: uint8 [H, W] of all of its slices, in order, as they are shown.
    """
    nibabel = extra('nibabel')
    image = nibabel.load(like)
    shown = np.stack(slices, -1)[:, ::-1].astype(np.uint8)
    volume = np.rot90(shown, -1)  # to right, front and up
    turn = nibabel.io_orientation(image.affine)
    back = nibabel.orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), turn)
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header['cal_min'] = header['cal_max'] = 0
    voxels = nibabel.apply_orientation(volume, back).reshape(_three(image.shape))
    nibabel.save(type(image)(voxels, image.affine, header), file)


@functools.lru_cache(maxsize=16)
def _spacing(file, mtime_ns):
    unit = extra('nibabel').load(file).header.get_xyzt_units()[0]
    x, y, _ = np.linalg.norm(_geometry(file, mtime_ns)[1][:3, :3], axis=0)
    scale = {'meter': 1e3, 'micron': 1e-3}.get(unit, 1.0)  # of unknown ones: mm, as is the custom
    return float(y * scale), float(x * scale)


def _three(shape) -> tuple[int, int, int]:
    """A shape of three axes: one slice, or further axes of 1, as converters write them."""
    shape = tuple(shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3):
        raise Problem(f'{len(shape)} dimensions: save a volume of 3')
    return shape if len(shape) == 3 else (*shape, 1)


def _key(path):
    file = parts(path)[0]
    return file, os.stat(file).st_mtime_ns


@functools.lru_cache(maxsize=2)  # the slices of a volume and of its masks follow one another
def _load(file: str, mtime_ns: int):
    """(float32 [X, Y, Z] to right, front and up; pixel height by width)."""
    del mtime_ns  # part of the key: an edited file is read again
    nibabel = extra('nibabel')
    image = nibabel.load(file)
    dtype = image.get_data_dtype()
    if dtype.kind not in 'iufb':
        raise Problem(f'voxels of type {dtype}: save one real number a voxel')
    shape = _three(image.shape)
    if shape != image.shape:
        voxels = np.asanyarray(image.dataobj).reshape(shape)
        image = type(image)(voxels, image.affine, image.header)
    image = nibabel.as_closest_canonical(image)
    volume = np.asarray(image.dataobj, np.float32)
    if not np.all(np.isfinite(volume)):
        raise Problem('NaN or infinite voxels: correct the volume')
    width, height, _ = nibabel.affines.voxel_sizes(image.affine)
    if not (width > 0 and height > 0):
        raise Problem(f'voxels of {width:g} x {height:g} mm: correct the affine')
    return volume, float(height / width)


@functools.lru_cache(maxsize=2)
def _grays(file: str, mtime_ns: int):
    """(black, white, assumed) of a volume; a mask has no need of them."""
    return black_and_white(_load(file, mtime_ns)[0])


def _slice(volume, path):
    file, k = parts(path)
    depth = volume.shape[2]
    if k is None and depth > 1:
        raise Problem(f'a volume of {depth} slices: name one, like {os.path.basename(file)}#0')
    k = k or 0
    if k >= depth:
        raise Problem(f'no slice {k}: the volume has slices 0 to {depth - 1}')
    return np.rot90(volume[:, :, k])[:, ::-1]
