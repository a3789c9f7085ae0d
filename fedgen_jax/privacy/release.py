"""A descriptor that leaves its center once, with noise: a `Statistic` as any other.

    total = n * mu + sum over patients of clip(mean over the patient's images of
            clip(g_psi(x) - mu, R)) + noise,        count = n patients

in whole numbers of 1 / FIXED_POINT.  mu is public (the mean of drawn smears), and so near to what
centers have that R is a tenth of what a vector may be long: so much less noise is needed.  The
noise is the center's own and lies in what is summed, so that adding, removing and replacing
centers stays exact, on released values (`hypernet.descriptor`).

Sensitivity, of the patient whose images become nothing while n stays: R, and half a whole number
in each of E coordinates for the rounding of the patient's part.
"""

import math

import numpy as np

from fedgen_jax.hypernet.descriptor import FIXED_POINT, Statistic
from fedgen_jax.privacy.accounting import Charge
from fedgen_jax.privacy.noise import discrete_gaussian


def clipped_around(vectors_NxE: np.ndarray, center_E: np.ndarray, radius: float) -> np.ndarray:
    """float64 [N, E]: differences to a center, none longer than `radius`; NaN counts as none."""
    gap_NxE = np.nan_to_num(np.asarray(vectors_NxE, np.float64) - center_E, posinf=0, neginf=0)
    norm_Nx1 = np.linalg.norm(gap_NxE, axis=1, keepdims=True)
    return gap_NxE * np.minimum(1.0, radius / np.maximum(norm_Nx1, 1e-300))


def exact_total(
    vectors_NxE: np.ndarray,
    table: tuple[np.ndarray, np.ndarray],
    center_E: np.ndarray,
    radius: float,
) -> np.ndarray:
    """int64 [E]: the patients' sum around the center, before noise.

    table: (int32 [P, G], float32 [P, G]), as `units.patient_table`.
    """
    index_PxG, real_PxG = table
    gap_NxE = clipped_around(vectors_NxE, center_E, radius)
    own_PxE = (real_PxG[..., None] * gap_NxE[index_PxG]).sum(1)
    own_PxE /= np.maximum(real_PxG.sum(1, keepdims=True), 1)
    return np.rint(own_PxE * FIXED_POINT).astype(np.int64).sum(0)


def sensitivity_of(radius: float, size: int) -> float:
    """L2, in whole numbers, of `exact_total` with E = `size`."""
    if not 0 < radius <= 2:
        raise ValueError(f'privacy.descriptor_radius={radius}: above 0, and at most 2')
    return radius * FIXED_POINT + math.sqrt(size) / 2


def deviation_of(sigma: float, radius: float, size: int) -> int:
    """The noise's standard deviation, in whole numbers, of a noise multiplier."""
    return math.ceil(sigma * sensitivity_of(radius, size))


def descriptor_charge(sigma: float, radius: float, size: int, count: int = 1) -> Charge:
    """What `count` releases of a center are charged; sensitivity in the unit of g_psi."""
    grain = deviation_of(sigma, radius, size)
    sensitivity = sensitivity_of(radius, size) / FIXED_POINT
    return Charge('descriptor', 'discrete gaussian', sigma, sensitivity, count, grain=grain)


def release(
    vectors_NxE: np.ndarray,
    table: tuple[np.ndarray, np.ndarray],
    center_E: np.ndarray,
    radius: float,
    sigma: float,
    key: bytes,
    psi: str,
    unit: str,
) -> Statistic:
    """A center's statistic as it leaves.

    vectors_NxE: g_psi of its images.  key: `secrets.stream_key` of this release alone.
    """
    total = exact_total(vectors_NxE, table, center_E, radius)
    deviation = deviation_of(sigma, radius, len(total))
    noise = discrete_gaussian(key, deviation, len(total))
    patients = len(table[0])
    base = np.rint(np.asarray(center_E, np.float64) * FIXED_POINT).astype(np.int64)
    return Statistic(patients * base + total + noise, patients, psi, unit, deviation**2)
