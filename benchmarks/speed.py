"""Seconds a round on the workloads of `benchmarks/workloads.py`, beside peers on this machine.

    make bench-peers                              # each peer into an environment of its own
    python -m benchmarks.speed --workload=W1      # W2, W3, W4-resnet18, W4-unet, W4-lite0-96 ...

One after the other, the same arrays.  A peer is a script in `benchmarks/peers/`, run by
`.venv-peers/NAME/bin/python`; one that is not installed is named, and not timed.  'products'
is what the round's multiplications, each done once, would take at the machine's float32 rate (that
of 1024 x 1024 products); transformed convolutions do fewer.
"""

import json
import pathlib
import statistics
import sys
import tempfile

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks import workloads
from benchmarks.ours import centers, configuration, on_disk, run_of, timed, told_by
from benchmarks.workloads import RATE, WORKLOADS, Workload
from fedgen_jax.report.tables import markdown
from launch import cli

PEERS = pathlib.Path(__file__).parent / 'peers'
ENVIRONMENTS = PEERS.parents[1] / '.venv-peers'

WORKLOAD = flags.DEFINE_enum('workload', 'W1', [w for w in WORKLOADS if w != 'C10'], 'the work')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'timed rounds, after a first one; the median counts')
OURS = flags.DEFINE_enum('ours', None, ('fedavg', 'fedgen', 'disk'), 'this alone, as JSON')


def ours(name: str, kind: str) -> dict:
    """{'seconds': of each timed round, 'first': of the first, which compiles}.

    kind: 'fedavg' or 'fedgen', or 'disk': FedAvg whose images are read from the store every round.
    """
    w, c = WORKLOADS[name], configuration(name, 'fedgen' if kind == 'fedgen' else 'fedavg')
    c.rounds = 1 + ROUNDS.value
    c.cohort = w.clients if kind == 'disk' else 0
    with tempfile.TemporaryDirectory() as folder:
        seconds, _ = timed(run_of(w, c, on_disk(w, folder) if kind == 'disk' else centers(w)))
    return {'seconds': seconds[1:], 'first': seconds[0]}


def peers_of(name: str) -> list[pathlib.Path]:
    """The scripts of those that can do the work: of W4, the loop alone."""
    scripts = [file.with_suffix('.py') for file in sorted(PEERS.glob('*.txt'))]
    return [s for s in scripts if s.stem == 'torch_loop' or not name.startswith('W4')]


def peer(script: pathlib.Path, w: Workload, arrays: pathlib.Path) -> dict | None:
    """{row: the same} of a peer; None where it is not installed."""
    python = ENVIRONMENTS / script.stem / 'bin' / 'python'
    if not python.exists():
        return None
    work = {**w._asdict(), 'rate': RATE, 'rounds': ROUNDS.value, 'arrays': str(arrays)}
    return told_by([str(python), str(script), json.dumps(work)])


def main(_):
    logging.set_verbosity(logging.WARNING)
    name = WORKLOAD.value
    w = WORKLOADS[name]
    if OURS.value:
        print(json.dumps(ours(name, OURS.value)))
        return
    here = [sys.executable, '-m', 'benchmarks.speed', f'--workload={name}',
            f'--rounds={ROUNDS.value}']
    found = {'fedgen_jax, FedAvg': told_by([*here, '--ours=fedavg'])}
    if name == 'W3':
        found['fedgen_jax, FedGen'] = told_by([*here, '--ours=fedgen'])
    else:
        if not name.startswith('W4'):
            found['fedgen_jax, FedAvg, images on disk'] = told_by([*here, '--ours=disk'])
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / 'arrays.npz'
            image, label = workloads.arrays(w)
            np.savez(file, image=image, label=label)
            for script in peers_of(name):
                times = peer(script, w, file)
                if times is None:
                    print(f'{script.stem}: not installed (make bench-peers), so not timed')
                else:
                    found |= times
    median = {k: statistics.median(t['seconds']) for k, t in found.items()}
    if name != 'W3':
        median['products'] = workloads.round_flops(w) / workloads.gemm_rate(1024)
    own = median['fedgen_jax, FedAvg']
    rows = [
        [k, f'{s:.2f}', f'{w.clients / s:,.0f}', f'{s / own:.2f}',
         f'{found[k]["first"]:.1f}' if k in found else '–']
        for k, s in median.items()
    ]
    print(f'{name}, on {jax.devices()[0].device_kind}')
    head = ['', 's a round', 'clients/s', 'times ours', 'first round, s']
    print(markdown(head, rows))


if __name__ == '__main__':
    cli.cores_as_devices()
    app.run(main)
