"""The scripts of `benchmarks/` run: what they measure is of no concern here."""

import pathlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    'command',
    [
        'secure --clients=3,5 --numbers=50',
        *(pytest.param(command, marks=pytest.mark.extended) for command in (
            'scale --case=cohort:12 --rounds=1',
            'maps --case=C10:map --rounds=1',
            'operations --workload=W2 --rows=3',
            'canaries --sigmas=2 --canaries=40 --steps=4 --seeds=1',
        )),
    ],
)
def test_a_benchmark_runs(command):
    name, *flags = command.split()
    done = subprocess.run(
        [sys.executable, '-m', f'benchmarks.{name}', *flags],
        cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True,
    )
    assert done.returncode == 0 and done.stdout, done.stderr
