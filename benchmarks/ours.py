"""This project's rounds on the workloads of `benchmarks/workloads.py`."""

import json
import subprocess
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import workloads
from benchmarks.workloads import RATE, WORKLOADS, Workload
from configs import common
from fedgen_jax.data.examples import Center, Examples
from fedgen_jax.data.source import assemble, to_records
from fedgen_jax.data.store import stored
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.feed import all_steps, cohort_steps
from fedgen_jax.program import build, mix_of_run
from fedgen_jax.run import Run, client_ids
from fedgen_jax.tasks import TASKS


def configuration(name: str, algorithm: str):
    """What launch.train does by default, with the workload's network and optimizer."""
    w = WORKLOADS[name]
    c = common.base()
    c.algorithm, c.batch_size, c.local_steps = algorithm, w.batch, w.steps
    if w.model == 'cnn':
        c.model.name = w.model  # with the fields of the configuration
    else:
        c.model = ConfigDict({'name': w.model, **w.options})
    c.task = w.task
    c.data.image_size = w.image[0]
    c.client.lr, c.client.momentum, c.client.clip = RATE, 0.0, 0.0
    if name != 'W3':
        c.shifts.flips, c.shifts.turns, c.shifts.acquisition = False, False, 0.0
    c.fedgen.modes = ('film', 'lowrank', 'head')
    return c


def run_of(w: Workload, c: ConfigDict, seen: tuple[Center, ...]) -> Run:
    """A run of these clients."""
    classes = tuple(str(k) for k in range(workloads.NUM_CLASSES))
    program, mix = build(c, classes, len(seen)), mix_of_run(c, len(seen))
    return Run(c, classes, program, seen, (), w.examples, jax.random.key(0), mix)


def begun(run: Run) -> tuple[Any, Any, Any, Any]:
    """(advance, its compiled rounds, the first state, the first private states), as in `feed`."""
    id_C = client_ids(len(run.seen), run.program)
    state, private_C = init_run(run.program.algorithm, run.program.mesh, run.key, id_C)
    steps = all_steps
    if run.mix:
        private_C, steps = jax.tree.map(np.array, private_C), cohort_steps
    return *steps(run, state, private_C, 0, lambda: None), state, private_C


def timed(run: Run) -> tuple[list[float], Any]:
    """Seconds of each round, the first with its compilation, and the compiled rounds."""
    started = time.perf_counter()
    advance, compiled, state, private_C = begun(run)
    seconds = []
    for r in range(run.config.rounds):
        state, private_C, metrics = advance(state, private_C, r, r + 1)
        loss = float(metrics['loss'])
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    if not np.isfinite(loss):
        raise ValueError(f'the loss is {loss}')
    return seconds, compiled


def told_by(command: list[str]) -> dict:
    """The JSON in the last line of a command: of one that has the device, and memory, to itself."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def centers(w: Workload) -> tuple[Center, ...]:
    """The clients; all their images are for training."""
    image, label = workloads.arrays(w)
    path, target = tuple(f'{i:06d}' for i in range(w.examples)), TASKS[w.task](('', '')).target
    split, weight = np.zeros(w.examples, np.int8), np.ones(w.examples, np.float32)
    return tuple(
        Center(f'{c:06d}', Examples(x, {target: y}, weight), split, path, path)
        for c, (x, y) in enumerate(zip(workloads.three_channels(image), label))
    )


def on_disk(w: Workload, folder: str) -> tuple[Center, ...]:
    """The same, their images in array_record files."""
    classes = {'label': [str(k) for k in range(workloads.NUM_CLASSES)]}
    records, _ = stored({}, lambda: to_records(centers(w)), {}, folder, ('image',))
    return assemble(records, classes, 0, 'label').centers
