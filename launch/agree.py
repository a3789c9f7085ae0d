"""Writes the settings of a deployed federation, for its server and all centers (docs/deploy.md).

python -m launch.agree --config=configs/folder.py --config.rounds=50 --file=settings.json
"""

from absl import flags
from ml_collections import config_flags

from fedgen_jax.deploy.terms import check_deployable
from fedgen_jax.files import expand, write_json
from launch import cli

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the experiment', lock_config=True)
_FILE = flags.DEFINE_string('file', None, 'the file to write')


def main():
    check_deployable(_CONFIG.value)
    write_json(expand(_FILE.value), _CONFIG.value.to_dict())
    print(f'written: {_FILE.value}')


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'file'])
    cli.run(main)
