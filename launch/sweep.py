"""Many runs in one process; finished ones are skipped, so it can be cut and continued.

python -m launch.sweep --config=configs/wbc_cls.py --sweep=main --workdir=DIR

Several processes share a sweep by `--part=1/2`, `--part=2/2`, with one and the same DIR.  On a CPU
of two cores, two processes bound to a core each (`taskset`) finish about 1.5 times as soon as one.
"""

import importlib.util

from absl import flags
from ml_collections import config_flags

from configs import common
from fedgen_jax.sweep import part_of, run_sweep
from launch import cli

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the experiment', lock_config=True)
_SWEEP = flags.DEFINE_string('sweep', 'main', "the configuration file's sweep_NAME()")
_PART = flags.DEFINE_string('part', '1/1', 'this process runs the i-th of n parts, as i/n')
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the runs live')


def main():
    file = config_flags.get_config_filename(flags.FLAGS['config'])
    spec = importlib.util.spec_from_file_location('experiment', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sweep = getattr(module, f'sweep_{_SWEEP.value}', None)
    if sweep is None:
        raise ValueError(f'--sweep={_SWEEP.value}: {file} has no sweep_{_SWEEP.value}()')
    run_sweep(_CONFIG.value, part_of(sweep(), _PART.value), _WORKDIR.value, common.base())


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'workdir'])
    cli.run(main)
