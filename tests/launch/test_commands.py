"""The commands as a person calls them: a mistake is one line, and exit code 2."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def call(*args):
    env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(
        [sys.executable, '-m', *args], cwd=ROOT, env=env, capture_output=True, text=True
    )


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
        (['launch.sweep', '--config=configs/wbc_cls.py', '--sweep=nosuch', '--workdir=x'],
         'sweep_nosuch'),
        (['launch.summarize'], 'DIR'),
        (['launch.summarize', 'nowhere'], 'nowhere'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(args, message):
    done = call(*args)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: ') and message in lines[0]
