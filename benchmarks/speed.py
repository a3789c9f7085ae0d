"""Seconds a round on the workloads of `benchmarks/workloads.py`, beside peers on this machine.

    make bench-peers                              # each peer into an environment of its own
    python -m benchmarks.speed --workload=W1

One after the other, the same arrays.  A peer is a script in `benchmarks/peers/`, run by
`.venv-peers/NAME/bin/python`; one that is not installed is named, and not timed.  'bound' is what
the round's multiplications alone would take at the machine's float32 rate (1024 x 1024 products).
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks import workloads
from benchmarks.workloads import RATE, WORKLOADS, Workload
from configs import common
from fedgen_jax.data.builders import stored
from fedgen_jax.data.federated import Center, Examples
from fedgen_jax.data.source import assemble, to_records
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.feed import all_steps, cohort_steps
from fedgen_jax.program import build
from fedgen_jax.run import Run, client_ids
from fedgen_jax.tables import markdown
from launch import cli

PEERS = pathlib.Path(__file__).parent / 'peers'
ENVIRONMENTS = PEERS.parents[1] / '.venv-peers'

WORKLOAD = flags.DEFINE_enum('workload', 'W1', WORKLOADS, 'the work')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'timed rounds, after a first one; the median counts')
OURS = flags.DEFINE_enum('ours', None, ('fedavg', 'fedgen', 'disk'), 'this alone, as JSON')


def configuration(name: str, algorithm: str):
    """What launch.train does by default, with the workload's network and optimizer."""
    w = WORKLOADS[name]
    c = common.base()
    c.algorithm, c.batch_size, c.local_steps, c.model.name = algorithm, w.batch, w.steps, w.model
    c.data.image_size = w.image[0]
    c.client.lr, c.client.momentum, c.client.clip = RATE, 0.0, 0.0
    if name != 'W3':
        c.shifts.plain, c.shifts.acquisition = False, 0.0
    c.hypernet.modes = ('film', 'lowrank', 'head')
    return c


def ours(name: str, kind: str) -> dict:
    """{'seconds': of each timed round, 'first': of the first, which compiles}.

    kind: 'fedavg' or 'fedgen', or 'disk': FedAvg whose images are read from the store every round.
    """
    w, c = WORKLOADS[name], configuration(name, 'fedgen' if kind == 'fedgen' else 'fedavg')
    c.rounds = 1 + ROUNDS.value
    c.cohort = w.clients if kind == 'disk' else 0
    classes = tuple(str(k) for k in range(workloads.NUM_CLASSES))
    program, key = build(c, classes, w.clients), jax.random.key(0)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        seen = on_disk(w, folder) if kind == 'disk' else centers(w)
        run = Run(c, classes, program, seen, (), w.examples, key)
        id_C = client_ids(w.clients, program)
        state, private_C = init_run(program.algorithm, program.mesh, key, id_C)
        started = time.perf_counter()
        private_C = jax.tree.map(np.array, private_C) if c.cohort else private_C
        advance, _ = (cohort_steps if c.cohort else all_steps)(run, state, private_C, 0)
        for r in range(c.rounds):
            state, private_C, metrics = advance(state, private_C, r, r + 1)
            loss = float(metrics['loss'])
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
    if not np.isfinite(loss):
        raise ValueError(f'{name}: the loss is {loss}')
    return {'seconds': seconds[1:], 'first': seconds[0]}


def centers(w: Workload) -> tuple[Center, ...]:
    """The clients; all their images are for training."""
    image, label = workloads.arrays(w)
    path = tuple(f'{i:06d}' for i in range(w.examples))
    split, weight = np.zeros(w.examples, np.int8), np.ones(w.examples, np.float32)
    return tuple(
        Center(f'{c:06d}', Examples(x, {'label': y}, weight), split, path, path)
        for c, (x, y) in enumerate(zip(workloads.three_channels(image), label))
    )


def on_disk(w: Workload, folder: str) -> tuple[Center, ...]:
    """The same, their images in array_record files."""
    classes = {'label': [str(k) for k in range(workloads.NUM_CLASSES)]}
    records, _ = stored({}, lambda: to_records(centers(w)), {}, folder, ('image',))
    return assemble(records, classes, 0, 'label').centers


def peer(script: pathlib.Path, w: Workload, arrays: pathlib.Path) -> dict | None:
    """{row: the same} of a peer; None where it is not installed."""
    python = ENVIRONMENTS / script.stem / 'bin' / 'python'
    if not python.exists():
        return None
    work = {**w._asdict(), 'rate': RATE, 'rounds': ROUNDS.value, 'arrays': str(arrays)}
    return call([str(python), str(script), json.dumps(work)])


def call(command: list[str]) -> dict:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(_):
    logging.set_verbosity(logging.WARNING)
    name = WORKLOAD.value
    w = WORKLOADS[name]
    if OURS.value:
        print(json.dumps(ours(name, OURS.value)))
        return
    here = [sys.executable, '-m', 'benchmarks.speed', f'--workload={name}',
            f'--rounds={ROUNDS.value}']  # fmt: skip
    found = {'fedgen_jax, FedAvg': call([*here, '--ours=fedavg'])}
    if name == 'W3':
        found['fedgen_jax, FedGen'] = call([*here, '--ours=fedgen'])
    else:
        found['fedgen_jax, FedAvg, images on disk'] = call([*here, '--ours=disk'])
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / 'arrays.npz'
            image, label = workloads.arrays(w)
            np.savez(file, image=image, label=label)
            for script in sorted(PEERS.glob('*.py')):
                times = peer(script, w, file)
                if times is None:
                    print(f'{script.stem}: not installed (make bench-peers), so not timed')
                else:
                    found |= times
    median = {k: statistics.median(t['seconds']) for k, t in found.items()}
    if name != 'W3':
        median['bound'] = workloads.gemm_seconds(w)
    own = median['fedgen_jax, FedAvg']
    rows = [
        [k, f'{s:.2f}', f'{w.clients / s:,.0f}', f'{s / own:.2f}',
         f'{found[k]["first"]:.1f}' if k in found else '–']
        for k, s in median.items()
    ]  # fmt: skip
    print(f'{name}, on {jax.devices()[0].device_kind}')
    head = ['', 's a round', 'clients/s', 'times ours', 'first round, s']
    print(markdown(head, rows))


if __name__ == '__main__':
    jax.config.update('jax_num_cpu_devices', cli.num_cores())
    app.run(main)
