"""The shifts that training uses, and how a batch goes through one."""

import jax

from fedgen_jax.shifts.base import Params, Shift, Target, chain, sometimes
from fedgen_jax.shifts.color import color_matrix, gamma, hed_stain
from fedgen_jax.shifts.field import bias_field
from fedgen_jax.shifts.geometry import flip, quarter_turns
from fedgen_jax.shifts.noise import sensor
from fedgen_jax.shifts.optics import lens


def plain(flips: bool = True, turns: bool = True) -> Shift:
    """Augmentation, not acquisition: flips left to right and quarter turns, drawn for each
    (square) image.

    Both reach all eight orientations, equally often.
    """
    return chain(*([flip(vertical=False)] if flips else []), *([quarter_turns()] if turns else []))


def acquisition(strength: float = 1.0, edge: str = 'reflect') -> Shift:
    """The virtual centers of training: stain, tone curve, illumination, optics (magnification,
    blur, resolution), camera color and noise.

    Each happens at half of the virtual centers, independently. About 0.1 ms for a 48x48
    image on one CPU core (`benchmarks/shifts.py`): there is no FFT, and what needs exp and log
    comes before the matrix products, where XLA keeps it in vectorized loops.

    Args:
      strength: scales all ranges; 0 changes nothing.
      edge: what surrounds a shrunk image; 'nearest' for detection (see `magnification`).
    """
    s = strength
    return chain(
        sometimes(hed_stain(scale=0.4 * s, bias=0.06 * s)),
        sometimes(gamma(1.5**-s, 1.5**s)),
        sometimes(bias_field(0.3 * s)),
        lens(
            zoom=(1.33**-s, 1.33**s),
            blur=(-0.8 * s, 1.2 * s),
            resolution=(2.0**-s, 1.0),
            probability=0.5,
            edge=edge,
        ),
        sometimes(color_matrix(mix=0.08 * s, gain=0.12 * s, bias=0.05 * s)),
        sometimes(sensor(shot=0.05 * s, readout=0.03 * s)),
    )


# The virtual centers of training, by name: (strength, edge) -> Shift.
PRESETS = {'brightfield': acquisition}


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
