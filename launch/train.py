"""Trains one run, or goes on with it.

python -m launch.train --data=FOLDER --task=segmentation --held_out=CENTER --workdir=RUN
python -m launch.train --config=configs/wbc_cls.py --config.data.root=FOLDER --workdir=RUN

The first plans the settings from the data, and tells them; the second takes a file of them.
"""

from absl import flags

from fedgen_jax.train import train
from launch import chosen, cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'where the run lives')


def main():
    config = chosen.chosen(_WORKDIR.value)
    with cli.told_to_stop() as stop:
        summary = train(config, _WORKDIR.value, stop=stop)
    print(cli.show(summary))
    print(f'written: {_WORKDIR.value}/summary.json')


if __name__ == '__main__':
    flags.mark_flags_as_required(['workdir'])
    cli.run(main)
