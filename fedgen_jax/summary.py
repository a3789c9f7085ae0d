"""The scores that a finished run leaves behind: `summary.json`."""

import pathlib
from typing import Any

import jax

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.data.forms import folder_of
from fedgen_jax.engine.sums import told_of
from fedgen_jax.evaluate import (
    evaluate,
    predict_seen,
    predict_unseen,
)
from fedgen_jax.feed import training_examples
from fedgen_jax.files import expand
from fedgen_jax.guard import reopened
from fedgen_jax.newcomer import check_adapt, score_adapted
from fedgen_jax.oracle import score_oracle
from fedgen_jax.own import score_own
from fedgen_jax.parties import told_of_identities
from fedgen_jax.program import num_bytes
from fedgen_jax.promise import told
from fedgen_jax.run import Run, after_training, reopen
from fedgen_jax.settings import settings_of
from fedgen_jax.tasks.coco_metrics import only_images, to_folder_results


def summarize(run: Run, state, private_C, timing: dict) -> dict:
    """The content of `summary.json`."""
    c = run.config
    shared = state.shared
    done = after_training(run, state, private_C)
    scores = evaluate(done, c.score_on, with_intervals=not c.finetune.choose)
    if c.oracle.steps:
        scores['oracle'] = score_oracle(done, c.score_on)
    if c.adapt.steps and run.unseen:
        check_adapt(run.program, f'adapt.steps={c.adapt.steps}')
        scores['adapted'] = score_adapted(done, c.score_on, c.adapt.steps)
    own = score_own(done, c.score_on, c.finetune.steps > 0, tuple(c.finetune.choose))
    algorithm, base = run.program.algorithm, run.program.base
    if base:
        below = done._replace(program=base)
        scores['base'] = {
            'title': titled(run, base.algorithm),
            **evaluate(below, c.score_on),
            **({'adapted': score_adapted(below, c.score_on, c.adapt.steps)}
               if c.adapt.steps and run.unseen else {}),
            **own.pop('base', {}),
            'cost': sizes_of(base.algorithm, run, shared, private_C),
        }
    scores |= own
    if run.program.secure:
        scores['secure'] = told_of(
            run.program.secure, told_of_identities(run), timing.get('secure', [])
        )
    return {
        'method': c.method or title_of(run),
        'title': title_of(run),
        'task': c.task,
        'algorithm': c.algorithm,
        'seed': c.seed,
        'held_out': c.data.held_out,
        'rounds': c.rounds,
        'device': jax.devices()[0].device_kind,
        'score_on': c.score_on,
        'lower_is_better': list(run.program.task.lower_is_better),
        'units': dict(run.program.task.units),
        'headline': run.program.task.headline,
        **scores,
        'cost': {
            'round_seconds': timing['round_seconds'],
            'compile_seconds': timing['compile_seconds'],
            **sizes_of(algorithm, run, shared, private_C),
        },
        'server_model': algorithm.server_model,
        'privacy': {
            **run.program.protection.spent(c.rounds, c.cohort, len(run.seen)),
            **(told(c, tuple(run.guard.ledgers.values()), run.program.secure)
               if run.guard else {}),
        },
        'config': settings_of(c),
    }


def sizes_of(algorithm: Algorithm, run: Run, shared: Any, private_C: Any) -> dict[str, Any]:
    """What a client sends and receives in a round, in bytes, and the parameters of each part."""
    state = jax.eval_shape(algorithm.init, run.key)
    sent = {k: shared[k] for k in state.shared} if algorithm.server_model else {}
    contribution = jax.eval_shape(
        algorithm.client_update,
        shared,
        jax.eval_shape(lambda t: jax.tree.map(lambda x: x[0], t), private_C),
        training_examples(run, 0),
        run.key,
    )[0]
    bytes_up = num_bytes(contribution)
    if run.program.secure:
        numbers = sum(x.size for x in jax.tree.leaves(contribution))
        bytes_up = numbers * run.program.secure.word // 8
    parts = {part: jax.tree.leaves(shared[name]) for part, name in algorithm.sizes.items()}
    return {
        'bytes_up': bytes_up,
        'bytes_down': num_bytes(sent),
        'parameters': {part: sum(x.size for x in xs) for part, xs in parts.items()},
    }


def title_of(run: Run) -> str:
    """The method's name for people; 'FedAvg + shifts' where it trained on virtual centers too.

    They are a part of every method that generates models, whose name does not mention them.  Drawn
    centers are named of all: 'FedGen + drawn centers'.
    """
    return titled(run, run.program.algorithm)


def titled(run: Run, algorithm: Algorithm) -> str:
    """`title_of`, of an algorithm under a run's configuration."""
    shifts, title = run.config.shifts, algorithm.title
    shifted = shifts.acquisition or shifts.zoom != 1
    if shifted and 'generator' not in algorithm.sizes:
        title += ' + shifts'
    if run.drawing and run.mix:
        title += ', drawn centers alone' if run.mix.drawn == run.mix.size else ' + drawn centers'
    return title


def evaluate_run(workdir: str | pathlib.Path, data: str | None = None) -> dict:
    """The scores of a run's last checkpoint, in the shape of `summary.json`.

    data: the folder of its images, if it is no longer where the configuration says.
    """
    done, run = reopen(workdir, data)
    run = reopened(run, expand(workdir))
    timing = {'round_seconds': None, 'compile_seconds': None}
    return {**summarize(run, done.state, done.private_C, timing), 'rounds': done.round}


def coco_results(
    workdir: str | pathlib.Path, data: str | None = None
) -> tuple[list[dict], dict]:
    """Detections of the refined models on the images that are scored, as COCO's results; the truth.

    They name images and categories by the ids of the folder's annotations.json, in its pixels.  The
    truth is that file with the scored images alone, so that the others do not count as missed.
    """
    done, run = reopen(workdir, data)
    run = reopened(run, expand(workdir))
    c, fed = run.config, after_training(run, done.state, done.private_C)
    if run.program.task.target != 'box' or c.data.source != 'folder':
        raise ValueError(f'{workdir}: COCO detections need task=detection and data.source=folder')
    found = [predict_seen(fed, i, c.score_on) for i in range(len(fed.seen))]
    if fed.program.algorithm.server_model:  # else a stranger has no model of its own
        found += [predict_unseen(fed, center, c.score_on) for center in fed.unseen]
    root = folder_of(c.data.root)
    results = [
        result
        for p in found
        for result in to_folder_results(
            p.predictions, p.path, root, c.data.image_size, run.classes
        )
    ]
    return results, only_images(root, {path for p in found for path in p.path})
