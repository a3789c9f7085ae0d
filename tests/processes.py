"""A run of seconds, and launch.train on it as processes of their own."""

import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

from configs.common import base

ROOT = pathlib.Path(__file__).parents[1]
# Quick compilations as in conftest.py, and one device a core, or one for a process of a cluster.
DEVICES = '--xla_force_host_platform_device_count=8'
ONE_DEVICE = {
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '').replace(DEVICES, ''),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.05',
}
FIELDS = {
    'model.widths': (8,), 'shifts.acquisition': 0.0, 'shifts.flips': False, 'shifts.turns': False,
    'rounds': 40, 'eval_every': 10, 'checkpoint_every': 5, 'local_steps': 2, 'batch_size': 4,
    'fedgen.support': 4, 'fedgen.modes': ('film',), 'data.image_size': 16,
}


def small_run(folder):
    """A configuration on two centers of noise; the folder holds its images and caches."""
    root = folder / 'images'
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = ['image,center,split,label']
    for center in ('east', 'west'):
        for i in range(15):
            image = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / f'{center}{i}.png')
            split = ('train', 'train', 'val', 'test')[i % 4]
            rows.append(f'{center}{i}.png,{center},{split},a{i % 2}')
    (root / 'manifest.csv').write_text('\n'.join(rows))
    c = base()
    c.update_from_flattened_dict(
        {**FIELDS, 'data.root': str(root), 'data.cache': str(folder / 'cache')}
    )
    return c


def start(config, workdir, *flags, **environment):
    """launch.train with the configuration, as a process of its own."""
    (workdir.parent / f'{workdir.name}.py').write_text(
        'import json\nfrom ml_collections import ConfigDict\n'
        f'def get_config():\n    return ConfigDict(json.loads({config.to_json()!r}))\n'
    )
    return subprocess.Popen(
        [sys.executable, '-m', 'launch.train', f'--config={workdir}.py', f'--workdir={workdir}',
         *flags],
        cwd=ROOT, env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'FEDGEN_CACHE': config.data.cache,
             'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.05', **environment},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )


def finish(process):
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
