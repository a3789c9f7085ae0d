"""What happens to a run must not change what it ends with."""

import json
import pathlib
import random
import resource
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import finish, small_run, start

from fedgen_jax import checkpoint
from fedgen_jax.algorithms.base import State
from fedgen_jax.run import restore
from fedgen_jax.train import keep_lines, train


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """The workdir of an undisturbed run."""
    workdir = tmp_path_factory.mktemp('whole')
    train(config, workdir, progress=False)
    return workdir


def weights(workdir):
    done = restore(workdir)
    return done.round, done.state


def assert_same_end(workdir, whole):
    (round_, state), (round_whole, state_whole) = weights(workdir), weights(whole)
    assert round_ == round_whole
    jax.tree.map(np.testing.assert_array_equal, state, state_whole)
    lines, lines_whole = (
        [{**json.loads(x), 'seconds': 0} for x in (w / 'metrics.jsonl').read_text().splitlines()]
        for w in (workdir, whole)
    )
    assert lines == lines_whole
    a, b = (json.loads((w / 'summary.json').read_text()) for w in (workdir, whole))
    assert {**a, 'cost': 0} == {**b, 'cost': 0}


def files_of(step):
    return sorted(f for f in step.rglob('*') if f.is_file() and f.name != checkpoint.SEAL)


def largest(step):
    return max(files_of(step), key=lambda f: f.stat().st_size)


def truncate(step):
    file = largest(step)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(step):
    file = largest(step)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose(step):
    largest(step).unlink()


def spoil_seal(step):
    (step / checkpoint.SEAL).write_text('{')


def truncate_unsealed(step):
    (step / checkpoint.SEAL).unlink()
    for file in files_of(step):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize('damage', [truncate, flip, lose, spoil_seal, truncate_unsealed])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    config, whole, tmp_path, damage
):
    run = shutil.copytree(whole, tmp_path / 'run')
    steps = sorted((run / 'checkpoints').glob('[0-9]*'), key=lambda f: int(f.name))
    assert [f.name for f in steps] == ['35', '40']
    damage(steps[-1])
    with pytest.warns(UserWarning, match='checkpoints/40: .*the checkpoint before is read'):
        assert restore(run).round == 35
    assert steps[-1].is_dir()  # whoever only reads, moves nothing
    with pytest.warns(UserWarning, match=f'checkpoints/40: .*set aside as {run}/damaged/40'):
        train(config, run, progress=False)
    assert (run / 'damaged' / '40').is_dir()
    assert_same_end(run, whole)


def test_a_reader_leaves_a_run_that_goes_on_as_it_is(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / 'run')
    (run / 'checkpoints' / '40' / checkpoint.SEAL).unlink()
    before = sorted(run.rglob('*'))
    assert restore(run).round == 40
    assert sorted(run.rglob('*')) == before


def test_the_last_line_of_a_killed_run_may_be_cut(config, tmp_path):
    file = tmp_path / 'metrics.jsonl'
    file.write_text('{"round": 10}\n{"round": 20}\n{"rou')
    keep_lines(file, 10, config)
    assert file.read_text() == '{"round": 10}\n'


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(300, 300)), jnp.float32)
    tree = State({'w': w}, ()), {}
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 2, tree)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        told = pytest.raises(OSError, match='cannot save .* round 2 is the last whole')
        with told as error, checkpoint.manager(tmp_path) as checkpoints:
            checkpoint.save(checkpoints, 4, jax.tree.map(lambda x: x + 1, tree))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert '\n' not in str(error.value)
    with checkpoint.manager(tmp_path) as checkpoints:
        round_, found = checkpoint.restore(checkpoints, tree)
    assert round_ == 2
    np.testing.assert_array_equal(found[0].shared['w'], w)


def test_a_run_whose_clients_are_all_infinite_stops(config, tmp_path):
    c = config.copy_and_resolve_references()
    c.client.lr, c.client.clip = 1e38, 0.0
    with pytest.raises(ValueError, match=r'rounds \d+ to \d+, 100% of the clients .* lower client'):
        train(c, tmp_path, progress=False)


