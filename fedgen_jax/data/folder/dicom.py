"""DICOM: one slice a file, on one gray scale for all slices of its series."""

import functools
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fedgen_jax.data.folder import dicom_gray
from fedgen_jax.data.folder.dicom_gray import numbers
from fedgen_jax.data.folder.reading import (
    UNWINDOWED,
    Picture,
    Problem,
    Window,
    extra,
    to_rgb,
    to_unit,
)

_SPACING = ('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing')
_HEADER = (
    'PatientID', 'StudyInstanceUID', 'SeriesInstanceUID', 'InstanceNumber', 'NumberOfFrames',
    'Rows', 'Columns', 'ImagePositionPatient', 'ImageOrientationPatient', *_SPACING,
    'PixelAspectRatio', 'SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence',
    *dicom_gray.TAGS,
)
_COLORS = ('RGB', 'YBR_FULL', 'YBR_FULL_422', 'YBR_ICT', 'YBR_RCT')
# Its tracebacks and warnings: what matters is raised.
logging.getLogger('pydicom').addHandler(logging.NullHandler())
logging.getLogger('pydicom').propagate = False

# JPEG, JPEG-LS, JPEG 2000 and HTJ2K with loss; the last two may be without, if the file says so.
_LOSSY = ('1.2.840.10008.1.2.4.50', '1.2.840.10008.1.2.4.51', '1.2.840.10008.1.2.4.81')
_PERHAPS_LOSSY = ('1.2.840.10008.1.2.4.91', '1.2.840.10008.1.2.4.203')


class Header(NamedTuple):
    """What is read of a file without its pixels; '' and () where it says nothing.

    has_pixels:  false of an index of a disc, a report, a plan.
    size:        rows and columns.
    position:    mm, of the middle of the first pixel; to the left, back and head of the patient.
    orientation: the directions of a row and of a column.
    spacing:     mm, the height and the width of a pixel.
    aspect:      the height by the width.
    padding:     as `dicom_gray.padding_of`.
    """

    patient: str
    study: str
    series: str
    has_pixels: bool
    size: tuple[int, int]
    instance: float
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    aspect: float
    padding: tuple[float, float] | None
    scale: dicom_gray.Scale
    assumed: tuple[str, ...]


def is_dicom(file) -> bool:
    """By content: with the preamble, or without it a header that names what it is."""
    with open(file, 'rb') as stream:
        start = stream.read(132)
    if start[128:] == b'DICM':
        return True
    if start[:2] not in (b'\2\0', b'\b\0'):
        return False
    dcmread = extra('pydicom').dcmread
    try:
        dataset = dcmread(file, force=True, stop_before_pixels=True)
    except Exception:  # it looked like a header and is none
        return False
    return 'SOPClassUID' in dataset or 'Rows' in dataset


def images(folder) -> list:
    """The DICOM images of a folder, by name: every `.dcm`, and what is one by content."""
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith('.'))
    return [
        f for f in files if f.suffix.lower() == '.dcm' or (is_dicom(f) and header(f).has_pixels)
    ]


def header(file) -> Header:
    return _header(str(file), os.stat(file).st_mtime_ns)


def scale_of_series(files: Sequence[str]) -> dicom_gray.Scale:
    """The gray scale that the images of a series share, from their headers.

    Where these cannot say what is white, it is the largest number of the series; black is 0, or
    the lowest.  A single image keeps the range of its bits: else its brightness would be lost.
    """
    scales = [header(file).scale for file in files]
    scale = dicom_gray.common(scales)
    if not dicom_gray.are_relative(scales):
        return scale
    if len(files) < 2:
        return scale._replace(said=(dicom_gray.ALONE,))
    low, high = 0.0, 0.0
    for file, own in zip(files, scales):
        stored = _pixels(file)[1]
        x = dicom_gray.rescale(stored, own)[~_is_padding(stored, header(file))]
        if not x.size:
            continue
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    return scale._replace(low=low, high=high, said=(dicom_gray.OF_SERIES,))


def read_image(
    path: str, scale: dicom_gray.Scale | None = None, window: Window | None = None
) -> Picture:
    """Rescaled and windowed as the file says; without a window, the range of its bits.

    scale:  of its series, so that one physical value is one gray in all; default: of this file.
    window: in place of both, in rescaled values.
    """
    dataset, stored = _pixels(path)
    head = header(path)
    if stored.ndim == 3:
        return Picture(_color(dataset, stored), (UNWINDOWED,) * bool(window), head.aspect)
    kind = dataset.PhotometricInterpretation
    if not kind.startswith('MONOCHROME'):
        raise Problem(f'{kind} pixels: save as gray or RGB')
    scale = scale or head.scale
    x = dicom_gray.rescale(stored, head.scale)
    unit = to_unit(x, *window) if window else dicom_gray.to_gray(x, scale)
    unit = 1 - unit if kind == 'MONOCHROME1' else unit
    padding = _is_padding(stored, head)
    unit = np.where(padding, 0.0, unit)
    assumed = () if window else head.assumed + scale.said
    assumed += (dicom_gray.PADDED,) * bool(padding.any())
    return Picture(to_rgb(unit), assumed, head.aspect)


