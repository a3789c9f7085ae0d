"""Federations of drawn and of real images, and a configuration that compiles in seconds."""

import numpy as np
import pytest
from drawn import centers

from configs.common import base
from fedgen_jax.data.examples import stack, take
from fedgen_jax.data.source import load


@pytest.fixture(scope='session')
def tiny():
    """tiny({'field.name': value, ...}) -> a configuration."""

    def make(changes):
        c = base()
        c.model.widths, c.local_steps, c.batch_size, c.fedgen.support = (8,), 2, 8, 8
        c.client.lr, c.client.momentum, c.client.clip = 0.05, 0.9, 0.0
        c.update_from_flattened_dict(changes)
        return c

    return make


SIZES = (12, 9, 7, 10, 5)


@pytest.fixture(scope='session')
def cells():
    """5 to 12 drawn images of each of five centers, 16 pixels, stacked [5, 12, ...]."""
    drawn = centers(5, max(SIZES), 16)
    only_labels = [c.examples._replace(target={'label': c.examples.target['label']}) for c in drawn]
    return stack([take(e, np.arange(n)) for e, n in zip(only_labels, SIZES)])


@pytest.fixture(scope='session')
def real_cells(data_root, tmp_path_factory):
    """The same of real images."""
    source = load(data_root / 'wbc_cls', 16, 0, tmp_path_factory.getbasetemp() / 'store')
    rng = np.random.default_rng(0)
    return stack([
        take(c.examples, rng.permutation(len(c.split))[:n]) for c, n in zip(source.centers, SIZES)
    ])
