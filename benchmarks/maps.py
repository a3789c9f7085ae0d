"""Clients one after another, all at once, or a few at a time: seconds a round of each.

    python -m benchmarks.maps

`client_map='auto'` is chosen from this table.  Workloads are those of `benchmarks/workloads.py`; W3
is FedGen's round.  'of the rate' is the share of the device's own rate of large products, counting
each of the workload's multiplications once (transformed convolutions do fewer).  ResNet-18, U-Net
and the detector: `python -m benchmarks.sizes --client_map=vmap`.
"""

import json
import sys

import jax
from absl import app, flags, logging

from benchmarks import workloads
from benchmarks.ours import centers, configuration, run_of, timed, told_by
from benchmarks.workloads import WORKLOADS
from fedgen_jax.report.tables import markdown
from launch import cli

MAPS = ('map', '4', 'vmap')
MAPPED = ('W1', 'W2', 'W3', 'C10')

CASE = flags.DEFINE_string('case', None, 'WORKLOAD:MAP, one row as JSON; default: all, as a table')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'timed rounds, after a first one; the fastest counts')


def measure(name: str, client_map: str) -> dict:
    """{'first', 'seconds': of the first round, which compiles, and of the fastest other one;
    'rate': FLOPs a second of large products; 'device'}."""
    w, c = WORKLOADS[name], configuration(name, 'fedgen' if name == 'W3' else 'fedavg')
    c.rounds, c.client_map = 1 + ROUNDS.value, client_map
    first, *seconds = timed(run_of(w, c, centers(w)))[0]
    rate = workloads.gemm_rate(1024 if jax.default_backend() == 'cpu' else 8192)
    device = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
    return {'first': first, 'seconds': min(seconds), 'rate': rate, 'device': device}


def row(name: str, client_map: str) -> list[str]:
    """A row of the table, measured in a process of its own: this one leaves the device alone."""
    found = told_by(
        [sys.executable, '-m', 'benchmarks.maps', f'--case={name}:{client_map}',
         f'--rounds={ROUNDS.value}']
    )
    w = WORKLOADS[name]
    seconds = found['seconds']
    of_rate = '–' if name == 'W3' else f'{workloads.round_flops(w) / seconds / found["rate"]:.2f}'
    return [
        name, client_map, f'{seconds:.3f}', f'{w.clients * w.steps * w.batch / seconds:,.0f}',
        of_rate, f'{found["first"]:.1f}', found['device'],
    ]


def main(_):
    logging.set_verbosity(logging.WARNING)
    if CASE.value:
        print(json.dumps(measure(*CASE.value.split(':'))))
        return
    rows = [row(name, client_map) for name in MAPPED for client_map in MAPS]
    head = ['', 'client_map', 's a round', 'images/s', 'of the rate', 'first round, s', 'on']
    print(markdown(head, rows))


if __name__ == '__main__':
    cli.cores_as_devices()
    app.run(main)
