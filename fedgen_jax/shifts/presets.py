"""The shifts that training uses, a preset for each modality, and how a batch goes through one."""

import jax
from ml_collections import ConfigDict

from fedgen_jax.registry import look_up
from fedgen_jax.shifts.base import Params, Shift, Target, chain, sometimes
from fedgen_jax.shifts.color import (
    brightness,
    color_matrix,
    contrast,
    gamma,
    hed_stain,
    monochrome,
)
from fedgen_jax.shifts.field import bias_field, collimation
from fedgen_jax.shifts.geometry import flip, magnification, quarter_turns
from fedgen_jax.shifts.noise import gaussian, rician, sensor, speckle
from fedgen_jax.shifts.optics import lens


def plain(flips: bool = True, turns: bool = True) -> Shift:
    """Augmentation, not acquisition: flips left to right and quarter turns, drawn for each
    (square) image.

    Both reach all eight orientations, equally often.
    """
    return chain(*([flip(vertical=False)] if flips else []), *([quarter_turns()] if turns else []))


def brightfield(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """Stained specimens under a microscope: stain, tone curve, illumination, optics
    (magnification, blur, resolution), camera color and noise.

    Each happens at half of the virtual centers, independently, as in all presets.  About 0.1 ms
    for a 48x48 image on one CPU core (`benchmarks/shifts.py`): there is no FFT, and what needs exp
    and log comes before the matrix products, where XLA keeps it in vectorized loops.

    Args:
      strength: scales all ranges; 0 changes nothing.
      edge: what surrounds a shrunk image; 'nearest' for detection (see `magnification`).
    """
    s = strength
    return chain(
        sometimes(hed_stain(scale=0.4 * s, bias=0.06 * s)),
        sometimes(gamma(1.5**-s, 1.5**s)),
        sometimes(bias_field(0.3 * s)),
        _optics(s, edge),
        sometimes(color_matrix(mix=0.08 * s, gain=0.12 * s, bias=0.05 * s)),
        sometimes(sensor(shot=0.05 * s, readout=0.03 * s)),
    )


def photo(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """Color photographs, of the skin, the retina or through an endoscope: tone curve, white
    balance, uneven light, optics and noise.  Arguments as of `brightfield`.
    """
    s = strength
    return chain(
        sometimes(gamma(1.6**-s, 1.6**s)),
        sometimes(bias_field(0.4 * s)),
        _optics(s, edge),
        sometimes(color_matrix(mix=0.08 * s, gain=0.3 * s, bias=0.05 * s)),
        sometimes(sensor(shot=0.05 * s, readout=0.03 * s)),
    )


def xray(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """Projection radiographs: tone curve, contrast, heel effect, resolution, noise, and black
    borders where the beam was collimated.  Arguments as of `brightfield`.
    """
    s = strength
    return chain(
        sometimes(gamma(1.8**-s, 1.8**s)),
        sometimes(contrast(1.4**-s, 1.4**s)),
        sometimes(bias_field(0.3 * s)),
        _optics(s, edge),
        sometimes(sensor(shot=0.046 * s, readout=0.023 * s, gray=True)),
        sometimes(collimation(0.12 * s)),
        monochrome(),
    )


def mri(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """Magnetic resonance: a coil's sensitivity, contrast of the sequence, resolution, and the
    noise of a magnitude.  Arguments as of `brightfield`.
    """
    s = strength
    return chain(
        sometimes(gamma(1.8**-s, 1.8**s)),
        sometimes(contrast(1.4**-s, 1.4**s)),
        sometimes(bias_field(0.6 * s)),
        _optics(s, edge),
        sometimes(rician(high=0.046 * s, gray=True)),
        monochrome(),
    )


def ct(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """Computed tomography: window, kernel (blur and sharpening), resolution and dose.  Arguments
    as of `brightfield`.
    """
    s = strength
    return chain(
        sometimes(contrast(1.4**-s, 1.4**s)),
        sometimes(brightness(-0.12 * s, 0.12 * s)),
        _optics(s, edge),
        sometimes(gaussian(high=0.046 * s, gray=True)),
        monochrome(),
    )


def ultrasound(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """Ultrasound: compression of the dynamic range, gain over depth, resolution and speckle.
    Arguments as of `brightfield`.
    """
    s = strength
    return chain(
        sometimes(gamma(1.8**-s, 1.8**s)),
        sometimes(bias_field(0.5 * s)),
        _optics(s, edge),
        sometimes(speckle(high=0.144 * s, gray=True)),
        monochrome(),
    )


def _optics(s, edge):
    return lens(
        zoom=(1.33**-s, 1.33**s), blur=(-0.8 * s, 1.2 * s), resolution=(2.0**-s, 1.0),
        probability=0.5, edge=edge,
    )


# The virtual centers of training, by name: (strength, edge) -> Shift.
PRESETS = {
    'brightfield': brightfield, 'photo': photo, 'xray': xray, 'mri': mri, 'ct': ct,
    'ultrasound': ultrasound,
}


def apply_batch(
    shift: Shift, params: Params, key: jax.Array, images_BxHxWx3: jax.Array, target_B: Target
) -> tuple[jax.Array, Target]:
    """The images of one virtual center: params shared, a key of its own for each image.

    Args:
      images_BxHxWx3: float32 in [0, 1].
      target_B: a dict of arrays that lead with B; may be empty.
    """
    keys_B = jax.random.split(key, len(images_BxHxWx3))
    return jax.vmap(shift.apply, (None, 0, 0, 0))(params, keys_B, images_BxHxWx3, target_B)


def virtual_centers(c: ConfigDict, edge: str) -> Shift:
    """The acquisition shifts of training; nothing where their strengths are 0 and 1.

    c: `shifts` of a configuration.  edge: as of `magnification`.
    """
    shifts = []
    if c.zoom != 1:
        shifts.append(sometimes(magnification(1 / c.zoom, c.zoom, edge), 0.5))
    if c.acquisition:
        preset = look_up('shifts.preset', c.preset, PRESETS)
        shifts.append(preset(c.acquisition, edge))
    shift = chain(*shifts)
    return sometimes(shift, c.probability) if shifts and c.probability < 1 else shift
