"""Writes the settings of a deployed federation, for its server and all centers (docs/deploy.md).

python -m launch.agree --config=configs/folder.py --config.rounds=50 --file=settings.json
"""

from absl import flags
from ml_collections import config_flags

from fedgen_jax.data.check import say
from fedgen_jax.deploy.terms import check_deployable, without_afterwards
from fedgen_jax.files import expand, write_json
from launch import cli

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the experiment', lock_config=True)
_FILE = flags.DEFINE_string('file', None, 'the file to write')


def main():
    config, note = without_afterwards(_CONFIG.value)
    check_deployable(config)
    if note:
        say(note)
    write_json(expand(_FILE.value), config.to_dict())
    print(f'written: {_FILE.value}')


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'file'])
    cli.run(main)
