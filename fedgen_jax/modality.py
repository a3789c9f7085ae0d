"""What kind of image it is, and the settings that follow from it.

A modality says which mirror images are alike, how scanners differ (the acquisition shifts of
training), what the canonical input takes out, and how the network's input is standardized.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.data.examples import Source
from fedgen_jax.registry import choose


class Modality(NamedTuple):
    """A kind of image.

    device: what takes the images, in the words of a report.
    fields: of a configuration, each with its value.
    gray:   whether images have no color, which networks that know photographs expect.
    """

    device: str
    fields: Mapping[str, Any]
    gray: bool = False


def _fields(preset, flips, turns, canonical, standardize) -> dict[str, Any]:
    return {
        'shifts.preset': preset, 'shifts.flips': flips, 'shifts.turns': turns,
        'shifts.acquisition': 0.5, 'shifts.zoom': 1.25, 'shifts.probability': 0.8,
        # The magnification stays: only nuclei of single cells tell how far an image is enlarged.
        'input.canonical': canonical, 'input.zoom': (1.0, 1.0),
        'model.standardize': standardize,
    }


MODALITIES = {
    'brightfield': Modality(
        'microscope', _fields('brightfield', True, True, 'brightfield', 'image')
    ),
    'fundus': Modality('fundus camera', _fields('photo', True, False, 'fundus', 'channel')),
    'dermoscopy': Modality('camera', _fields('photo', True, True, 'none', 'image')),
    'xray': Modality('X-ray machine', _fields('xray', False, False, 'gray', 'image'), True),
    'mri': Modality('MR scanner', _fields('mri', False, False, 'gray', 'image'), True),
    'ct': Modality('CT scanner', _fields('ct', False, False, 'gray', 'image'), True),
    'ultrasound': Modality(
        'ultrasound machine', _fields('ultrasound', True, False, 'gray', 'image'), True
    ),
}

# The attribute Modality of a DICOM file.
OF_DICOM = {
    'CR': 'xray', 'DX': 'xray', 'MG': 'xray', 'RG': 'xray', 'XA': 'xray', 'RF': 'xray',
    'MR': 'mri', 'CT': 'ct', 'US': 'ultrasound', 'OP': 'fundus', 'SM': 'brightfield',
    'GM': 'brightfield', 'XC': 'dermoscopy', 'DMS': 'dermoscopy', 'ES': 'dermoscopy',
}
_PER_CENTER = 8  # images that are looked at


def choose_modality(name: str, source: Source, root: pathlib.Path) -> tuple[str, str]:
    """(modality, why); name: one of `MODALITIES`, or auto, which looks at the files.

    Raises ValueError for any other name.
    """
    if name != 'auto':
        choose('modality', name, MODALITIES)
        return name, 'as stated'
    found = {m for c in source.centers for p in c.path[:1] if (m := _of_dicom(root, p))}
    if len(found) == 1:
        return found.pop(), 'as its DICOM files say'
    images = np.concatenate([np.asarray(c.examples.image[:_PER_CENTER]) for c in source.centers])
    return of_pixels(images)


def of_pixels(image_NxHxWx3: np.ndarray) -> tuple[str, str]:
    """(modality, why) of uint8 images, by their colors.

    Gray ones may as well be slices of MR, CT or ultrasound, and colors without a field of view or
    a bright ground any photograph: the reason says that it is a guess.
    """
    x = image_NxHxWx3.astype(np.float32)
    if np.mean(np.ptp(x, axis=-1)) < 2:
        return 'xray', 'a guess: the images are gray (mri, ct and ultrasound are too)'
    n = max(1, x.shape[1] // 16)
    corners = np.stack([x[:, :n, :n], x[:, :n, -n:], x[:, -n:, :n], x[:, -n:, -n:]])
    dark = np.mean(corners.max(-1) < 30) > 0.7
    red, green, blue = np.median(x[x.max(-1) > 40], 0) if np.any(x.max(-1) > 40) else (0, 0, 0)
    if dark and red > green > blue:
        return 'fundus', 'a guess: a reddish field of view on black'
    # Glass without tissue is nearly white.
    if np.percentile(x.min(-1), 90) > 190 or (red > green and blue > 1.05 * green):
        return 'brightfield', 'a guess: colors of a stain'
    return 'dermoscopy', 'a guess: colors, but neither a stain nor a field of view on black'


def _of_dicom(root: pathlib.Path, path: str) -> str | None:
    """The modality that a DICOM file names; None of other files."""
    try:
        import pydicom  # of the extra `medical`
    except ImportError:
        return None
    file = root / path.partition('#')[0]
    if file.is_dir():
        file = next((f for f in sorted(file.iterdir()) if f.is_file()), file)
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=['Modality'])
    except Exception:  # not DICOM, or one that decoding will complain about
        return None
    return OF_DICOM.get(str(header.get('Modality', '')))
