"""Writes the settings of a deployed federation, for its server and all centers (docs/deploy.md).

python -m launch.agree --config=configs/folder.py --config.rounds=50 --file=settings.json
python -m launch.agree --data=FOLDER --file=settings.json     planned from one center's data
"""

from absl import flags

from fedgen_jax.data.check import say
from fedgen_jax.deploy.terms import check_deployable, without_afterwards
from fedgen_jax.files import expand, write_json
from launch import chosen, cli

_FILE = flags.DEFINE_string('file', None, 'the file to write')


def main():
    file = expand(_FILE.value)
    config, note = without_afterwards(chosen.chosen(str(file.parent)))
    check_deployable(config)
    if note:
        say(note)
    write_json(file, config.to_dict())
    print(f'written: {file}')


if __name__ == '__main__':
    flags.mark_flag_as_required('file')
    cli.run(main)
