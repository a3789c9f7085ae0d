"""What a round costs as the clients grow in number: seconds and memory.

    python -m benchmarks.scale --plot=scale.png       # a table, a row a process of its own
    python -m benchmarks.scale --virtual=100000       # so many drawn centers, in cohorts of 256

The first: W2's clients (16 images of 28 x 28, LeNet, 5 steps) by FedAvg, all of them on the device
in every round, and cohorts of 10 that come from the host.  'on the device' is what the compiled
round holds there: data, state and temporaries; the next cohort, on its way, comes to that.

The second: `launch.train` of FedGen with centers that are drawn for their cohort; it prints the
process's memory as the rounds go on.
"""

import json
import os
import pathlib
import resource
import sys
import tempfile
import threading
import time

import jax
import matplotlib.pyplot as plt
from absl import app, flags, logging

from benchmarks.ours import centers, configuration, run_of, timed, told_by
from benchmarks.workloads import WORKLOADS
from configs import common
from fedgen_jax.engine.cost import cost_of
from fedgen_jax.report.tables import markdown
from fedgen_jax.train import train
from launch import cli

CLIENTS, COHORT = (10, 100, 1_000, 10_000), 10
KINDS = {'all': 'all, on the device', 'cohort': f'cohorts of {COHORT}, from the host'}

CASE = flags.DEFINE_string('case', None, 'all:NUMBER or cohort:NUMBER, one row as JSON')
PLOT = flags.DEFINE_string('plot', None, 'also draw the table into this file')
VIRTUAL = flags.DEFINE_integer('virtual', None, 'centers to draw: the second measurement')
ROUNDS = flags.DEFINE_integer('rounds', 3, 'timed rounds; the fastest counts')


def measure(kind: str, clients: int) -> dict:
    """{'seconds', 'device', 'process', 'on'}: of a round; bytes of both; the device's kind."""
    w, c = WORKLOADS['W2']._replace(clients=clients), configuration('W2', 'fedavg')
    c.rounds, c.cohort = 1 + ROUNDS.value, COHORT if kind == 'cohort' else 0
    run = run_of(w, c, centers(w))
    seconds, compiled = timed(run)
    cost = cost_of(compiled, c.cohort or clients, run.program.mesh, c, c.data.image_size)
    process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    device = cost.arguments + cost.temporaries
    on = jax.devices()[0].device_kind
    return {'seconds': min(seconds[1:]), 'device': device, 'process': process, 'on': on}


def table() -> None:
    """Both kinds at each number of clients, printed and drawn."""
    rows, found = [], {}
    for kind, title in KINDS.items():
        for clients in CLIENTS:
            command = [sys.executable, '-m', 'benchmarks.scale', f'--case={kind}:{clients}',
                       f'--rounds={ROUNDS.value}']
            m = found[kind, clients] = told_by(command)
            trained = clients if kind == 'all' else COHORT
            rows.append([
                title, f'{clients:,}', f'{m["seconds"]:.3f}', f'{1e3 * m["seconds"] / trained:.2f}',
                f'{m["device"] / 2**20:,.0f}', f'{m["process"] / 2**20:,.0f}',
            ])
    head = ['a round has', 'clients', 's a round', 'ms a client', 'MiB on the device',
            'peak MiB of the process']
    print(f'on {m["on"]}')
    print(markdown(head, rows))
    if PLOT.value:
        draw(found, PLOT.value)


def draw(found: dict, path: str) -> None:
    """Seconds and device memory over the number of clients."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout='constrained')
    for axis, key, unit, label in (
        (axes[0], 'seconds', 1, 'seconds a round'),
        (axes[1], 'device', 2**20, 'MiB on the device'),
    ):
        for kind, title in KINDS.items():
            values = [found[kind, n][key] / unit for n in CLIENTS]
            axis.loglog(CLIENTS, values, marker='o', label=title)
        axis.set(xlabel='clients', ylabel=label)
    axes[0].legend()
    plt.savefig(path, dpi=120)


def run_virtual(number: int) -> None:
    """20 rounds of FedGen in cohorts of 256; the process's memory every tenth of the time."""
    c = common.tuned()
    c.data.source, c.data.virtual, c.data.held_out = 'synthetic', number, 'synthetic-3'
    c.data.centers, c.data.examples, c.data.image_size = 4, 16, 28
    c.cohort, c.rounds, c.eval_every, c.checkpoint_every = 256, 20, 10, 20
    c.model.widths, c.local_steps, c.batch_size, c.fedgen.support = (8, 16, 32), 2, 8, 8
    samples, done, started = [], threading.Event(), time.monotonic()

    def sample():
        page = os.sysconf('SC_PAGE_SIZE')
        while not done.wait(2):
            resident = int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * page
            samples.append((time.monotonic() - started, resident / 2**20))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        with tempfile.TemporaryDirectory() as workdir:
            summary = train(c, workdir)
    finally:
        done.set()
        thread.join()
    rows = [[f'{s:.0f}', f'{m:,.0f}'] for s, m in samples[:: max(1, len(samples) // 10)]]
    print(markdown(['seconds', 'MiB of the process'], rows))
    print(f'{number:,} centers: {summary["cost"]["round_seconds"]:.1f} s a round of {c.cohort}')


def main(_):
    logging.set_verbosity(logging.WARNING)
    if CASE.value:
        kind, _, clients = CASE.value.partition(':')
        print(json.dumps(measure(kind, int(clients))))
    elif VIRTUAL.value:
        run_virtual(VIRTUAL.value)
    else:
        table()


if __name__ == '__main__':
    cli.cores_as_devices()
    app.run(main)
