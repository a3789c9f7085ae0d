"""The scores that a finished run leaves behind: `summary.json`."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fedgen_jax.algorithms import pools
from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.engine.sums import told_of
from fedgen_jax.evaluate import evaluate
from fedgen_jax.feed import training_examples
from fedgen_jax.files import expand
from fedgen_jax.guard import reopened
from fedgen_jax.named import norm_of
from fedgen_jax.newcomer import check_adapt, score_adapted
from fedgen_jax.oracle import score_oracle
from fedgen_jax.own import own_models, score_own
from fedgen_jax.parties import told_of_identities
from fedgen_jax.program import num_bytes
from fedgen_jax.promise import told
from fedgen_jax.resolution import is_own, resolution_of
from fedgen_jax.run import Run, Trained, after_training, reopen
from fedgen_jax.settings import settings_of

Tell = Callable[[str], None]
OF_OWN = ('own', 'last', 'drawn+own')  # values of `statistics`: a new center's are its own


def summarize(
    run: Run, state, private_C, timing: dict, models: Mapping[str, Sequence] | None = None,
    tell: Tell = lambda _: None,
) -> dict:
    """The content of `summary.json`.

    models: what seen centers choose from (`own.own_models`); default: they are made.
    tell: called with the name of each part that is scored, as it begins.
    """
    c, algorithm = run.config, run.program.algorithm
    resolution = resolution_of(c, run.program.task, (*run.seen, *run.unseen))
    done = after_training(run, state, private_C)
    done = done._replace(own_size=is_own(resolution))
    scores = scores_of(run, done, models, tell)
    if run.program.secure:
        scores['secure'] = told_of(
            run.program.secure, told_of_identities(run), timing.get('secure', [])
        )
    cost = {
        'round_seconds': timing['round_seconds'],
        'compile_seconds': timing['compile_seconds'],
        **sizes_of(algorithm, run, state.shared, private_C),
    }
    return framed(run, len(run.seen), resolution, scores, cost)


def framed(
    run: Run, num_seen: int, resolution: Mapping[str, Any] | None, scores: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> dict:
    """The fields of `summary.json` that are no scores and no cost, around those that are."""
    c, algorithm = run.config, run.program.algorithm
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
        'resolution': resolution,
        **scores,
        'cost': dict(cost),
        'server_model': algorithm.server_model,
        'at_unseen': at_unseen(c, algorithm),
        'sum_only': algorithm.sum_only,
        'privacy': {
            **run.program.protection.spent(c.rounds, c.cohort, num_seen),
            **(told(c, (*run.guard.ledgers.values(), *run.guard.others), run.program.secure)
               if run.guard else {}),
        },
        'config': settings_of(c),
    }


def scores_of(
    run: Run, done: Trained, models: Mapping[str, Sequence] | None, tell: Tell
) -> dict[str, Any]:
    """All scores of a run, in the fields of `summary.json`; arguments as of `summarize`."""
    c, adapts = run.config, bool(run.config.adapt.steps and run.unseen)
    if models is None:
        if c.finetune.choose:
            tell("the seen centers' own models, made first")
        models = own_models(done, c.finetune.choose)
    # A seen center's own model, where it chose one, is scored in place of these.
    groups = ('unseen',) if c.finetune.choose else ('seen', 'unseen')
    scores = evaluate(done, c.score_on, groups, tell)
    if c.oracle.steps:
        tell('the bound, of labels at unseen centers')
        scores['oracle'] = score_oracle(done, c.score_on)
    if adapts:
        check_adapt(run.program, f'adapt.steps={c.adapt.steps}')
        tell('the unseen centers, adapted')
        scores['adapted'] = score_adapted(done, c.score_on, c.adapt.steps)
    if c.finetune.steps or c.finetune.choose:
        tell("the seen centers' own models")
    own = score_own(done, c.score_on, c.finetune.steps > 0, models)
    if run.program.base:
        below, algorithm = done._replace(program=run.program.base), run.program.base.algorithm
        scores['base'] = {
            'title': titled(run, algorithm),
            **evaluate(below, c.score_on, tell=lambda what: tell(f'the base alone, {what}')),
            **({'adapted': score_adapted(below, c.score_on, c.adapt.steps)} if adapts else {}),
            **own.pop('base', {}),
            'cost': sizes_of(algorithm, run, done.shared, done.private_C),
            'at_unseen': at_unseen(c, algorithm),
            'sum_only': algorithm.sum_only,
        }
    return scores | own


def at_unseen(c: ConfigDict, algorithm: Algorithm) -> list[str]:
    """What of an unseen center's unlabelled images its zero-shot model is made from."""
    if not algorithm.server_model:
        return ["nothing: seen centers' models"]
    own = c.statistics in OF_OWN
    of_all = norm_of(c) == 'batch' and not c.model.get('source_norms', False)
    normalized = of_all or c.model.get('last', 'none') != 'none'
    found = {
        'canonical input': c.input.canonical != 'none', 'batch statistics': own and normalized,
        algorithm.unseen: bool(algorithm.unseen),
    }
    return [what for what, used in found.items() if used] or ['nothing']


def sizes_of(algorithm: Algorithm, run: Run, shared: Any, private_C: Any) -> dict[str, Any]:
    """What a client sends and receives in a round, in bytes, and the parameters of each part."""
    state = jax.eval_shape(algorithm.init, run.key)
    sent = {k: shared[k] for k in state.shared} if algorithm.server_model else {}
    if algorithm.down:
        sent = jax.eval_shape(algorithm.down, sent)
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
    in_place = pools(run.config.algorithm)  # what a center sent are its images, before the rounds
    return {
        'bytes_up': 0 if in_place else bytes_up,
        'bytes_down': 0 if in_place else num_bytes(sent),
        'parameters': parameters_of(algorithm, shared),
    }


def parameters_of(algorithm: Algorithm, shared: Any) -> dict[str, int]:
    """{part: how many numbers of the shared state it is}."""
    parts = {part: jax.tree.leaves(shared[name]) for part, name in algorithm.sizes.items()}
    return {part: sum(x.size for x in xs) for part, xs in parts.items()}


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


def evaluate_run(
    workdir: str | pathlib.Path, data: str | None = None, tell: Tell = lambda _: None
) -> dict:
    """The scores of a run's last checkpoint, in the shape of `summary.json`.

    data: the folder of its images, if it is no longer where the configuration says.
    tell: as of `summarize`.
    """
    done, run = reopen(workdir, data)
    run = reopened(run, expand(workdir), done.round)
    timing = {'round_seconds': None, 'compile_seconds': None}
    return {**summarize(run, done.state, done.private_C, timing, tell=tell), 'rounds': done.round}