def read_values(path: str) -> np.ndarray | None:
    """[H, W]: the rescaled numbers, NaN where nothing was imaged; None of color."""
    _, stored = _pixels(path)
    if stored.ndim == 3:
        return None
    head = header(path)
    return np.where(_is_padding(stored, head), np.nan, dicom_gray.rescale(stored, head.scale))


def _is_padding(stored: np.ndarray, head: Header) -> np.ndarray:
    least, most = head.padding or (np.inf, -np.inf)
    return (stored >= least) & (stored <= most)


def read_mask(path: str) -> np.ndarray:
    """[H, W]: the rescaled numbers."""
    dataset, stored = _pixels(path)
    syntax, lossy = dataset.file_meta.TransferSyntaxUID, dataset.get('LossyImageCompression')
    if syntax in _LOSSY or (syntax in _PERHAPS_LOSSY and lossy != '00'):
        raise Problem('compressed with loss, which makes numbers of other classes: export the '
                      'mask again without')
    return dicom_gray.rescale(stored, header(path).scale)


def _read(path, **keywords):
    """The dataset; that of a single frame that has groups as if it had none."""
    dcmread = extra('pydicom').dcmread
    if not is_dicom(path):
        raise Problem('is no DICOM file: replace the file, or leave it out')
    dataset = dcmread(path, force=True, **keywords)
    if int(dataset.get('NumberOfFrames') or 1) > 1:
        raise Problem('several frames in one dicom file: save one slice a file')
    stored, high = dataset.get('BitsStored'), dataset.get('HighBit')
    if None not in (stored, high) and high >= stored:
        raise Problem(f'HighBit {high} of {stored} BitsStored: save them as the lowest bits')
    for groups in ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence'):
        for element in (dataset.get(groups) or [()])[0]:
            if element.VR == 'SQ' and element.value:
                dataset.update(element.value[0])
    return dataset


def _pixels(path):
    dataset = _read(path)
    uid = extra('pydicom.uid')
    if not dataset.file_meta.get('TransferSyntaxUID'):  # without preamble: as it could be parsed
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = (
            uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = extra('pydicom.pixels').get_decoder(syntax)
    except NotImplementedError:
        raise Problem(
            f'pixels as {syntax.name}: save them without compression'
        ) from None
    if not decoder.is_available:
        raise Problem(f"pixels as {syntax.name}: pip install 'fedgen_jax[medical]'")
    return dataset, dataset.pixel_array


def _color(dataset, stored):
    kind = dataset.PhotometricInterpretation
    if kind not in _COLORS:
        raise Problem(f'{kind} pixels: save as gray or RGB')
    if stored.dtype != np.uint8:
        raise Problem(f'color of type {stored.dtype}: save it with 8 bits')
    return Image.fromarray(stored).convert('RGB')


@functools.lru_cache(maxsize=2**10)
def _header(file, mtime_ns):
    del mtime_ns  # part of the key: an edited file is read again
    dataset = _read(file, stop_before_pixels=True, specific_tags=list(_HEADER))
    place = [numbers(dataset, f'Image{tag}Patient') for tag in ('Position', 'Orientation')]
    spacing = next((s for tag in _SPACING if (s := _pair(dataset, tag))), ())
    height, width = spacing or _pair(dataset, 'PixelAspectRatio') or (1, 1)
    return Header(
        *(str(dataset.get(tag) or '') for tag in _HEADER[:3]),
        'Rows' in dataset,
        (int(dataset.get('Rows') or 1), int(dataset.get('Columns') or 1)),
        (numbers(dataset, 'InstanceNumber') or (0.0,))[0],
        *(place if [len(x) for x in place] == [3, 6] else ((), ())),
        spacing,
        height / width,
        dicom_gray.padding_of(dataset),
        *dicom_gray.scale_of(dataset),
    )


def _pair(dataset, tag):
    """Height and width of a pixel, if both are numbers above 0."""
    pair = numbers(dataset, tag)
    return pair if len(pair) == 2 and min(pair) > 0 and np.all(np.isfinite(pair)) else ()
