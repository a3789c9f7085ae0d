"""Volumes enter as slices: which slices a cell of the manifest stands for, and whose they are.

    image                  stands for
    scan.nii.gz            every axial slice of the volume, `scan.nii.gz#0`, `scan.nii.gz#1`, ...
    scan.nii.gz#12         that one
    series/                every DICOM image of the folder, in the order of their positions
    series/0001.dcm        that one

Slices of one volume belong to one patient, so that they are never split between training and test:
the `patient` cell's, else the DICOM header's PatientID, else the volume itself stands for one.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.data.folder import decode, dicom, nifti


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


class Place(NamedTuple):
    """Where a slice lies in a patient: mm, to the right, front and head.

    corner:   the middle of its first pixel; () where the file does not say.
    row, column: the directions of a row and of a column.
    spacing:  the height and the width of a pixel; () where the file does not say.
    size:     its pixels along a column and along a row.
    step:     the distance to the next slice; infinite where the file does not say.
    """

    corner: Any = ()
    row: Any = ()
    column: Any = ()
    spacing: tuple[float, ...] = ()
    size: tuple[int, int] = (1, 1)
    step: float = np.inf


def slices(root: pathlib.Path, path: str) -> list[Slice]:
    """What a path of the manifest, relative to `root`, stands for.  Raises ValueError."""
    with decode.one_kind_of_error():
        if (root / path).is_dir():
            return _series(root, path)
        kind = decode.kind_of(root / path)
        if kind == 'dicom':
            return [_dicom(root, path)]
        file = decode.file_of(path)
        if kind != 'nifti':
            return [Slice(path, '', '')]
        if path != file:
            return [Slice(path, file, file)]
        depth = nifti.geometry(str(root / file))[0][2]
        return [Slice(f'{file}#{k}', file, file) for k in range(depth)]


def same_place(root: pathlib.Path, image: str, mask: str) -> bool:
    """Whether an image and its mask show the same places, slice by slice.

    Files that do not say where they lie cannot be compared, and pass: pictures, and DICOM beside
    DICOM if its slices are in order.  NIfTI is turned to front and right when it is read, so DICOM
    beside it has to say where it lies.
    """
    with decode.one_kind_of_error():
        each = [[_place(root, s.path) for s in slices(root, path)] for path in (image, mask)]
        found = [[place for place in places if place is not None] for places in each]
        if any(None in places for places in each):
            return True
        beside_nifti = any(nifti.is_nifti(path) for path in (image, mask))
        if not beside_nifti and not all(len(p.corner) for places in found for p in places):
            return all(_in_order(root, path) for path in (image, mask))
        if len(found[0]) != len(found[1]) or not all(len(p.corner) for ps in found for p in ps):
            return False
        corners = [place.corner for place in found[0]]
        steps = [float(np.linalg.norm(b - a)) for a, b in zip(corners, corners[1:])]
        step = min([found[0][0].step, *(s for s in steps if s > 1e-3)])
        return all(_alike(a, b, step) for a, b in zip(*found))


def _alike(a: Place, b: Place, step: float) -> bool:
    """Whether three corners of the two lie within a quarter of a pixel, and of `step`."""
    spacing = a.spacing or b.spacing or (1.0, 1.0)
    first, second = (
        np.stack([
            place.corner,
            place.corner + place.column * (place.spacing or spacing)[0] * (a.size[0] - 1),
            place.corner + place.row * (place.spacing or spacing)[1] * (a.size[1] - 1),
        ])
        for place in (a, b)
    )
    return np.allclose(first, second, rtol=0, atol=min(*spacing, step) / 4)


def _place(root, path) -> Place | None:
    """None of a plain picture."""
    kind = decode.kind_of(root / path)
    if kind == 'dicom':
        head = dicom.header(root / path)
        if not head.position:
            return Place(spacing=head.spacing, size=head.size)
        to_ras = np.array([-1, -1, 1])
        row, column = np.array(head.orientation).reshape(2, 3) * to_ras
        return Place(np.array(head.position) * to_ras, row, column, head.spacing, head.size)
    if kind != 'nifti':
        return None
    file, k = nifti.parts(str(root / path))
    (width, height, _), affine = nifti.geometry(file)
    # Shown from the patient's right to left and from front to back.
    x, y, step = np.linalg.norm(affine[:3, :3], axis=0)
    corner = affine @ [width - 1, height - 1, k or 0, 1]
    return Place(corner[:3], -affine[:3, 0] / x, -affine[:3, 1] / y, (y, x), (height, width), step)


def _in_order(root, path) -> bool:
    """Whether the places of a series, if known, lie in the order of its numbers."""
    number = [dicom.header(root / s.path).instance for s in slices(root, path)]
    return number == sorted(number)


def _series(root, folder) -> list[Slice]:
    files = [str(f.relative_to(root)) for f in dicom.images(root / folder)]
    if not files:
        raise decode.Problem('a folder without .dcm files: name one image, or a dicom series')
    found = [_dicom(root, file) for file in files]
    series = {s.volume for s in found}
    if len(series) > 1:
        raise decode.Problem(f'{len(series)} dicom series in one folder: a folder for each')
    found.sort(key=lambda s: (_along(root / s.path), s.path))
    return [s._replace(volume=folder, patient=s.patient or folder) for s in found]


def _dicom(root, path) -> Slice:
    head = dicom.header(root / path)
    return Slice(path, head.series, head.patient or head.series, head.study, head.series)


def _along(file) -> float:
    """Where the slice lies in its series."""
    head = dicom.header(file)
    if not head.position:
        return head.instance
    row, column = np.array(head.orientation).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(head.position))
