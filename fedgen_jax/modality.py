"""What kind of image it is, and the settings that follow from it.

A modality says which mirror images are alike, how scanners differ (the acquisition shifts of
training), what the canonical input takes out, and how the network's input is standardized.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.data.examples import Source
from fedgen_jax.data.folder import decode
from fedgen_jax.data.folder.square import square_frame
from fedgen_jax.data.folder.words import listed
from fedgen_jax.registry import choose


class Modality(NamedTuple):
    """A kind of image.

    fields: of a configuration, each with its value.
    gray:   whether images have no color, which networks that know photographs expect.
    """

    fields: Mapping[str, Any]
    gray: bool = False


def _modality(preset, canonical, flips, turns, standardize='image', gray=False) -> Modality:
    # Strong shifts hide place and size, by which much is told in a body: on radiographs, weak ones
    # are better at centers that did not train.
    strength, zoom = (0.3, 1.1) if gray else (0.5, 1.25)
    fields = {
        'shifts.preset': preset, 'shifts.flips': flips, 'shifts.turns': turns,
        'shifts.acquisition': strength, 'shifts.zoom': zoom, 'shifts.probability': 0.8,
        # The magnification stays: only nuclei of single cells tell how far an image is enlarged.
        'input.canonical': canonical, 'input.zoom': (1.0, 1.0),
        'model.standardize': standardize,
    }
    return Modality(fields, gray)


# Left and right, up and down: where they matter, there are neither flips nor turns.
MODALITIES = {
    'brightfield': _modality('brightfield', 'brightfield', True, True),
    'fundus': _modality('photo', 'fundus', True, False, 'channel'),
    'dermoscopy': _modality('photo', 'none', True, True),
    'xray': _modality('xray', 'gray', False, False, gray=True),
    'mri': _modality('mri', 'gray', False, False, gray=True),
    'ct': _modality('ct', 'gray', False, False, gray=True),
    'ultrasound': _modality('ultrasound', 'gray', True, False, gray=True),
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

    Raises ValueError for any other name, and where the files of centers are of several modalities,
    or say one that is none of these.
    """
    if name != 'auto':
        choose('modality', name, MODALITIES)
        return name, 'as stated'
    first = [p for c in source.centers for p in c.path[:1]]
    said = [_said_by_dicom(root, p) for p in first]
    found = {OF_DICOM[x] for x in said if x in OF_DICOM}
    others = {x for x in said if x and x not in OF_DICOM}
    if len(found) == 1 and not others:
        if all(said):
            return found.pop(), 'as its DICOM files say'
        names = listed([repr(c.name) for c, x in zip(source.centers, said) if x], 3)
        return found.pop(), f'as the DICOM files of {names} say; those of other centers say nothing'
    if found or others:
        raise ValueError(
            f'modality: the DICOM files of centers say {" and ".join(sorted(found | others))}: '
            'state one by --config.modality'
        )
    volumes = [m for p in first if (m := _of_nifti(root, p))]
    if volumes and len(volumes) == len(first):
        if len(set(volumes)) == 1:
            return volumes[0], 'a guess: NIfTI volumes, of which CT has values below -200'
        raise ValueError(
            "modality: some centers' NIfTI volumes have values below -200, as CT has, and some "
            'have none: state one by --config.modality'
        )
    return of_pixels([
        unpadded(np.asarray(image), size) for c in source.centers
        for image, size in zip(c.examples.image[:_PER_CENTER], c.size or [''] * _PER_CENTER)
    ])


def unpadded(image_SxSx3: np.ndarray, size: str) -> np.ndarray:
    """[H, W, 3]: what a square shows of an image of 'width x height', without its black margins."""
    if not size:
        return image_SxSx3
    side, inner = len(image_SxSx3), tuple(map(int, size.split(' x ')))
    width, height = (max(1, round(x * side / max(inner))) for x in inner)
    _, y, x = square_frame(width, height)
    return image_SxSx3[y : y + height, x : x + width]


def of_pixels(images: Sequence[np.ndarray]) -> tuple[str, str]:
    """(modality, why) of images, uint8 [H, W, 3] each, by their colors.

    Gray ones may as well be slices of MR, CT or ultrasound, and colors without a field of view or
    a bright ground any photograph: the reason says that it is a guess.
    """
    x = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float32)
    if np.mean(np.ptp(x, axis=-1)) < 2:
        return 'xray', 'a guess: the images are gray (mri, ct and ultrasound are too)'
    dark = np.mean(np.concatenate([_corners(image) for image in images]).max(-1) < 30) > 0.7
    red, green, blue = np.median(x[x.max(-1) > 40], 0) if np.any(x.max(-1) > 40) else (0, 0, 0)
    if dark and red > green > blue:
        return 'fundus', 'a guess: a reddish field of view on black'
    # Glass without tissue is nearly white.
    if np.percentile(x.min(-1), 90) > 190 or (red > green and blue > 1.05 * green):
        return 'brightfield', 'a guess: colors of a stain'
    return 'dermoscopy', 'a guess: colors, but neither a stain nor a field of view on black'


def _corners(image_HxWx3):
    """[P, 3]: the pixels of the four corners."""
    n = max(1, max(image_HxWx3.shape) // 16)
    rows = np.concatenate([image_HxWx3[:n], image_HxWx3[-n:]])
    return np.concatenate([rows[:, :n], rows[:, -n:]], 1).reshape(-1, 3)


def _said_by_dicom(root: pathlib.Path, path: str) -> str:
    """What a DICOM file says in its tag Modality; '' of other files."""
    file = root / path.partition('#')[0]
    if file.is_dir():
        file = next((f for f in sorted(file.iterdir()) if f.is_file()), file)
    if decode.kind_of(file) != 'dicom':
        return ''
    return decode.modality_of(str(file))


def _of_nifti(root: pathlib.Path, path: str) -> str | None:
    """ct or mri, as the values of a NIfTI volume are; None of other files.

    Nearly all volumes of this form are one or the other, and air has about -1000 in CT.
    """
    file = root / path.partition('#')[0]
    if not file.name.endswith(('.nii', '.nii.gz')):
        return None
    import nibabel  # of the extra `medical`; without it the images could not have been read

    values = np.asarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]
    return 'ct' if values.dtype.fields is None and np.min(values) < -200 else 'mri'
