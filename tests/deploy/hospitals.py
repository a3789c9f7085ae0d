"""Three hospitals of drawn cells, each with a folder of its own, and one folder of all."""

import csv
import json
import shutil
from typing import NamedTuple

from drawn import cells_folder
from ml_collections import ConfigDict

from configs.common import base
from fedgen_jax.deploy import Net, center
from fedgen_jax.deploy.wire import unpack

NAMES = ('synthetic-0', 'synthetic-1', 'synthetic-2')
NEW = 'synthetic-3'  # who joins afterwards


class Hospitals(NamedTuple):
    """root: the folder of all who train; own: {name: its own}; settings: the file that all have."""

    root: object
    own: dict
    settings: object


def draw(folder):
    """{name: its own folder}, and under 'all' that of all who train."""
    drawn = cells_folder(folder / 'drawn', len(NAMES) + 1, 20, 16)
    own = {name: part_of(drawn, [name], folder / name) for name in (*NAMES, NEW)}
    return {**own, 'all': part_of(drawn, NAMES, folder / 'all')}


def hospitals(data, config, folder):
    """The hospitals of `draw`, and the settings of a run between them."""
    settings = folder / 'settings.json'
    settings.write_text(json.dumps(config.to_dict(), default=list))
    return Hospitals(data['all'], data, settings)


def part_of(root, names, folder):
    """A folder of some centers of `root`, with all that it tells of them."""
    with open(root / 'manifest.csv', newline='') as file:
        rows = [r for r in csv.DictReader(file) if r['center'] in names]
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


def as_it_is(node, asked, reply):
    return reply()


def net_of(sites, change=as_it_is, log=None, connected=lambda node: True):
    """A `Net` in this process: node i is the i-th site; `change` may lose or alter its replies."""

    def ask(requests):
        found = {}
        for node, data in requests.items():
            reply = change(node, unpack(data), lambda: center.answer(sites[node], data))  # noqa: B023
            if log is not None:
                log.append((unpack(data)['action'], reply))
            found |= {} if reply is None else {node: reply}
        return found

    return Net(lambda: [i for i in range(len(sites)) if connected(i)], ask)
