"""Many runs in one process; finished ones are skipped, so it can be cut and continued.

python -m launch.sweep --config=configs/wbc_cls.py --sweep=main --workdir=DIR
python -m launch.sweep --data=FOLDER --task=segmentation --held_out=all --methods=fedgen,fedavg \\
    --seeds=3 --workdir=DIR

The first makes the runs of the configuration file's sweep_main().  The second needs no file: the
settings are planned from the data, once for all runs, and each center of FOLDER is held out in
turn, or those that --held_out names.

Several processes share a sweep by `--part=1/2`, `--part=2/2`, with one and the same DIR.  On a CPU
of two cores, two processes bound to a core each (`taskset`) finish about 1.5 times as soon as one.
`--known=FILE.jsonl`, of `launch.summarize --to`, names runs that were finished elsewhere; then
`launch.summarize DIR FILE.jsonl --to=FILE.jsonl` has them all.

On a cluster, `--slurm=8` submits 8 parts as an array job, and `--jobset=8` prints an indexed job
for `kubectl apply -f -`; `--print` prints a command for each run that is not finished.
"""

import importlib.util
import subprocess
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import common
from fedgen_jax.report.summaries import read_summaries
from fedgen_jax.sweep import check_finished_data, named_grid, part_of, run_sweep, unfinished
from launch import chosen, cli, jobs

_SWEEP = flags.DEFINE_string('sweep', None, "the configuration file's sweep_NAME(); default: main")
_METHODS = flags.DEFINE_string(
    'methods', None,
    f'without sweep_NAME(): some of {"; ".join(common.NAMED)}; comma-separated; default: all '
    'of its tables that need no drawn cells',
)
_SEEDS = flags.DEFINE_integer('seeds', None, 'without sweep_NAME(): how many; default: 1', 1)
_PART = flags.DEFINE_string('part', '1/1', 'this process runs the i-th of n parts, as i/n')
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the runs live')
_KNOWN = flags.DEFINE_string('known', None, 'a FILE.jsonl of runs that are finished, and skipped')
_PRINT = flags.DEFINE_bool('print', False, 'print the commands of the runs instead')
_SLURM = flags.DEFINE_integer('slurm', None, 'submit so many parts as an array job instead', 1)
_JOBSET = flags.DEFINE_integer('jobset', None, 'print an indexed job of so many parts', 1)


def runs_of_sweep(config: ConfigDict) -> list[dict]:
    """The overrides of every run: those of sweep_NAME(), or of the grid that the flags name."""
    held_out = flags.FLAGS['held_out'].value
    if flags.FLAGS['data'].value or (held_out, _METHODS.value, _SEEDS.value) != (None, None, None):
        if _SWEEP.value:
            raise ValueError(
                f'--sweep={_SWEEP.value}: takes none of --held_out, --methods and --seeds'
            )
        of_any_data = [name for name, x in common.METHODS.items() if not x.get('data.virtual')]
        methods = _METHODS.value or ','.join(of_any_data)
        return named_grid(
            config, common.NAMED, methods, held_out or 'all', _SEEDS.value or 1
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
    to_pipe = _PRINT.value or _JOBSET.value  # its output is for another command
    config = chosen.chosen(_WORKDIR.value, held_out='', told=sys.stderr if to_pipe else None)
    runs = part_of(runs_of_sweep(config), _PART.value)
    given = jobs.without(sys.argv[1:], 'print', 'slurm', 'jobset', 'part')
    if _JOBSET.value:
        print(jobs.jobset(given, _JOBSET.value), end='')
        return
    if _SLURM.value:
        submitted = subprocess.run(jobs.slurm_command(given, _SLURM.value), check=False)
        if submitted.returncode:
            raise ValueError(f'sbatch ended with exit code {submitted.returncode}')
        return
    known = read_summaries([_KNOWN.value]) if _KNOWN.value else ()
    waiting = unfinished(config, runs, _WORKDIR.value, common.base(), known)
    if _PRINT.value:
        plan = [f'--plan={_WORKDIR.value}/plan.json'] if flags.FLAGS['data'].value else []
        own = jobs.without(given, 'sweep', 'held_out', 'methods', 'seeds', 'workdir', 'known')
        for run in waiting:
            print(jobs.train_command([*own, *plan], run.overrides, run.workdir))
        return
    check_finished_data(config, runs, _WORKDIR.value)
    with cli.told_to_stop() as stop:
        run_sweep(waiting, stop)
    print(f'{len(runs)} runs are finished; tables: python -m launch.summarize {_WORKDIR.value}')


if __name__ == '__main__':
    flags.mark_flags_as_required(['workdir'])
    cli.run(main)
