"""A small network whose layers below the last ones are frozen, and a run of it."""

import math

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.models import MODELS
from fedgen_jax.models.start import flat

MODEL = {
    'name': 'efficientnet_lite0', 'widths': (4, 4, 4, 8, 8, 8, 8), 'repeats': (1,) * 7,
    'trained': 'head', 'source_norms': True, 'last': 'center', 'norm': 'batch',
    'standardize': 'none',
}
OTHER = np.ones(111, np.float32)  # a descriptor
FIELDS = {k: x for k, x in MODEL.items() if k != 'name'}


def weights():
    """Numbers of the right shapes: to draw them as a model's first would compile it."""
    model = MODELS['efficientnet_lite0'](len(synthetic.CLASSES), **FIELDS)
    blank = np.zeros((1, 32, 32, 3), np.float32)
    shapes = flat(jax.eval_shape(model.init, jax.random.key(5), blank))
    rng = np.random.default_rng(5)

    def of(name, shape):
        if name.endswith(('var', 'scale')):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(0, math.sqrt(2 / math.prod(shape[:-1])) if len(shape) > 1 else 0.1, shape)

    return {name: of(name, x.shape) for name, x in shapes.items()}


def configured(tmp, **changes):
    """Three drawn centers and a small network that begins with `weights`."""
    c = base()
    c.model = ConfigDict(MODEL)
    np.savez(tmp / 'weights.npz', **weights())
    c.update_from_flattened_dict({
        'start.weights': str(tmp / 'weights.npz'), 'data.source': 'synthetic', 'data.centers': 3,
        'data.held_out': 'synthetic-2', 'data.examples': 24, 'data.image_size': 32, 'devices': 1,
        'data.virtual': 0, 'local_steps': 1, 'batch_size': 4, 'rounds': 1,
        'input.canonical': 'brightfield', 'fedgen.modes': ('features', 'head'), **changes,
    })
    return c
