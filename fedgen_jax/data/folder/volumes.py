"""Volumes enter as slices: which slices a cell of the manifest stands for, and whose they are.

    image                  stands for
    scan.nii.gz            every axial slice of the volume, `scan.nii.gz#0`, `scan.nii.gz#1`, ...
    scan.nii.gz#12         that one
    series/                every `.dcm` of the folder, in the order of their positions
    series/0001.dcm        that one

Slices of one volume belong to one patient, so that they are never split between training and test:
the `patient` cell's, else the DICOM header's PatientID, else the volume itself stands for one.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from fedgen_jax.data.folder import decode


class Slice(NamedTuple):
    """One image of a volume; a field is '' where it has none, or none is known.

    study, series: the UIDs in a DICOM header.  A person's images may lie in many studies, but one
        PatientID in many studies may also be what anonymizing wrote for everybody.
    """

    path: str
    volume: str
    patient: str
    study: str = ''
    series: str = ''


def slices(root: pathlib.Path, path: str) -> list[Slice]:
    """What a path of the manifest, relative to `root`, stands for.  Raises ValueError."""
    with decode.one_kind_of_error():
        if (root / path).is_dir():
            return _series(root, path)
        if path.lower().endswith('.dcm'):
            return [_dicom(root, path)[1]]
        file = decode.file_of(path)
        if not file.lower().endswith(('.nii', '.nii.gz')):
            return [Slice(path, '', '')]
        if path != file:
            return [Slice(path, file, file)]
        depth = _depth(root / file)
        return [Slice(f'{file}#{k}', file, file) for k in range(depth)]


def same_place(root: pathlib.Path, image: str, mask: str) -> bool:
    """Whether slices of the two that have one number show one place; a plain picture always does.

    NIfTI slices are shown as those of an axial series from the feet up: so only these may be mixed.
    """
    with decode.one_kind_of_error():
        spaces = [_space(root, path) for path in (image, mask)]
    if any(space is None for space in spaces):
        return True
    if spaces[0].shape == spaces[1].shape:
        return np.allclose(*spaces, atol=1e-2)
    (orientation,) = (space for space in spaces if space.ndim == 1)
    return np.allclose(orientation, [1, 0, 0, 0, 1, 0], atol=1e-2)


def _space(root, path) -> np.ndarray | None:
    """[4, 4], the affine of a NIfTI file; [6], the orientation of a DICOM one, 0 where unknown."""
    file = root / decode.file_of(path)
    if file.is_dir():
        file = min(f for f in file.iterdir() if f.suffix.lower() == '.dcm')
    name = file.name.lower()
    if name.endswith(('.nii', '.nii.gz')):
        return np.asarray(decode.extra('nibabel').load(file).affine)
    if not name.endswith('.dcm'):
        return None
    header = decode.extra('pydicom').dcmread(file, stop_before_pixels=True)
    known = header.get('ImagePositionPatient') and header.get('ImageOrientationPatient')
    return np.array(header.ImageOrientationPatient, float) if known else np.zeros(6)


def _series(root, folder) -> list[Slice]:
    files = sorted(f for f in (root / folder).iterdir() if f.suffix.lower() == '.dcm')
    if not files:
        raise decode.Problem('a folder without .dcm files: name one image, or a dicom series')
    found = [_dicom(root, str(f.relative_to(root))) for f in files]
    series = {s.volume for _, s in found}
    if len(series) > 1:
        raise decode.Problem(f'{len(series)} dicom series in one folder: a folder for each')
    found = [s for _, s in sorted(found, key=lambda x: x[0])]
    return [s._replace(volume=folder, patient=s.patient or folder) for s in found]


def _dicom(root, path) -> tuple[tuple, Slice]:
    """(where the slice lies in its series, the slice)."""
    header = decode.extra('pydicom').dcmread(root / path, stop_before_pixels=True)
    series, study = (str(header.get(f'{key}InstanceUID') or '') for key in ('Series', 'Study'))
    patient = str(header.get('PatientID') or '') or series
    place = (float(header.get('InstanceNumber') or 0), path)
    if header.get('ImagePositionPatient') and header.get('ImageOrientationPatient'):
        rows, cols = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        place = (float(np.cross(rows, cols) @ np.array(header.ImagePositionPatient, float)), path)
    return place, Slice(path, series, patient, study, series)


def _depth(file) -> int:
    """The number of axial slices, from the header alone."""
    nibabel = decode.extra('nibabel')
    image = nibabel.load(file)
    if len(image.shape) == 2:
        return 1
    if len(image.shape) != 3:
        raise decode.Problem(f'{len(image.shape)} dimensions: save a volume of 3')
    axes = nibabel.io_orientation(image.affine)[:, 0]
    return int(image.shape[list(axes).index(2)])
