"""Where a round's time goes: the compiled program's operations, by what they compute.

    taskset -c 0 python -m benchmarks.operations --workload=W1

One device and, by `taskset`, one core: operations of several overlap, and their times do not add
up.  A fusion counts where its last operation belongs; alike ones share a row.
"""

import collections
import pathlib
import re
import tempfile

import jax
from absl import app, flags, logging

from benchmarks.ours import begun, centers, configuration, run_of
from benchmarks.workloads import WORKLOADS
from fedgen_jax.report.tables import markdown

CLIENTS = 20  # enough: all learn alike

WORKLOAD = flags.DEFINE_enum('workload', 'W1', WORKLOADS, 'the work')
ALGORITHM = flags.DEFINE_enum('algorithm', 'fedavg', ('fedavg', 'fedgen'), 'whose round')
ROWS = flags.DEFINE_integer('rows', 25, 'to print, the longest first')


def traced(name: str, algorithm: str, folder: str) -> str:
    """Leaves a trace of one round in a folder; returns the compiled program as text."""
    w, c = WORKLOADS[name]._replace(clients=CLIENTS), configuration(name, algorithm)
    c.devices = 1
    run = run_of(w, c, centers(w))
    advance, compiled, state, private_C = begun(run)
    state, private_C, _ = jax.block_until_ready(advance(state, private_C, 0, 1))
    with jax.profiler.trace(folder):
        jax.block_until_ready(advance(state, private_C, 1, 2))
    return compiled.as_text()


def operations(text: str) -> dict[str, list[str]]:
    """{operation: [its shape, the JAX code that it comes from]} of a compiled program."""
    line = r'^ *(?:ROOT )?%([\w.\-]+) = (\w+\[[\d,]*\]).*op_name="([^"]*)"'
    return {name: rest for name, *rest in re.findall(line, text, re.MULTILINE)}


def seconds_of(folder: str, known: dict) -> collections.Counter:
    """Seconds of each known operation in a trace."""
    (file,) = pathlib.Path(folder).rglob('*.xplane.pb')
    total = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                # A loop's time is that of what stands in it.
                if event.name in known and not event.name.startswith('while'):
                    total[event.name] += event.duration_ns / 1e9
    return total


def readable(code: str) -> str:
    """'backward conv_1/dot_general' of the path through which JAX came to an operation."""
    direction = 'backward ' if 'transpose(' in code else ''
    loops = ('while', 'body', 'closed_call')
    steps = [s for s in code.split('/') if '(' not in s and s not in loops]
    return direction + '/'.join(steps[-2:])


def main(_):
    logging.set_verbosity(logging.WARNING)
    w = WORKLOADS[WORKLOAD.value]
    with tempfile.TemporaryDirectory() as folder:
        known = operations(traced(WORKLOAD.value, ALGORITHM.value, folder))
        total = seconds_of(folder, known)
    steps, whole = CLIENTS * w.steps, sum(total.values())
    alike, number = collections.Counter(), collections.Counter()
    for name, seconds in total.items():
        shape, code = known[name]
        alike[readable(code), shape] += seconds
        number[readable(code), shape] += 1
    rows = [
        [what, shape, f'{number[what, shape]}', f'{1e6 * s / steps:.0f}', f'{100 * s / whole:.0f}']
        for (what, shape), s in alike.most_common(ROWS.value)
    ]
    print(f'{WORKLOAD.value}, {ALGORITHM.value}: {1e6 * whole / steps:.0f} us a local step')
    print(markdown(['what', 'shape', 'operations', 'us a step', '%'], rows))


if __name__ == '__main__':
    app.run(main)
