"""Seconds a round on an accelerator: W1 to W4, by `client_map`, algorithm and precision.

    python -m benchmarks.device --out=FILE             # and --torch=python3, beside PyTorch's loop

Every case has a process of its own.  All compile at once; then one after another is timed, while
the others wait.  A case that is not compiled within `--compiling` seconds is named, and not timed.
`benchmarks/workloads.py` has the work.  'of the rate' is the share of the device's own rate of
large products in that precision (JAX makes float32 products of TF32 on such GPUs), each of the
round's multiplications counted once.
"""

import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks import workloads
from benchmarks.ours import begun, centers, configuration, run_of, told_by
from benchmarks.workloads import RATE, WORKLOADS
from fedgen_jax.report.tables import markdown

CASES = [
    *(f'{w}:fedavg:{m}:float32' for w in ('W1', 'W3') for m in ('map', 'vmap')),
    *(f'W3:fedgen:{m}:float32' for m in ('map', 'vmap')),
    *(f'W2:fedavg:{m}:float32' for m in ('100', 'vmap')),
    *(f'W4-{net}:fedavg:{m}:{dtype}'
      for net in ('resnet18', 'unet', 'lite0-224')
      for m in ('map', 'vmap') for dtype in ('float32', 'bfloat16')),
]
OF_TORCH = ('W1', 'W2', 'W4-resnet18', 'W4-unet', 'W4-lite0-224')

ONLY = flags.DEFINE_list('only', CASES, 'WORKLOAD:ALGORITHM:CLIENT_MAP:PRECISION, these alone')
ROUNDS = flags.DEFINE_integer('rounds', 10, 'timed rounds, after a first one; the median counts')
COMPILING = flags.DEFINE_float('compiling', 600, 'seconds that compiling may take')
CASE = flags.DEFINE_string('case', None, 'this one, once a line comes in; its seconds as JSON')
TORCH = flags.DEFINE_string(
    'torch', None, 'a Python that has PyTorch, for its loop of the same work on the device'
)
OUT = flags.DEFINE_string('out', None, 'a file for every number, as JSON')


def wait_and_time(case: str) -> None:
    """Compiles, says so, and times once told to; prints {'seconds', 'rate'} as JSON."""
    name, algorithm, client_map, dtype = case.split(':')
    c = configuration(name, algorithm)
    c.rounds, c.client_map = 1 + ROUNDS.value, client_map
    if dtype != 'float32':
        c.model.dtype = dtype
    run = run_of(WORKLOADS[name], c, centers(WORKLOADS[name]))
    advance, _, state, private_C = begun(run)
    seconds = []
    for r in range(1 + ROUNDS.value):
        started = time.perf_counter()
        state, private_C, metrics = advance(state, private_C, r, r + 1)
        loss = float(metrics['loss'])
        seconds.append(time.perf_counter() - started)
        if r == 0:
            print('compiled', flush=True)
            sys.stdin.readline()
    if not np.isfinite(loss):
        raise ValueError(f'{case}: the loss is {loss}')
    rate = workloads.gemm_rate(8192, jnp.dtype(dtype))
    device = jax.devices()[0].device_kind
    print(json.dumps({'seconds': seconds[1:], 'rate': rate, 'device': device}), flush=True)


def measured(cases: list[str]) -> dict[str, dict]:
    """{case: what it prints}, of those that compiled in time."""
    command = [sys.executable, '-m', 'benchmarks.device', f'--rounds={ROUNDS.value}']
    environment = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    process = {
        case: subprocess.Popen(
            [*command, f'--case={case}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        )
        for case in cases
    }
    waiting, ready, end = dict(process), [], time.monotonic() + COMPILING.value
    while waiting and (left := end - time.monotonic()) > 0:
        told, _, _ = select.select([p.stdout for p in waiting.values()], [], [], left)
        for case in [c for c, p in waiting.items() if p.stdout in told]:
            if waiting.pop(case).stdout.readline():
                ready.append(case)
    for case in process.keys() - set(ready):
        print(f'{case}: failed, or not compiled within {COMPILING.value:.0f} s: not timed')
        process[case].kill()
    print(f'timing {len(ready)} of {len(cases)} cases', flush=True)
    found = {}
    for case in (c for c in cases if c in ready):
        lines, _ = process[case].communicate('go\n')
        if process[case].returncode == 0:
            found[case] = json.loads(lines.splitlines()[-1])
            print(case, f'{1000 * statistics.median(found[case]["seconds"]):.2f} ms', flush=True)
    return found


def torch_loop(name: str) -> dict:
    """PyTorch's rounds on the same device."""
    w = WORKLOADS[name]
    script = pathlib.Path(__file__).parent / 'peers' / 'torch_loop.py'
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / 'arrays.npz'
        image, label = workloads.arrays(w)
        np.savez(file, image=image, label=label)
        work = {**w._asdict(), 'rate': RATE, 'rounds': ROUNDS.value, 'arrays': str(file),
                'device': 'cuda'}
        return told_by([TORCH.value, str(script), json.dumps(work)])['PyTorch loop']


def row(case: str, found: dict) -> list[str]:
    name, algorithm, client_map, dtype = case.split(':')
    w, seconds = WORKLOADS[name], statistics.median(found['seconds'])
    share = workloads.round_flops(w) / seconds / found['rate'] if algorithm == 'fedavg' else None
    return [
        name, algorithm, client_map, dtype, f'{1000 * seconds:.1f}',
        f'{w.clients * w.steps * w.batch / seconds:,.0f}',
        '–' if share is None else f'{share:.3f}',
    ]


def main(_):
    logging.set_verbosity(logging.WARNING)
    if CASE.value:
        wait_and_time(CASE.value)
        return
    found = measured(ONLY.value)
    if TORCH.value:
        for name in {case.split(':')[0]: None for case in ONLY.value if case.startswith(OF_TORCH)}:
            case = f'{name}:PyTorch loop:–:float32'
            found[case] = {**torch_loop(name), 'rate': float('inf')}
            print(case, f'{1000 * statistics.median(found[case]["seconds"]):.2f} ms', flush=True)
    if OUT.value:
        pathlib.Path(OUT.value).write_text(json.dumps(found, indent=1))
    kinds = {x['device'] for x in found.values() if 'device' in x}
    rates = {case.split(':')[-1]: x['rate'] for case, x in found.items() if 'device' in x}
    print(f'on {", ".join(kinds)}; products of 8192 x 8192: '
          + ', '.join(f'{dtype} {r / 1e12:.0f} TFLOP/s' for dtype, r in rates.items()))
    head = ['', 'algorithm', 'client_map', 'precision', 'ms a round', 'images/s', 'of the rate']
    print(markdown(head, [row(case, x) for case, x in found.items()]))


if __name__ == '__main__':
    app.run(main)
