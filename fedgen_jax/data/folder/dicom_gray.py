"""The gray values of DICOM: what the tags for rescaling and windows make of stored numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.data.folder.reading import Problem, to_unit

NO_WINDOW = 'DICOM without a window: black and white are the ends of what its bits can hold'
HOUNSFIELD = 'CT without a window: -1024 HU is black, 3071 HU white'
ABSENT = 'a window or rescale tag that is empty, or a window of no width: taken as absent'
MANY_SCALES = 'gray scales that differ within a series: one was used for all its images'
OF_SERIES = (
    'DICOM without a window, whose numbers have no white of their own (PET, or a scale of its own '
    'in each slice): white is the largest of the series'
)
PADDED = 'DICOM whose PixelPaddingValue fills what was not imaged: it is black, and in no scale'
ALONE = (
    'PET or scintigraphy without a window, one image of its series: its gray values cannot be '
    'compared with those of others'
)

TAGS = (
    'BitsStored', 'HighBit', 'Modality', 'ModalityLUTSequence', 'PixelPaddingRangeLimit',
    'PixelPaddingValue', 'PixelRepresentation', 'RescaleIntercept', 'RescaleSlope',
    'VOILUTFunction', 'VOILUTSequence', 'WindowCenter', 'WindowWidth',
)


class Table(NamedTuple):
    """A lookup table: the number of its first entry, the entries, and the largest they may be."""

    first: int
    entries: np.ndarray
    largest: int


class Scale(NamedTuple):
    """From stored numbers to gray.

    slope, intercept, lookup: give the physical value.
    low, high: the physical values that are black and white; NaN where nothing says.
    sigmoid:   whether a sigmoid lies between them, not a line.
    table:     a VOI lookup table, in place of them.
    given:     whether the file gives a window or a table.
    modality:  such as 'CT'.
    said:      where black and white come from, if not from the file.
    """

    slope: float = 1.0
    intercept: float = 0.0
    lookup: Table | None = None
    low: float = np.nan
    high: float = np.nan
    sigmoid: bool = False
    table: Table | None = None
    given: bool = False
    modality: str = ''
    said: tuple[str, ...] = ()


def numbers(dataset, tag: str) -> tuple[float, ...]:
    """A tag's numbers; () where it is absent, or empty as anonymizing leaves it."""
    value = dataset.get(tag)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    return tuple(float(x) for x in np.atleast_1d(np.array(value, float)))


def scale_of(dataset) -> tuple[Scale, tuple[str, ...]]:
    """The scale that a file gives to itself, and what was assumed."""
    tags = ('WindowCenter', 'WindowWidth', 'RescaleSlope', 'RescaleIntercept')
    centers, widths, slope, intercept = given = [numbers(dataset, tag) for tag in tags]
    empty = any(tag in dataset and not value for tag, value in zip(tags, given))
    if slope and slope[0] == 0:
        raise Problem('RescaleSlope 0 makes all pixels one: correct the tag')
    scale = Scale(
        slope[0] if slope else 1.0,
        intercept[0] if intercept else 0.0,
        _table(dataset, 'ModalityLUTSequence'),
        modality=str(dataset.get('Modality') or ''),
    )
    windows = [(center, width) for center, width in zip(centers, widths) if width > 0]
    assumed = (empty or (bool(centers or widths) and not windows)) * (ABSENT,)
    if windows:
        return _window(scale, *windows[0], str(dataset.get('VOILUTFunction') or 'LINEAR')), assumed
    ranged = _range(dataset, scale, is_ct=bool(slope) and scale.modality == 'CT')
    table = _table(dataset, 'VOILUTSequence')
    if not table:
        return ranged, assumed
    if table.first >= 2**15 and ranged.low < 0:  # a negative number in a tag that holds none
        table = table._replace(first=table.first - 2**16)
    return scale._replace(table=table, given=True), assumed


def padding_of(dataset) -> tuple[float, float] | None:
    """The least and largest stored number that fill what was not imaged; None: none does.

    The tags hold 16 bits, signed as the pixels are, which some writers forget.
    """
    signed, ends = bool(dataset.get('PixelRepresentation')), list[float]()
    for tag in ('PixelPaddingValue', 'PixelPaddingRangeLimit'):
        value = dataset.get(tag)
        found = (
            (float(int.from_bytes(value[:2], 'little')),) if isinstance(value, bytes) and value
            else numbers(dataset, tag)
        )
        if not found and not ends:
            return None
        ends += [(x + 2**15) % 2**16 - 2**15 if signed else x % 2**16 for x in found[:1]]
    return min(ends), max(ends)


