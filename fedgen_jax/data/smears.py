"""Drawn smears that stand for what everybody knows of smears: no run trains on or scores them."""

import functools

import jax
import numpy as np

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import Examples
from fedgen_jax.data.virtual import SPREAD

CENTERS, IMAGES = 24, 32  # drawn centers, and images of each
FIRST = 1_000_000  # number of the first center: beyond all that a run draws


@functools.lru_cache(maxsize=2)
def smears(image_size: int) -> tuple[Examples, ...]:
    """uint8 [32, S, S, 3] of each of 24 drawn centers, the same for every run and seed."""
    found = []
    for i in range(FIRST, FIRST + CENTERS):
        drawn = synthetic.draw_client(jax.random.key(0), i, IMAGES, image_size, spread=SPREAD)
        found.append(Examples(np.asarray(drawn.image), {}, np.ones(IMAGES, np.float32)))
    return tuple(found)
