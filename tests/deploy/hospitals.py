"""Three hospitals of drawn cells, each with a folder of its own, and one folder of all."""

import csv
import json
import shutil
from typing import NamedTuple

from drawn import cells_folder
from ml_collections import ConfigDict

from configs.common import base

NAMES = ('synthetic-0', 'synthetic-1', 'synthetic-2')


class Hospitals(NamedTuple):
    """root: the folder of all; own: {name: its own}; settings: the file that all have."""

    root: object
    own: dict
    settings: object


def hospitals(folder, config):
    """Writes their folders, and the settings of a run between them."""
    root = cells_folder(folder / 'all', len(NAMES), 20, 16)
    own = {name: own_folder(root, name, folder / name) for name in NAMES}
    settings = folder / 'settings.json'
    settings.write_text(json.dumps(config.to_dict(), default=list))
    return Hospitals(root, own, settings)


def own_folder(root, name, folder):
    """A center's rows and images of `root`, as it has them itself."""
    with open(root / 'manifest.csv', newline='') as file:
        rows = [r for r in csv.DictReader(file) if r['center'] == name]
    folder.mkdir()
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        (folder / row['image']).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / row['image'], folder / row['image'])
    return folder


def tiny(algorithm, store) -> ConfigDict:
    """The settings of a run of seconds."""
    c = base()
    c.algorithm, c.data.cache, c.data.image_size = algorithm, str(store), 16
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 2, 8
    c.devices, c.shifts.acquisition = 1, 0.0
    if 'fedgen' in c:
        c.fedgen.modes = ('film',)
    return c


def simulated(config, root) -> ConfigDict:
    """The same settings for `launch.train` on the folder of all."""
    c = config.copy_and_resolve_references()
    c.data.root = str(root)
    return c