POISON = '''
import jax.numpy as jnp
from fedgen_jax.tasks import classification

def task(classes):
    """Classification whose loss is no number where an image is of the second class."""
    sound = classification(classes)

    def loss(outputs, target, weight):
        return jnp.where((target['label'] == 1).any(), jnp.nan, sound.loss(outputs, target, weight))

    return sound._replace(loss=loss)
'''


def test_a_center_whose_loss_is_nan_is_logged_and_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / 'poison.py').write_text(POISON)
    monkeypatch.syspath_prepend(tmp_path)
    c = small_run(tmp_path)
    c.task, c.rounds, c.eval_every = 'poison:task', 4, 2
    manifest = pathlib.Path(c.data.root) / 'manifest.csv'
    rows = [row.rsplit(',', 1)[0] for row in manifest.read_text().splitlines()[1:]]
    labels = ['a0' if 'east' in row else 'a1' for row in rows]
    rows = ['image,center,split,label', *map(','.join, zip(rows, labels))]
    manifest.write_text('\n'.join(rows))
    summary = train(c, tmp_path / 'run', progress=False)
    lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(x)['left_out'] for x in lines] == [2, 2]
    assert summary['seen']['centers']['east']['accuracy'] == 1


def wait_for_a_line(workdir, process):
    while process.poll() is None and not (workdir / 'metrics.jsonl').exists():
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


@pytest.fixture
def hears_ctrl_c():
    """A process ignores what its parent ignores, as a script's background does of Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope='module')
def long(config, tmp_path_factory):
    """(configuration, workdir) of a run by a process of its own that nobody disturbed."""
    c = config.copy_and_resolve_references()
    c.algorithm, c.rounds, c.checkpoint_every = 'fedavg', 400, 50
    workdir = tmp_path_factory.mktemp('long') / 'run'
    finish(start(c, workdir))
    return c, workdir


@pytest.mark.extended
@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_and_goes_on_to_the_same_end(
    long, tmp_path, sent, hears_ctrl_c
):
    c, whole = long
    first = start(c, tmp_path / 'run')
    wait_for_a_line(tmp_path / 'run', first)
    first.send_signal(sent)
    started = time.monotonic()
    out, err = first.communicate(timeout=30)
    assert first.returncode == 0 and time.monotonic() - started < 30, err
    assert 'stopped and saved at round' in out.splitlines()[-1] and err == ''
    reached = restore(tmp_path / 'run').round
    assert 10 <= reached < 400
    finish(start(c, tmp_path / 'run'))
    assert_same_end(tmp_path / 'run', whole)
    kept = list((pathlib.Path(c.data.cache) / 'compiled').iterdir())
    assert kept  # the processes after the first did not compile


def test_ctrl_c_while_compiling_and_a_second_one_end_in_a_line(config, tmp_path, hears_ctrl_c):
    c = config.copy_and_resolve_references()
    c.model.widths, c.rounds = (24,), 100_000  # no other test has compiled it
    process = start(c, tmp_path / 'run', '--stopped_code=7')
    assert 'compiling' in process.stdout.readline()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 7 and out == ''
    assert err == (
        'stopped unsaved: the last checkpoint stands, if there is one; run again to go on\n'
    )


def kill_on_its_way(config, workdir, draw, seconds):
    """Begins again where the run was over before the moment came."""
    while True:
        killed = start(config, workdir)
        time.sleep(draw.uniform(0.2, 1.0) * seconds)
        killed.kill()
        killed.communicate()
        if killed.returncode == -signal.SIGKILL:
            return
        shutil.rmtree(workdir)


@pytest.mark.survival
def test_twenty_kills_at_random_moments(config, tmp_path):
    c = config.copy_and_resolve_references()
    c.rounds = 400
    finish(start(c, tmp_path / 'whole'))
    begun = time.monotonic()
    finish(start(c, tmp_path / 'again'))  # without compiling, as those that are killed
    seconds = time.monotonic() - begun
    draw = random.Random(0)
    for i in range(20):
        workdir = tmp_path / f'run{i}'
        kill_on_its_way(c, workdir, draw, seconds)
        finish(start(c, workdir))
        assert_same_end(workdir, tmp_path / 'whole')
