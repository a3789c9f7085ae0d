"""Drawn centers, described as a run's own are: their class mixes and scanners are on record."""

from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.audit.base import Subject
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS, Examples
from fedgen_jax.data.virtual import SPREAD
from fedgen_jax.evaluate import canonical
from fedgen_jax.public import mean_descriptor

MOST_IMAGES, SEED = 120, 20_000
SCANNER = (
    'stain of azure', 'stain of eosin', 'stain of hemoglobin', 'red light', 'green light',
    'blue light', 'magnification', 'defocus', 'tone curve', 'noise', 'glare',
)
PUBLIC, FAR = 4, 10_000  # centers of the public mean, and the number of their first


class Drawn(NamedTuple):
    """Drawn centers: g_psi of their images [C, N, E], class shares [C, K], scanners [C, A]."""

    vectors: np.ndarray
    shares: np.ndarray
    scanner: np.ndarray


def scanner_of(key: jax.Array, client: int, spread: float) -> np.ndarray:
    """A drawn center's scanner [A], in logarithms: the numbers of `SCANNER`."""
    a = jax.device_get(synthetic.client_acquisition(key, client, spread))
    parts = (
        a.stain_3x3.mean(1), a.illuminant_3, a.magnification, a.defocus, a.gamma, a.noise, a.glare
    )
    return np.concatenate([np.log(np.ravel(x)) for x in parts])


def draw(subject: Subject, centers: int, images: int, first: int = 0) -> Drawn:
    """Centers that the run has not met, described as its own are; first: the number of the first.
    """
    trained, c = subject.trained, subject.run.config
    spread = c.data.spread if c.data.source == 'synthetic' else SPREAD
    key, vectors, shares, scanner = jax.random.key(c.seed + SEED), [], [], []
    for i in range(first, first + centers):
        drawn = jax.device_get(synthetic.draw_client(
            key, i, images, c.data.image_size, spread=spread
        ))
        own = Examples(drawn.image, {}, drawn.weight)
        moved = canonical(trained, own, own)
        assert trained.program.describe
        vectors.append(trained.program.describe(trained.shared, moved.image))
        count = np.bincount(drawn.target['label'], minlength=len(synthetic.CLASSES))
        shares.append(count / images)
        scanner.append(scanner_of(key, i, spread))
    return Drawn(np.stack(vectors), np.stack(shares), np.stack(scanner))


def usual_images(subject: Subject) -> int:
    """How many training images a center of the run has, in the middle, up to `MOST_IMAGES`."""
    train = SPLITS.index('train')
    size = np.median([(c.split == train).sum() for c in subject.run.seen])
    return min(MOST_IMAGES, int(size))


def public_mean(subject: Subject) -> np.ndarray:
    """float64 [E]: what a private run would clip its descriptors around.

    Of a run whose canonical input is made towards its own centers, which is never private, it is
    the mean of drawn centers on it.
    """
    program = subject.run.program
    if program.input is None or subject.run.config.input.reference == 'drawn':
        return mean_descriptor(subject.run.config, program, subject.trained.shared)
    found = draw(subject, PUBLIC, usual_images(subject), FAR)
    return found.vectors.astype(np.float64).mean((0, 1))
