"""One run: data in, rounds, checkpoints, scores out."""

import json
import pathlib
import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fedgen_jax import checkpoint
from fedgen_jax.data import synthetic
from fedgen_jax.data.federated import Center, Source, stack
from fedgen_jax.data.source import load
from fedgen_jax.engine.rounds import cohort, init_run, pad_clients, shard_clients
from fedgen_jax.evaluate import Trained, block, evaluate, of_split, score_seen, seen_statistics
from fedgen_jax.hypernet import descriptor
from fedgen_jax.program import Program, build, choose, num_bytes


class Run(NamedTuple):
    """A configured run, before or after training."""

    config: ConfigDict
    program: Program
    seen: tuple[Center, ...]
    unseen: tuple[Center, ...]
    length: int
    key: jax.Array


def load_source(config: ConfigDict) -> Source:
    """The data set that a configuration names."""
    d = config.data
    choose('data.source', d.source, ('folder', 'synthetic'))
    if d.source == 'synthetic':
        return synthetic.source(d.centers, d.examples, d.image_size, config.seed, d.spread)
    if not d.root:
        raise ValueError('data.root is empty: pass --config.data.root=FOLDER')
    return load(d.root, d.image_size, config.seed, d.cache or None, target='label')


def prepare(config: ConfigDict) -> Run:
    """Loads the data, sets the held-out centers apart and builds the program."""
    choose('score_on', config.score_on, ('test', 'val'))
    for field in ('rounds', 'local_steps', 'batch_size', 'eval_every', 'checkpoint_every'):
        if config[field] < 1:
            raise ValueError(f'{field}={config[field]}: at least 1')
    source = load_source(config)
    names = [c.name for c in source.centers]
    held_out = [name for name in config.data.held_out.split(',') if name]
    for name in held_out:
        choose('data.held_out', name, names)
    seen = tuple(c for c in source.centers if c.name not in held_out)
    if not seen:
        raise ValueError('data.held_out holds out every center: leave at least one to train')
    unseen = tuple(c for c in source.centers if c.name in held_out)
    program = build(config, len(source.classes), len(seen))
    length = max(len(c.split) for c in source.centers)
    return Run(config, program, seen, unseen, length, jax.random.key(config.seed))


def training_data(run: Run):
    """(data_C, id_C) on the mesh, padded so that every choice of held-out centers has one shape."""
    data_C = pad_clients(
        stack([of_split(c, 'train') for c in run.seen], run.length), run.program.mesh.size
    )
    id_C = np.arange(len(data_C.weight), dtype=np.int32)
    return shard_clients((data_C, id_C), run.program.mesh)


def trained(run: Run, state, private_C) -> Trained:
    """The run after training, ready to be scored."""
    return Trained(
        run.program, state.shared, jax.device_get(private_C), run.seen, run.unseen, run.length,
        run.key,
    )  # fmt: skip


def train(config: ConfigDict, workdir: str | pathlib.Path, progress: bool = True) -> dict:
    """Trains, or goes on where the last checkpoint ends; returns and writes `summary.json`.

    Also writes `config.json`, `metrics.jsonl` (a line an evaluation), `checkpoints/` and, for a
    learned descriptor, `statistics/` (each center's own, and `pooled.json`, the server's).
    """
    workdir = pathlib.Path(workdir)
    run = prepare(config)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / 'config.json', config.to_dict())

    data_C, id_C = training_data(run)
    state, private_C = init_run(run.program.algorithm, run.program.mesh, run.key, id_C)
    with checkpoint.manager(workdir) as checkpoints:
        first, (state, private_C) = checkpoint.restore(checkpoints, (state, private_C))
        keep_lines(workdir / 'metrics.jsonl', first)
        state, private_C, timing = train_rounds(
            run, state, private_C, data_C, id_C, first, checkpoints, workdir, progress
        )
    summary = summarize(run, state, private_C, timing)
    save_statistics(workdir, trained(run, state, private_C))
    write_json(workdir / 'summary.json', summary)
    return summary


def train_rounds(run, state, private_C, data_C, id_C, first, checkpoints, workdir, progress):
    """Rounds first .. config.rounds - 1, evaluated and saved at their intervals."""
    c = run.config
    started = time.monotonic()
    args = (state, private_C, data_C, id_C, run.key)
    rounds = compiled(run.program, args)
    compile_seconds = time.monotonic() - started
    round_seconds = []
    bar = tqdm(total=c.rounds, initial=first, unit='round', disable=not progress, leave=False)
    last_saved = first
    while first < c.rounds:
        last = min(next_stop(first, c), c.rounds)
        begun = time.monotonic()
        state, private_C, metrics = rounds(
            state, private_C, data_C, id_C, run.key, np.int32(first), np.int32(last)
        )
        loss = float(metrics['loss'])
        round_seconds.append((time.monotonic() - begun) / (last - first))
        bar.update(last - first)
        bar.set_postfix(loss=f'{loss:.3f}')
        first = last
        if first % c.eval_every == 0 or first == c.rounds:
            scores = score_seen(trained(run, state, private_C), 'val')
            seconds = round(time.monotonic() - started, 2)
            line = {'round': first, 'seconds': seconds, 'loss': loss, 'seen': block(scores)}
            with open(workdir / 'metrics.jsonl', 'a') as file:
                file.write(json.dumps(line) + '\n')
        if first % c.checkpoint_every == 0 or first == c.rounds:
            checkpoint.save(checkpoints, first, (state, private_C))
            last_saved = first
    bar.close()
    timing = {
        'round_seconds': statistics.median(round_seconds) if round_seconds else None,
        'compile_seconds': compile_seconds,
    }
    return state, private_C, timing


