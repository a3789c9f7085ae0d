"""Many runs in one process; finished ones are skipped, so it can be cut and continued.

python -m launch.sweep --config=configs/wbc_cls.py --sweep=main --workdir=DIR
python -m launch.sweep --config=configs/folder.py --config.data.root=FOLDER --held_out=all \\
    --methods=fedgen,fedavg --seeds=3 --workdir=DIR

The first makes the runs of the configuration file's sweep_main(); the second needs none: it holds
out each center of FOLDER in turn, or those that --held_out names.

Several processes share a sweep by `--part=1/2`, `--part=2/2`, with one and the same DIR.  On a CPU
of two cores, two processes bound to a core each (`taskset`) finish about 1.5 times as soon as one.
On a cluster, `--slurm=8` submits 8 parts as an array job, and `--jobset=8` prints an indexed job
for `kubectl apply -f -`; `--print` prints a command for each run that is not finished.
"""

import importlib.util
import subprocess
import sys

from absl import flags
from ml_collections import config_flags

from configs import common
from fedgen_jax.sweep import named_grid, part_of, run_sweep, unfinished
from launch import cli, jobs

_CONFIG = config_flags.DEFINE_config_file('config', None, 'the experiment', lock_config=True)
_SWEEP = flags.DEFINE_string('sweep', None, "the configuration file's sweep_NAME(); default: main")
_HELD_OUT = flags.DEFINE_string(
    'held_out', None, 'without sweep_NAME(): centers to hold out in turn, comma-separated, or all'
)
_METHODS = flags.DEFINE_string(
    'methods', None,
    f'without sweep_NAME(): some of {"; ".join(common.METHODS)}; comma-separated; default: all '
    'that need no drawn cells',
)
_SEEDS = flags.DEFINE_integer('seeds', None, 'without sweep_NAME(): how many; default: 1', 1)
_PART = flags.DEFINE_string('part', '1/1', 'this process runs the i-th of n parts, as i/n')
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the runs live')
_PRINT = flags.DEFINE_bool('print', False, 'print the commands of the runs instead')
_SLURM = flags.DEFINE_integer('slurm', None, 'submit so many parts as an array job instead', 1)
_JOBSET = flags.DEFINE_integer('jobset', None, 'print an indexed job of so many parts', 1)


def runs_of_sweep() -> list[dict]:
    """The overrides of every run: those of sweep_NAME(), or of the grid that the flags name."""
    if (_HELD_OUT.value, _METHODS.value, _SEEDS.value) != (None, None, None):
        if _SWEEP.value:
            raise ValueError(
                f'--sweep={_SWEEP.value}: takes none of --held_out, --methods and --seeds'
            )
        of_any_data = [name for name, x in common.METHODS.items() if not x.get('data.virtual')]
        methods = _METHODS.value or ','.join(of_any_data)
        return named_grid(
            _CONFIG.value, common.METHODS, methods, _HELD_OUT.value or 'all', _SEEDS.value or 1
        )
    name = _SWEEP.value or 'main'
    file = config_flags.get_config_filename(flags.FLAGS['config'])
    if '.py:' in file:  # an argument of get_config() stands behind it
        file = file[: file.index('.py:') + 3]
    spec = importlib.util.spec_from_file_location('experiment', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sweep = getattr(module, f'sweep_{name}', None)
    if sweep is None:
        raise ValueError(
            f'--sweep={name}: {file} has no sweep_{name}(): write one, or pass --held_out=all'
        )
    return sweep()


def main():
    runs = part_of(runs_of_sweep(), _PART.value)
    given = jobs.without(sys.argv[1:], 'print', 'slurm', 'jobset', 'part')
    if _JOBSET.value:
        print(jobs.jobset(given, _JOBSET.value), end='')
        return
    if _SLURM.value:
        submitted = subprocess.run(jobs.slurm_command(given, _SLURM.value), check=False)
        if submitted.returncode:
            raise ValueError(f'sbatch ended with exit code {submitted.returncode}')
        return
    waiting = unfinished(_CONFIG.value, runs, _WORKDIR.value, common.base())
    if _PRINT.value:
        own = jobs.without(given, 'sweep', 'held_out', 'methods', 'seeds', 'workdir')
        for run in waiting:
            print(jobs.train_command(own, run.overrides, run.workdir))
        return
    with cli.told_to_stop() as stop:
        run_sweep(waiting, stop)


if __name__ == '__main__':
    flags.mark_flags_as_required(['config', 'workdir'])
    cli.run(main)
