"""Commands as a person calls them, each in a process of its own that is there in no time.

A new Python imports for seconds before a command does anything.  Here one process imports what is
heavy, begins nothing, and is forked for each call.
"""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = [
    'absl.app', 'ml_collections.config_flags', 'fedgen_jax.plan', 'fedgen_jax.train',
    'fedgen_jax.report.page',
]


class Done(NamedTuple):
    """How a command ended, in the words of subprocess.CompletedProcess."""

    returncode: int
    stdout: str
    stderr: str


def call(module: str, *args: object, **environment: str) -> Done:
    """`python -m MODULE ARGS` in the checkout, with `environment` over that of the tests.

    What JAX reads as it is imported (JAX_*) is as the tests have it.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(HEAVY)
    with tempfile.TemporaryDirectory() as folder:
        told = [pathlib.Path(folder, name) for name in ('out', 'err')]
        process = context.Process(
            target=_command, args=(module, list(map(str, args)), environment, *told)
        )
        process.start()
        process.join()
        return Done(process.exitcode, *(file.read_text() for file in told))


def _command(module, args, environment, out, err):
    os.environ.update(environment)
    os.chdir(ROOT)
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.path.insert(0, str(ROOT))
    sys.argv = ['-m', *args]  # as the interpreter has it while it looks for the module
    try:
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a forked process would end without
