"""Trains one run, or goes on with it.

python -m launch.train --config=configs/folder.py --config.data.root=FOLDER --workdir=RUN
"""

from absl import flags
from ml_collections import config_flags

from fedgen_jax.train import train
from launch import cli

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the experiment', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the run lives')


def main():
    with cli.told_to_stop() as stop:
        summary = train(_CONFIG.value, _WORKDIR.value, stop=stop)
    print(cli.show(summary))
    print(f'written: {_WORKDIR.value}/summary.json')


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'workdir'])
    cli.run(main)
