"""A small finished run to attack."""

import pytest

from fedgen_jax.audit import subject_of
from fedgen_jax.config import base
from fedgen_jax.train import train


@pytest.fixture(scope='session')
def subject(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('attacked')
    c = base()
    c.data.source, c.data.centers, c.data.examples, c.data.image_size = 'synthetic', 4, 40, 16
    c.data.held_out, c.data.cache, c.devices = 'synthetic-3', str(tmp / 'store'), 1
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 2, 4
    c.fedgen.support, c.fedgen.modes = 4, ('film',)
    train(c, tmp / 'run', progress=False)
    return subject_of(tmp / 'run')
