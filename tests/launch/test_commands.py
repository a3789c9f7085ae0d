"""The commands as a person calls them: a mistake is one line, and exit code 2."""

import pwd
import re
import shutil
import subprocess
import sys

import pytest
from launched import ROOT, call
from processes import small_run

from fedgen_jax import config
from fedgen_jax.data.store import cache_folder, writable
from launch import cli, usage


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['launch.train', '--config=configs/nowhere.py', '--workdir=x'], 'configs/nowhere.py'),
        (['launch.train', '--config=configs/wbc_cls.py', '--config.nosuch=1', '--workdir=x'],
         "no field 'nosuch'"),
        (['launch.train', '--config=configs/wbc_cls.py', '--config.rounds=many', '--workdir=x'],
         'rounds'),
        (['launch.train', '--config=configs/wbc_cls.py', '--workdir=x'], 'data.root'),
        (['launch.train', '--workdir=x'], '--config'),
        (['launch.evaluate', '--workdir=nowhere'], 'nowhere/config.json'),
        (['launch.onboard', '--workdir=nowhere', '--data=x'], 'nowhere/config.json'),
        (['launch.predict', '--workdir=nowhere', '--to=x'], 'nowhere/config.json'),
        (['launch.export', '--workdir=nowhere', '--format=h5'], 'stablehlo'),
        (['launch.audit', '--workdir=nowhere'], 'nowhere/config.json'),
        (['launch.audit', '--workdir=nowhere', '--which=lyra'], 'lira'),
        (['launch.sweep', '--config=configs/wbc_cls.py', '--sweep=nosuch', '--workdir=x'],
         'sweep_nosuch'),
        (['launch.summarize'], 'DIR'),
        (['launch.summarize', 'nowhere'], 'nowhere'),
    ],
)
def test_a_mistake_is_one_line(args, message):
    done = call(*args)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: ') and message in lines[0]


@pytest.mark.parametrize(
    ('command', 'told'),
    [
        ('launch.train --help', ['goes on with it', '--workdir', 'data.held_out', '--grace']),
        ('launch.sweep -h', ['Many runs', '--held_out', 'client.lr = 0.05', '--stopped_code']),
        ('launch.summarize --helpshort', ['DIR', '--cluster']),
    ],
)
def test_help_tells_what_a_command_takes(command, told):
    done = call(*command.split())
    assert done.returncode == 0 and done.stderr == ''
    assert all(x in done.stdout for x in told)
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_package_tells_its_commands():
    done = call('fedgen_jax', '--help')
    assert done.returncode == 0 and done.stderr == ''
    told = re.findall(r'python -m launch\.(\w+) +\w', done.stdout)
    assert set(told) >= {'train', 'evaluate', 'sweep', 'onboard', 'check', 'report'}
    for name in told:
        assert "if __name__ == '__main__':" in (ROOT / 'launch' / f'{name}.py').read_text()
    refused = call('fedgen_jax', 'trian')
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1


def test_an_installed_package_tells_where_the_commands_are(tmp_path):
    shutil.copytree(
        ROOT / 'fedgen_jax', tmp_path / 'fedgen_jax', ignore=shutil.ignore_patterns('__pycache__')
    )
    (tmp_path / 'launch').mkdir()  # of somebody else
    (tmp_path / 'launch' / 'rocket.py').write_text("if __name__ == '__main__':\n    pass\n")
    done = subprocess.run(
        [sys.executable, '-m', 'fedgen_jax'], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and 'rocket' not in done.stdout
    assert 'fedgen_jax.train(' in done.stdout and 'a checkout' in done.stdout


def test_help_has_every_field_with_its_comment():
    told = {line.split(' = ')[0].strip(): line for line in usage.fields()}
    assert list(told) != sorted(told)  # as the file has them
    assert set(told) >= {name for name, _ in usage.flat(config.base())}
    assert 'of cnn' in told['model.thumbnail'] and 'of efficientnet_lite0' in told['model.trained']
    assert "= ''                    a folder with manifest.csv" in told['data.root']
    assert 'the local update: meta | weights' in told['fedgen.local']
    more = set(told) - set(dict(usage.flat(config.base())))
    assert all(name.startswith('model.') for name in more)
    silent = [name for name, line in told.items() if len(line) < 36]
    assert set(silent) <= {'rounds', 'client.lr', 'server.lr', 'finetune.lr'}


def test_a_field_that_is_none_has_a_suggestion():
    done = call('launch.train', '--config=configs/wbc_cls.py', '--config.client.lrr=1')
    assert done.returncode == 2 and 'Did you mean "lr"' in done.stderr


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert cli.with_home('--workdir=~/run') == f'--workdir={tmp_path}/run'
    assert cli.with_home('~/run') == f'{tmp_path}/run'
    assert cli.with_home('--config.data.root=~') == f'--config.data.root={tmp_path}'
    for other in ('--workdir=a~/b', '--x', '--remove=~other', 'a=~/b', '--part=1/2'):
        assert cli.with_home(other) == other
    assert cache_folder('~/cache') == tmp_path / 'cache'


def test_no_home_and_no_room_name_the_way_out(monkeypatch, tmp_path):
    def nobody(_):
        raise KeyError

    monkeypatch.delenv('HOME')
    monkeypatch.delenv('FEDGEN_CACHE', raising=False)
    monkeypatch.setattr(pwd, 'getpwuid', nobody)
    with pytest.raises(ValueError, match='no home folder .* FEDGEN_CACHE'):
        cache_folder()
    with pytest.raises(ValueError, match='~/run: no home folder'):
        cli.with_home('--workdir=~/run')
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match='file/cache: cannot be written .* FEDGEN_CACHE'):
        writable(tmp_path / 'file' / 'cache')


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    root = small_run(tmp_path).data.root
    told = ['launch.train', '--config=configs/wbc_cls.py', f'--config.data.root={root}']
    done = call(*told, f'--workdir={tmp_path}/run', FEDGEN_CACHE='/dev/null/x')
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('error: /dev/null/x: cannot be written')
    assert 'FEDGEN_CACHE' in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_sweep_that_can_only_fail_stops_at_once(tmp_path):
    told = ['launch.sweep', '--config=configs/wbc_seg.py', f'--workdir={tmp_path}/runs']
    done = call(*told, '--config.data.root=/nowhere')
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('error: /nowhere') and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('field', ['client.lrr=1', 'nothing=1'])
def test_a_field_that_is_none_is_one_line_without_a_file_too(field, tmp_path):
    done = call('launch.train', f'--data={tmp_path}', f'--workdir={tmp_path}', f'--config.{field}')
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert 'has no field' in done.stderr and '--help' in done.stderr
