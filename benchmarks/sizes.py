"""Models at the size that people train: parameters, FLOPs, seconds a step, peak memory.

    python -m benchmarks.sizes --batch=8

A row is a process of its own: five clients of random images, FedGen with film, lowrank and head,
shifts on; one round of one step each, compiled, then timed.
"""

import json
import resource
import sys
import time

import jax
import numpy as np
from absl import app, flags

from benchmarks.ours import told_by
from benchmarks.workloads import flops_of
from configs import common
from fedgen_jax.data.examples import Examples
from fedgen_jax.data.targets import target_of
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.engine.clients import client_map_of
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.program import make_algorithm
from fedgen_jax.report.tables import markdown

CASES = {
    'ResNet-18, 224': {
        'task': 'classification', 'data.image_size': 224, 'model.name': 'resnet',
        'model.widths': (64, 128, 256, 512), 'model.depth': 2,
    },
    'U-Net of 4 levels, 256': {
        'task': 'segmentation', 'data.image_size': 256, 'model.name': 'unet',
        'model.widths': (32, 64, 128, 256), 'model.depth': 2,
    },
    'detector, 256': {
        'task': 'detection', 'data.image_size': 256, 'model.name': 'detector',
        'model.widths': (32, 64, 128, 256), 'model.depth': 2,
    },
}
CLASSES = ('a', 'b', 'c', 'd', 'e')
CLIENTS, BOXES = 5, 32

BATCH = flags.DEFINE_integer('batch', 8, 'images a step, and at most in a support set')
MAP = flags.DEFINE_string('client_map', 'auto', 'as in fedgen_jax/config.py')
CASE = flags.DEFINE_enum('case', None, CASES, 'one row, as JSON; default: all, as a table')


def federation(size: int, num: int, target: str) -> Examples:
    """Random images and targets of the clients."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, size / 2, (CLIENTS, num, BOXES, 2))
    targets = {
        'label': rng.integers(0, len(CLASSES), (CLIENTS, num)).astype(np.int32),
        'mask': rng.integers(0, len(CLASSES), (CLIENTS, num, size, size), dtype=np.uint8),
        'box': np.concatenate([corner, corner + 20], -1).astype(np.float32),
        'box_class': rng.integers(0, len(CLASSES), (CLIENTS, num, BOXES)).astype(np.int32),
    }
    image = rng.integers(0, 256, (CLIENTS, num, size, size, 3), dtype=np.uint8)
    kept = {key: targets[key] for key in target_of(target).arrays}
    return Examples(image, kept, np.ones((CLIENTS, num), np.float32))


def measure(case: dict, batch: int) -> dict:
    """One row."""
    c = common.base()
    c.update_from_flattened_dict({
        **case, 'batch_size': batch, 'fedgen.support': batch, 'local_steps': 1,
        'client_map': MAP.value, 'fedgen.modes': ('film', 'lowrank', 'head'),
    })
    size = c.data.image_size
    algorithm, local = make_algorithm(c, size, CLASSES, CLIENTS)
    mesh, key = client_mesh(1), jax.random.key(0)
    data_C = shard_clients(federation(size, 2 * batch, local.task.target), mesh)
    id_C = shard_clients(np.arange(CLIENTS, dtype=np.int32), mesh)
    state, private_C = init_run(algorithm, mesh, key, id_C)
    count = {
        k: sum(x.size for x in jax.tree.leaves(state.shared[k])) for k in ('theta', 'phi', 'psi')
    }
    flops = flops_of(local.model, state.shared['theta'], size)
    started = time.monotonic()
    rounds = make_rounds(algorithm, mesh, client_map_of(c, size)).lower(
        state, private_C, data_C, id_C, key, np.int32(0), np.int32(1)
    )
    rounds = rounds.compile()
    compiling = time.monotonic() - started
    seconds = []
    for r in range(3):
        started = time.monotonic()
        state, private_C, metrics = rounds(
            state, private_C, data_C, id_C, key, np.int32(r), np.int32(r + 1)
        )
        loss = float(metrics['loss'])
        seconds.append((time.monotonic() - started) / CLIENTS)
    # What an evaluation takes, whose memory counts too.
    predict = jax.jit(lambda p, x: local.task.predict(local.model.apply({'params': p}, x / 255)))
    in_chunks(predict, state.shared['theta'], np.asarray(data_C.image[0]))
    if not np.isfinite(loss):
        raise ValueError(f'{case}: the loss is {loss}')
    on_device = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
    peak = on_device or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **count, 'gflops': flops / 1e9, 'compiling': compiling, 'seconds': min(seconds),
        'peak': peak / 2**30, 'device': jax.devices()[0].device_kind,
    }


def row(name: str, m: dict) -> list[str]:
    ratio = m['phi'] / m['theta']
    return [
        name, f'{m["theta"]:,}', f'{m["phi"]:,} ({ratio:.2f})', f'{m["psi"]:,}',
        f'{m["gflops"]:.2f}', f'{m["seconds"]:.2f}', f'{m["compiling"]:.0f}', f'{m["peak"]:.1f}',
        m['device'],
    ]


def main(_):
    if CASE.value:
        print(json.dumps(measure(CASES[CASE.value], BATCH.value)))
        return
    rows = []
    for name in CASES:
        found = told_by(
            [sys.executable, '-m', 'benchmarks.sizes', f'--case={name}', f'--batch={BATCH.value}',
             f'--client_map={MAP.value}']
        )
        rows.append(row(name, found))
    head = [
        'model', 'parameters', 'generator (of them)', 'descriptor', 'GFLOPs an image',
        f's a client and step of {BATCH.value}', 'compiling, s', 'peak GiB', 'on',
    ]
    print(markdown(head, rows))


if __name__ == '__main__':
    app.run(main)
