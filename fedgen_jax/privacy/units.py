"""Whom privacy is promised to: patients, or images where none are known; and their sampling."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

UNITS = ('patient', 'image', 'client')


def patient_table(unit: Sequence[str], per_patient: int) -> tuple[np.ndarray, np.ndarray]:
    """Each patient's images: (int32 [P, G] indices, float32 [P, G], 1 for an image).

    unit: of each image its patient, as `Center.unit`; patients come in the order of their first
        image.
    per_patient: G, the most images of a patient that are used, spread evenly over those there are.
        Which ones depends on no other patient, so a patient who leaves changes no other's row.
    """
    if per_patient < 1:
        raise ValueError(f'privacy.images_per_patient={per_patient}: at least 1')
    own: dict[str, list[int]] = {}
    for i, name in enumerate(unit):
        own.setdefault(name, []).append(i)
    index = np.zeros((len(own), per_patient), np.int32)
    real = np.zeros((len(own), per_patient), np.float32)
    for p, images in enumerate(own.values()):
        n = min(len(images), per_patient)
        index[p, :n] = [images[i * len(images) // n] for i in range(n)]
        real[p, :n] = 1
    return index, real


def cap_of(units: int, rate: float) -> int:
    """Room for a Poisson sample of `units` at `rate`: q n + 5 sqrt(q n), a multiple of 4.

    A larger sample is met once in millions, and is cut to a random part, which is accounted for.
    """
    mean = rate * units
    room = 4 * math.ceil((mean + 5 * math.sqrt(mean)) / 4)
    return min(room, units)


def poisson(
    key: jax.Array, real_P: jax.Array, rate: float, cap: int
) -> tuple[jax.Array, jax.Array]:
    """A truncated Poisson sample: (int32 [cap] places, bool [cap], true where a place is empty).

    Each real unit is in it with probability `rate`, by itself; of a sample larger than `cap` a
    uniformly random part stays (arXiv:2508.15089).
    """
    u_P = jnp.where(real_P > 0, jax.random.uniform(key, real_P.shape), 2.0)
    index = jnp.argsort(u_P)[:cap].astype(jnp.int32)
    return index, u_P[index] >= rate
