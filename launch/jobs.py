"""A sweep as commands, as a SLURM array job, or as an indexed job on Kubernetes."""

import pathlib
import shlex
from collections.abc import Sequence

import yaml

TEMPLATES = pathlib.Path(__file__).parent


def train_command(flags: Sequence[str], overrides: dict, workdir: pathlib.Path) -> str:
    """The shell's line for one run of a sweep.

    flags: of the sweep, as they were given (--config, --config.FIELD).
    """
    fields = [f'--config.{name}={value}' for name, value in overrides.items()]
    line = ['python', '-m', 'launch.train', *flags, *fields, f'--workdir={workdir}']
    return shlex.join(line)


def slurm_command(flags: Sequence[str], parts: int) -> list[str]:
    """The sbatch command of an array job, each task of which runs a part of the sweep."""
    own = [f'--array=1-{parts}', f'--export=ALL,PARTS={parts}']
    own += ['--ntasks-per-node=1', '--gpus-per-node=1']
    return ['sbatch', *own, str(TEMPLATES / 'slurm.sh'), 'launch.sweep', *flags]


def jobset(flags: Sequence[str], parts: int) -> str:
    """`jobset.yaml` with a part of the sweep in each pod, which do not know of each other."""
    tree = yaml.safe_load((TEMPLATES / 'jobset.yaml').read_text())
    job = tree['spec']['replicatedJobs'][0]['template']['spec']
    # A pod that fails is made anew by itself, unless by a mistake: then the others go on.
    del job['backoffLimit']
    job |= {'completions': parts, 'parallelism': parts, 'backoffLimitPerIndex': 100}
    job['podFailurePolicy']['rules'][0]['action'] = 'FailIndex'
    tree['spec']['failurePolicy'] = {'maxRestarts': 0}
    tree['metadata']['name'] += '-sweep'
    container = job['template']['spec']['containers'][0]
    # Indices count from 0, parts from 1.
    part = f'--part=$((JOB_COMPLETION_INDEX + 1))/{parts}'
    container['command'] = ['bash', '-c', f'exec python -m launch.sweep "$@" {part}', 'sweep']
    container['args'] = [*flags, '--stopped_code=1']
    return yaml.safe_dump(tree, sort_keys=False)


def without(argv: Sequence[str], *names: str) -> list[str]:
    """The flags as given but for some, `--name`, `--name=value` or `--name value` alike."""
    kept, skip = [], False
    for arg, after in zip(argv, [*argv[1:], '--']):
        name, equals, _ = arg.lstrip('-').partition('=')
        if skip:
            skip = False
        elif arg.startswith('-') and name in names:
            skip = not equals and not after.startswith('-')
        else:
            kept.append(arg)
    return kept