def common(scales: Sequence[Scale]) -> Scale:
    """The one scale of a series: the widest of its windows, else of its ranges; else a table."""
    given = [s for s in scales if s.given] or scales
    lines = [s for s in given if s.table is None] or given
    found = {(s.low, s.high, s.sigmoid, s.table and s.table.entries.tobytes()) for s in scales}
    return lines[0]._replace(
        low=min(s.low for s in lines),
        high=max(s.high for s in lines),
        said=(*lines[0].said, *(len(found) > 1) * (MANY_SCALES,)),
    )


def are_relative(scales: Sequence[Scale]) -> bool:
    """Whether the numbers of a series have no white of their own: no range of bits tells it."""
    kinds = {s.modality for s in scales}
    slopes = {(s.slope, s.intercept) for s in scales}
    given = any(s.given for s in scales)
    return not given and (bool(kinds & {'PT', 'NM'}) or (len(slopes) > 1 and 'CT' not in kinds))


def rescale(stored: np.ndarray, scale: Scale) -> np.ndarray:
    """From stored numbers to physical values."""
    if scale.lookup:
        return _look_up(stored, scale.lookup)
    return stored.astype(np.float64) * scale.slope + scale.intercept


def to_gray(x: np.ndarray, scale: Scale) -> np.ndarray:
    """From physical values to gray, float64 in [0, 1]."""
    if scale.table:
        return _look_up(x, scale.table) / scale.table.largest
    if np.isnan(scale.low):
        raise Problem('neither a window nor BitsStored says what is white: add a window')
    unit = to_unit(x, scale.low, scale.high)
    if scale.sigmoid:  # it reaches beyond both
        middle, width = (scale.low + scale.high) / 2, scale.high - scale.low
        return (1 + np.tanh(2 * (x - middle) / width)) / 2
    return unit


def _window(scale, center, width, function):
    if function not in ('LINEAR', 'LINEAR_EXACT', 'SIGMOID'):
        raise Problem(f'VOILUTFunction {function}: use LINEAR, LINEAR_EXACT or SIGMOID')
    # LINEAR counts integers, from the first to the last; below a width of 1 it has no meaning.
    half, shift = (
        ((width - 1) / 2, 0.5) if function == 'LINEAR' and width >= 1 else (width / 2, 0.0)
    )
    low, high = center - shift - half, center - shift + half
    return scale._replace(low=low, high=high, sigmoid=function == 'SIGMOID', given=True)


def _range(dataset, scale, is_ct):
    """The range that the stored integers have after rescaling; of a CT, its usual 12 bits."""
    bits = numbers(dataset, 'BitsStored')
    scale = scale._replace(said=(NO_WINDOW,))
    if not bits:
        return scale
    if scale.lookup:
        return scale._replace(low=0.0, high=float(scale.lookup.largest))
    least = -(2 ** (bits[0] - 1)) if dataset.get('PixelRepresentation') else 0.0
    ends = [x * scale.slope + scale.intercept for x in (least, least + 2 ** bits[0] - 1)]
    low, high = min(ends), max(ends)
    if is_ct and (low < -1024 or high > 3071) and low < 3071 and high > -1024:
        return scale._replace(low=max(low, -1024.0), high=min(high, 3071.0), said=(HOUNSFIELD,))
    return scale._replace(low=low, high=high)


def _table(dataset, tag) -> Table | None:
    """The first lookup table of a sequence."""
    items = dataset.get(tag)
    if not items:
        return None
    number, first, bits = (int(x) for x in items[0].LUTDescriptor)
    entries, number = items[0].LUTData, number or 2**16
    if isinstance(entries, bytes):
        width = 1 if len(entries) < 2 * number else 2
        little = dataset.original_encoding[1] is not False
        entries = np.frombuffer(entries, f'{"<" if little else ">"}u{width}')
    entries = np.asarray(entries, np.uint16)[:number]
    if len(entries) < number or not 8 <= bits <= 16:
        raise Problem(
            f'{tag}: {len(entries)} of {number} entries of {bits} bits: correct the table'
        )
    if entries.max() >= 2**bits:
        raise Problem(f'{tag}: entries above {2**bits - 1}, though of {bits} bits: correct it')
    return Table(first, entries, 2**bits - 1)


def _look_up(x, table):
    x = np.asarray(x, np.float64)
    if not np.all(np.isfinite(x)):
        raise Problem('NaN or infinite pixels: correct the image')
    i = np.clip(np.rint(x) - table.first, 0, len(table.entries) - 1)
    return table.entries[i.astype(np.int64)]