_DISPATCH = 5  # rounds at most in one dispatch: how often the progress bar moves


def next_stop(first: int, c: ConfigDict) -> int:
    """The round at which a dispatch that begins at `first` ends."""
    steps = (_DISPATCH, c.eval_every, c.checkpoint_every)
    return min((first // n + 1) * n for n in steps)


_COMPILED = {}


def compiled(program: Program, args) -> Any:
    """The rounds function compiled ahead of time, once for each program and shapes."""
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(args))
    found = (id(program.rounds), shapes)
    if found not in _COMPILED:
        _COMPILED[found] = program.rounds.lower(*args, np.int32(0), np.int32(1)).compile()
    return _COMPILED[found]


def restore_run(workdir: str | pathlib.Path, data: str | None = None):
    """(run, state, private_C, round) of a workdir, from its last checkpoint.

    data: the folder of the training data, if it is no longer where the configuration says.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / 'config.json').is_file():
        raise ValueError(f'{workdir}/config.json: missing, so this is no run of launch.train')
    config = ConfigDict(json.loads((workdir / 'config.json').read_text()))
    if data:
        config.data.root = data
    run = prepare(config)
    _, id_C = training_data(run)
    like = init_run(run.program.algorithm, run.program.mesh, run.key, id_C)
    with checkpoint.manager(workdir) as checkpoints:
        round_, (state, private_C) = checkpoint.restore(checkpoints, like)
    if not round_:
        raise ValueError(f'{workdir}/checkpoints: no checkpoint yet: let launch.train reach one')
    return run, state, private_C, round_


def evaluate_run(workdir: str | pathlib.Path, data: str | None = None) -> dict:
    """The scores of a run's last checkpoint, in the shape of `summary.json`."""
    run, state, private_C, round_ = restore_run(workdir, data)
    timing = {'round_seconds': None, 'compile_seconds': None}
    return {**summarize(run, state, private_C, timing), 'rounds': round_}


def summarize(run: Run, state, private_C, timing: dict) -> dict:
    """The content of `summary.json`."""
    c = run.config
    shared = state.shared
    scores = evaluate(trained(run, state, private_C), c.score_on, c.finetune.steps > 0)
    contribution = jax.eval_shape(
        run.program.algorithm.client_update,
        shared,
        jax.tree.map(lambda x: x[0], private_C),
        jax.tree.map(lambda x: x[0], stack([of_split(run.seen[0], 'train')])),
        run.key,
    )[0]
    sent = {} if c.algorithm == 'local' else shared

    def size(name):
        return sum(x.size for x in jax.tree.leaves(shared.get(name, {})))

    return {
        'task': c.task,
        'algorithm': c.algorithm,
        'local': c.local if c.algorithm == 'fedgen' else None,
        'seed': c.seed,
        'held_out': c.data.held_out,
        'rounds': c.rounds,
        'device': jax.devices()[0].device_kind,
        'score_on': c.score_on,
        **scores,
        'cost': {
            'bytes_up': num_bytes(contribution),
            'bytes_down': num_bytes(sent),
            **timing,
            'parameters': {
                'base': size('theta'),
                'generator': size('phi'),
                'descriptor': size('psi'),
            },
        },
    }


def save_statistics(workdir: pathlib.Path, done: Trained) -> None:
    """Writes each seen center's statistic, which is its own, and their sum, the server's."""
    statistics_ = seen_statistics(done)
    if not statistics_:
        return
    pooled = descriptor.pool(statistics_.values())
    (workdir / 'statistics').mkdir(exist_ok=True)
    for name, s in {**statistics_, 'pooled': pooled}.items():
        value = {'total': s.total.tolist(), 'count': s.count, 'psi': s.psi}
        write_json(workdir / 'statistics' / f'{name}.json', value)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(value, indent=1, default=list) + '\n')
    partial.rename(path)


def keep_lines(path: pathlib.Path, last: int) -> None:
    """Drops the lines of rounds after the checkpoint that a run goes on from."""
    if path.exists():
        lines = [x for x in path.read_text().splitlines() if json.loads(x)['round'] <= last]
        path.write_text(''.join(x + '\n' for x in lines))
