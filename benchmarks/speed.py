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
from fedgen_jax.data.federated import Examples
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.program import make_algorithm
from fedgen_jax.tables import markdown

PEERS = pathlib.Path(__file__).parent / 'peers'
ENVIRONMENTS = PEERS.parents[1] / '.venv-peers'

WORKLOAD = flags.DEFINE_enum('workload', 'W1', WORKLOADS, 'the work')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'timed rounds, after a first one; the median counts')
OURS = flags.DEFINE_enum('ours', None, ('fedavg', 'fedgen'), 'this alone, as JSON')


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


def ours(name: str, algorithm: str) -> dict:
    """{'seconds': of each timed round, 'first': of the first, which compiles}."""
    w, c = WORKLOADS[name], configuration(name, algorithm)
    classes = [str(k) for k in range(workloads.NUM_CLASSES)]
    program, _ = make_algorithm(c, w.image[0], classes, w.clients)
    mesh, key = client_mesh(c.devices), jax.random.key(0)
    image, label = workloads.arrays(w)
    data = Examples(
        workloads.three_channels(image), {'label': label}, np.ones(label.shape, np.float32)
    )
    data_C, id_C = shard_clients((data, np.arange(w.clients, dtype=np.int32)), mesh)
    state, private_C = init_run(program, mesh, key, id_C)
    rounds = make_rounds(program, mesh, c.client_map)
    seconds = []
    for r in range(1 + ROUNDS.value):
        started = time.perf_counter()
        state, private_C, metrics = rounds(
            state, private_C, data_C, id_C, key, np.int32(r), np.int32(r + 1)
        )
        loss = float(metrics['loss'])
        seconds.append(time.perf_counter() - started)
    if not np.isfinite(loss):
        raise ValueError(f'{name}: the loss is {loss}')
    return {'seconds': seconds[1:], 'first': seconds[0]}


def peer(script: pathlib.Path, w: Workload, arrays: pathlib.Path) -> dict | None:
    """The same of a peer; None where it is not installed."""
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
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / 'arrays.npz'
            image, label = workloads.arrays(w)
            np.savez(file, image=image, label=label)
            for script in sorted(PEERS.glob('*.py')):
                times = peer(script, w, file)
                if times is None:
                    print(f'{script.stem}: not installed (make bench-peers), so not timed')
                else:
                    found[script.stem] = times
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
    app.run(main)
