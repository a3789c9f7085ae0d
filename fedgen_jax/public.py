"""The public start of a private run: weights, statistics and means of drawn smears alone.

Weights are trained by Adam on the mean gradient over a few drawn centers a round: one step of each
center, and Adam at the server.  A private run has few rounds, too few for a start by averaging.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.canonical import Input, mean_moments, on_canonical, own_change
from fedgen_jax.config import base, complete
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import Examples
from fedgen_jax.data.smears import smears
from fedgen_jax.data.virtual import SPREAD
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.files import expand, read_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.models.layers import LAST_NORM, last_features, statistics_of
from fedgen_jax.models.start import flat

CENTERS, IMAGES = 8, 64  # drawn centers and images of each, for the mean descriptor
ROUNDS = 500  # of the public run
SCALE = 100.0  # of the gradients that Adam gets: its epsilon is small beside them


def public_config(c: ConfigDict) -> ConfigDict:
    """The configuration of the public run, in which drawn centers alone are trained on.

    The centers of the data are scored under its weights: what privacy has to be better than.
    """
    made = ConfigDict(c.to_dict())
    made.privacy, made.secure = base().privacy, base().secure
    if made.algorithm == 'local_only':  # it has no server's model to start from
        made.algorithm = 'fedavg'
    made.method, made.tracker = 'public start', ''
    made.rounds = c.privacy.public_rounds or ROUNDS
    made.eval_every = made.checkpoint_every = -(-made.rounds // 4)
    made.local_steps = 1
    made.client.update({
        'optimizer': 'sgd', 'lr': SCALE, 'momentum': 0.0, 'clip': 0.0, 'schedule': 'constant',
    })
    made.server.update({'optimizer': 'adam', 'lr': c.privacy.public_lr, 'average': 0.2})
    made.weighting = 'uniform'
    if c.task == 'classification':
        made.prevalence = 'balanced'
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
    made = complete(read_json(expand(c.start.weights) / 'config.json'))
    if made.input.canonical != 'none' and made.input.reference != 'drawn':
        raise ValueError(
            f'start.weights={c.start.weights!r}: its canonical input is the mean of the centers it '
            'was trained on: name a run with --config.input.reference=drawn'
        )
    drawn = made.data.source == 'synthetic'
    same = drawn and c.data.source == 'synthetic' and made.seed == c.seed
    begun = made.start.weights if not _pretrained(made.start.weights) else ''
    alone = made.data.virtual_share == 1 and not begun
    if not alone and (not drawn or same or begun):
        seen = begun or made.data.root or 'the same drawn centers'
        raise ValueError(
            f'start.weights={c.start.weights!r}: has seen {seen}, so it is no public start: name a '
            'run of drawn centers alone, or none'
        )


def _pretrained(weights: str) -> bool:
    """Whether start weights are a file's or a function's, and no run's."""
    return bool(weights) and not expand(weights).is_dir() and (
        ':' in weights or expand(weights).is_file()
    )


def mean_descriptor(c: ConfigDict, program: Any, shared: Mapping[str, Any]) -> np.ndarray:
    """float64 [E]: of drawn smears, other ones than the run's; a release is clipped around it.

    program: a `Program` with a descriptor.
    """
    drawn = c.data.source == 'synthetic'
    spread, first = (c.data.spread, c.data.centers) if drawn else (SPREAD, 0)
    found = []
    for i in range(CENTERS):
        image = np.asarray(synthetic.draw_client(
            jax.random.key(c.seed), first + i, IMAGES, c.data.image_size, spread=spread
        ).image)
        found.append(Examples(image, {}, np.ones(len(image), np.float32)))
    moved = of_smears(program.input, c.data.image_size, found)
    means = [program.describe(shared, x.image).astype(np.float64).mean(0) for x in moved]
    return np.mean(means, 0)


def of_smears(made: Input | None, image_size: int, drawn: Sequence[Examples]) -> list[Examples]:
    """Drawn centers on canonical input, each by its own moments, towards those of `smears`."""
    if made is None:
        return list(drawn)
    reference_M = mean_moments(made, smears(image_size))
    return [on_canonical(made, own_change(made, reference_M, x), x) for x in drawn]


def with_drawn_statistics(
    model: nn.Module, start: dict, made: Input | None, image_size: int, named: str
) -> dict:
    """`start` with the statistics of the last features that `smears` have under its weights.

    made: the canonical input.  named: what tells it from others.
    """
    place = (repr(model), image_size, named, descriptor.hash_of(flat(start)))
    if place not in _TAKEN:
        @jax.jit
        def features(variables, image):
            return last_features(model, variables, images_of(image), False)[1]

        moved = of_smears(made, image_size, smears(image_size))
        of_each = [in_chunks(features, start, x.image) for x in moved]
        _TAKEN[place] = jax.device_get(statistics_of(jnp.asarray(np.concatenate(of_each))))
    statistics = {**start['batch_stats'], LAST_NORM: _TAKEN[place]}
    return {**start, 'batch_stats': statistics}


_TAKEN: dict[tuple, dict] = {}  # statistics, once a process
