"""Seconds a round on an accelerator: W1 to W4, by `client_map`, algorithm and precision.

    python -m benchmarks.device --processes=8          # and --torch=python3, beside PyTorch's loop

The programs are compiled first, by several processes at once, into JAX's cache; then one process
times them one after another.  `benchmarks/workloads.py` has the work.  'of the rate' is the share
of the device's own rate of large products in that precision (float32 products are TF32 where JAX
makes them so), each of the round's multiplications counted once.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks import workloads
from benchmarks.ours import centers, configuration, run_of, timed, told_by
from benchmarks.workloads import RATE, WORKLOADS
from fedgen_jax.report.tables import markdown

CASES = [
    *((w, 'fedavg', m, 'float32') for w in ('W1', 'W3') for m in ('map', '5', 'vmap')),
    *(('W3', 'fedgen', m, 'float32') for m in ('map', '5', 'vmap')),
    *(('W2', 'fedavg', m, 'float32') for m in ('map', '100', 'vmap')),
    *((f'W4-{net}', 'fedavg', m, dtype)
      for net in ('resnet18', 'unet', 'lite0-96', 'lite0-224')
      for m in ('map', 'vmap') for dtype in ('float32', 'bfloat16')),
    *((f'W4-{net}', 'fedgen', 'vmap', dtype)
      for net in ('resnet18', 'unet') for dtype in ('float32', 'bfloat16')),
]

ROUNDS = flags.DEFINE_integer('rounds', 5, 'timed rounds, after a first one; the median counts')
PROCESSES = flags.DEFINE_integer('processes', 4, 'that compile at once')
PART = flags.DEFINE_string('part', None, 'i/n: compile every n-th case from the i-th on, alone')
TORCH = flags.DEFINE_string('torch', None, 'a Python that has PyTorch, for its loop on the device')
OUT = flags.DEFINE_string('out', None, 'a file for every number, as JSON')


def run_of_case(name: str, algorithm: str, client_map: str, dtype: str, rounds: int):
    c = configuration(name, algorithm)
    c.rounds, c.client_map = 1 + rounds, client_map
    if dtype != 'float32':
        c.model.dtype = dtype
    return run_of(WORKLOADS[name], c, centers(WORKLOADS[name]))


def rate_of(dtype: str) -> float:
    """FLOPs a second of products of [8192, 8192]."""
    return workloads.gemm_rate(8192, jnp.dtype(dtype))


def compile_all() -> None:
    """Every case compiled by processes of this command, each with a part of them."""
    n = PROCESSES.value
    parts = [
        subprocess.Popen([sys.executable, '-m', 'benchmarks.device', f'--part={i + 1}/{n}'])
        for i in range(n)
    ]
    if failed := [i for i, p in enumerate(parts) if p.wait()]:
        raise SystemExit(f'part {failed[0] + 1} of {n} could not compile its cases')


def torch_loop(name: str) -> float:
    """The median of PyTorch's rounds on the same device."""
    w = WORKLOADS[name]
    script = pathlib.Path(__file__).parent / 'peers' / 'torch_loop.py'
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / 'arrays.npz'
        image, label = workloads.arrays(w)
        np.savez(file, image=image, label=label)
        work = {**w._asdict(), 'rate': RATE, 'rounds': ROUNDS.value, 'arrays': str(file),
                'device': 'cuda'}
        found = told_by([TORCH.value, str(script), json.dumps(work)])
    return statistics.median(found['PyTorch loop']['seconds'])


def main(_):
    logging.set_verbosity(logging.WARNING)
    if PART.value:
        i, n = map(int, PART.value.split('/'))
        for case in CASES[i - 1 :: n]:
            timed(run_of_case(*case, rounds=1))
        return
    compile_all()
    rate = {dtype: rate_of(dtype) for dtype in ('float32', 'bfloat16')}
    found = []
    for name, algorithm, client_map, dtype in CASES:
        w = WORKLOADS[name]
        seconds = statistics.median(
            timed(run_of_case(name, algorithm, client_map, dtype, ROUNDS.value))[0][1:]
        )
        share = workloads.round_flops(w) / seconds / rate[dtype] if algorithm == 'fedavg' else None
        found.append({
            'workload': name, 'algorithm': algorithm, 'client_map': client_map, 'dtype': dtype,
            'seconds': seconds, 'share': share,
        })
        print(found[-1], flush=True)
    if TORCH.value:
        for name in ('W1', 'W2', 'W4-resnet18', 'W4-unet', 'W4-lite0-96', 'W4-lite0-224'):
            found.append({
                'workload': name, 'algorithm': 'PyTorch loop', 'client_map': 'map',
                'dtype': 'float32', 'seconds': torch_loop(name), 'share': None,
            })
            print(found[-1], flush=True)
    if OUT.value:
        device = jax.devices()[0].device_kind
        pathlib.Path(OUT.value).write_text(
            json.dumps({'device': device, 'rate': rate, 'rows': found}, indent=1)
        )
    print(f'on {jax.devices()[0].device_kind}; products of 8192: '
          + ', '.join(f'{k} {v / 1e12:.0f} TFLOP/s' for k, v in rate.items()))
    rows = []
    for row in found:
        w, share = WORKLOADS[row['workload']], row['share']
        rows.append([
            row['workload'], row['algorithm'], row['client_map'], row['dtype'],
            f'{1000 * row["seconds"]:.1f}',
            f'{w.clients * w.steps * w.batch / row["seconds"]:,.0f}',
            '–' if share is None else f'{share:.3f}',
        ])
    head = ['', 'algorithm', 'client_map', 'precision', 'ms a round', 'images/s', 'of the rate']
    print(markdown(head, rows))


if __name__ == '__main__':
    app.run(main)
