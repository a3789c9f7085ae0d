"""The public start of a private run: weights and a mean descriptor of drawn smears alone."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.config import base, complete
from fedgen_jax.data import synthetic
from fedgen_jax.data.virtual import SPREAD
from fedgen_jax.files import expand

CENTERS, IMAGES = 8, 64  # drawn centers and images of each, for the mean descriptor


def public_config(c: ConfigDict) -> ConfigDict:
    """The configuration of the public run, in which drawn centers alone are trained on.

    The centers of the data are scored under its weights: what privacy has to be better than.
    """
    made = ConfigDict(c.to_dict())
    made.privacy, made.secure = base().privacy, base().secure
    if made.algorithm == 'local_only':  # it has no server's model to start from
        made.algorithm = 'fedavg'
    made.method = 'public start'
    made.rounds = c.privacy.public_rounds or c.rounds
    made.data.virtual, made.data.virtual_share = c.privacy.public_centers, 1.0
    made.cohort = min(8, c.privacy.public_centers)
    if c.devices and made.cohort % c.devices:
        made.devices = 0  # as many as divide it
    return made


def check_public(c: ConfigDict) -> None:
    """Raises ValueError where `start.weights` is a run that has seen private images.

    A file or a function of weights is taken to be public, as pretrained networks are.
    """
    if not c.start.weights or not expand(c.start.weights).is_dir():
        return
    made = complete(json.loads((expand(c.start.weights) / 'config.json').read_text()))
    drawn = made.data.source == 'synthetic'
    same = drawn and c.data.source == 'synthetic' and made.seed == c.seed
    alone = made.data.virtual_share == 1 and not made.start.weights
    if not alone and (not drawn or same or made.start.weights):
        seen = made.start.weights or made.data.root or 'the same drawn centers'
        raise ValueError(
            f'start.weights={c.start.weights!r}: has seen {seen}, so it is no public start: name a '
            'run of drawn centers alone, or none'
        )


def mean_descriptor(c: ConfigDict, describe: Callable, shared: Mapping[str, Any]) -> np.ndarray:
    """float64 [E]: of drawn smears, other ones than the run's; a release is clipped around it.

    describe: `Program.describe`.
    """
    drawn = c.data.source == 'synthetic'
    spread, first = (c.data.spread, c.data.centers) if drawn else (SPREAD, 0)
    means = []
    for i in range(CENTERS):
        image = synthetic.draw_client(
            jax.random.key(c.seed), first + i, IMAGES, c.data.image_size, spread=spread
        ).image
        means.append(describe(shared, np.asarray(image)).astype(np.float64).mean(0))
    return np.mean(means, 0)
