"""Several processes of one run: they agree with one process, and none outlives the others."""

import json
import shutil
import socket
import time

import jax
import numpy as np
import pytest
from processes import ONE_DEVICE, finish, small_run, start

from fedgen_jax.engine.processes import HEARTBEAT
from fedgen_jax.run import restore
from fedgen_jax.train import train


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    c = small_run(tmp_path_factory.mktemp('data'))
    c.rounds, c.eval_every, c.checkpoint_every = 2, 1, 1
    return c


def together(config, workdir, num):
    """The processes of one run, with one device each."""
    with socket.socket() as s:
        s.bind(('localhost', 0))
        port = s.getsockname()[1]
    return [
        start(config, workdir, f'--cluster=localhost:{port},{i},{num}', **ONE_DEVICE)
        for i in range(num)
    ]


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    train(config, workdir, progress=False)
    return workdir


def assert_agree(a, b):
    a, b = (jax.tree.leaves(restore(w).state.shared) for w in (a, b))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * float(np.abs(y).max()))


@pytest.mark.parametrize(
    ('num', 'cohort'), [(2, 2), pytest.param(4, 0, marks=pytest.mark.survival)]
)
def test_processes_agree_with_one_and_read_each_other_s_checkpoints(
    config, alone, tmp_path, num, cohort
):
    """Few rounds, for training carries rounding far; a cohort of both clients changes nothing.

    One goes on where many stopped, and many where one did, whose last checkpoint is damaged.
    """
    config = config.copy_and_resolve_references()
    config.cohort = cohort
    for process in together(config, tmp_path / 'run', num):
        finish(process)
    assert_agree(tmp_path / 'run', alone)
    lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(x)['round'] for x in lines] == [1, 2]  # one process wrote
    longer = config.copy_and_resolve_references()
    longer.rounds = 3
    copy = shutil.copytree(alone, tmp_path / 'alone')
    for workdir in (tmp_path / 'run', copy):
        (workdir / 'config.json').unlink()
    train(longer, tmp_path / 'run', progress=False)
    damaged = max((copy / 'checkpoints' / '2').rglob('*'), key=lambda f: f.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for process in together(longer, copy, num):
        finish(process)
    assert restore(copy).round == 3 and (copy / 'damaged' / '2').is_dir()
    assert_agree(tmp_path / 'run', copy)


@pytest.mark.survival
@pytest.mark.parametrize('victim', [0, 1])
def test_a_process_that_dies_ends_the_others_and_the_run_resumes(config, tmp_path, victim):
    c = config.copy_and_resolve_references()
    c.algorithm, c.rounds, c.eval_every, c.checkpoint_every = 'fedavg', 20_000, 4, 4
    processes = together(c, tmp_path / 'run', 2)
    while not list((tmp_path / 'run').glob('checkpoints/*/seal.json')):
        assert all(p.poll() is None for p in processes)
        time.sleep(0.05)
    processes[victim].kill()
    begun = time.monotonic()
    _, err = processes[1 - victim].communicate(timeout=3 * HEARTBEAT)
    assert time.monotonic() - begun < 2 * HEARTBEAT
    # 2 would tell a scheduler of a mistake that no restart mends.
    assert processes[1 - victim].returncode not in (0, 2)
    assert 'another task died' in err or 'the cluster stopped' in err
    processes[victim].communicate()
    reached = restore(tmp_path / 'run').round
    assert reached >= 4
    c.rounds = reached + 4
    (tmp_path / 'run' / 'config.json').unlink()
    finish(start(c, tmp_path / 'run', **ONE_DEVICE))
    assert restore(tmp_path / 'run').round == reached + 4
