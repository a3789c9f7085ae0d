"""A small private run of drawn centers, which tests of them share: fixtures, and what they read."""

import collections
import csv
import shutil

import numpy as np
import pytest
from drawn import cells_folder

from fedgen_jax.budget import ledger_file
from fedgen_jax.config import base
from fedgen_jax.privacy.ledger import read_ledger
from fedgen_jax.train import train

SEEN = ('synthetic-0', 'synthetic-1', 'synthetic-2')


@pytest.fixture(scope='package')
def cells(tmp_path_factory):
    """A folder of four drawn centers, whose patients have two images each."""
    root = cells_folder(tmp_path_factory.mktemp('cells') / 'root', 4, 40, 16)
    with open(root / 'manifest.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    number = {}
    for row in rows:
        of = row['center'], row['split']
        number[of] = number.get(of, -1) + 1
        row['patient'] = f'{row["center"]} {row["split"]} {number[of] // 2}'
    with open(root / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def configured(cells, tmp, **changes):
    c = base()
    c.data.root, c.data.cache = str(cells), str(tmp / 'store')
    c.data.held_out, c.data.image_size, c.devices = 'synthetic-3', 16, 1
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 2, 4
    c.eval_every = c.checkpoint_every = 1
    c.weighting, c.fedgen.support, c.fedgen.modes = 'uniform', 4, ('film',)
    c.data.virtual_examples, c.shifts.acquisition = 16, 0.0
    c.privacy.public_centers, c.privacy.public_rounds = 2, 2
    c.privacy.secrets = str(tmp / 'keys')
    c.privacy.update({'unit': 'patient', 'delta': 1e-3, 'rate': 0.5})
    c.update_from_flattened_dict(changes)
    return c


Finished = collections.namedtuple('Finished', 'config workdir summary')


@pytest.fixture(scope='package')
def finished(cells, tmp_path_factory):
    tmp = tmp_path_factory.mktemp('private')
    c = configured(cells, tmp, **{'privacy.updates': 1})
    return Finished(c, tmp / 'run', train(c, tmp / 'run', progress=False))


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished.workdir, tmp_path / 'run')


def alike(a, b):
    """The share of equal numbers; of independent noise in whole numbers one may be by chance."""
    return np.mean(a == b)


def ledgers_of(workdir):
    return [read_ledger(ledger_file(workdir, name)) for name in SEEN]
