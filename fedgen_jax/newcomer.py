"""What may be done for a new center beside the forward pass.

Its model can take a few steps without labels (`algorithms.adaptation`) or with some (`labelled`),
and its class mix can enter its model's decisions (`tasks.prior`).
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax.data.examples import Center, Examples, pad
from fedgen_jax.evaluate import (
    Scores,
    block,
    canonical,
    cross_fitted,
    metrics_of,
    model_of,
    statistic_of,
    with_own_change,
)
from fedgen_jax.frozen import with_features
from fedgen_jax.hypernet import descriptor
from fedgen_jax.program import Program
from fedgen_jax.run import Restored, Trained, read_federation
from fedgen_jax.tasks import Task
from fedgen_jax.tasks.prior import Mix, estimate, log_ratio, stated, trained_mix

ESTIMATE = 'estimate'


class Wanted(NamedTuple):
    """What a command asks for; each but None and 0 changes the model.

    prevalence: 'CLASS=SHARE,...', ESTIMATE or None.
    adapt:      steps without labels.
    finetune:   steps on the center's own labels.
    """

    prevalence: str | None = None
    adapt: int = 0
    finetune: int = 0


class Extras(NamedTuple):
    """What is done beside the forward pass.

    steps:      without labels; 0: none.
    labelled:   steps with labels; 0: none.
    prevalence: the class shares [K] that a center states, ESTIMATE, or None.
    trained:    those that the model's probabilities hold, where `prevalence` needs them.
    classes:    the classes' names.
    """

    steps: int
    labelled: int
    prevalence: np.ndarray | str | None
    trained: Mix | None
    classes: tuple[str, ...]


def extras(workdir: Any, done: Restored, wanted: Wanted) -> Extras:
    """What a command asks for.  Raises ValueError, in one line, where a run cannot do it."""
    task, prevalence, steps = done.program.task, wanted.prevalence, wanted.adapt
    for name, number in (('adapt', steps), ('finetune', wanted.finetune)):
        if number < 0:
            raise ValueError(f'--{name}={number}: a number of steps, 0 for none')
    if wanted.finetune and (steps or prevalence):
        raise ValueError('--finetune teaches the model by labels: it goes with neither --adapt nor '
                         '--prevalence, which are for a center without')
    if steps:
        check_adapt(done.program, f'--adapt={steps}')
    if not prevalence:
        return Extras(steps, wanted.finetune, None, None, done.classes)
    if not has_prior(task):
        raise ValueError(f'--prevalence: task={task.name!r} has no class mix: classification has')
    share = prevalence if prevalence == ESTIMATE else stated(prevalence, done.classes)
    c = done.config
    federation = read_federation(workdir)
    data = [federation.get('data', {}).get(name, {}) for name in federation['seen']]
    mix = trained_mix(
        c.prevalence, c.loss.prior, c.weighting, [of.get('labels') or {} for of in data],
        [of.get('train', 0) for of in data], done.classes,
    )
    if c.data.virtual and mix.natural:
        raise ValueError(
            f'{workdir}: drawn centers trained too (data.virtual={c.data.virtual}), whose class '
            "mix is not kept: train with prevalence=balanced or loss.prior=logits"
        )
    if c.get('fedgen') and c.fedgen.phase == 'after':
        mix = mix._replace(source=f'{mix.source}; the base is taken to have had the same')
    if not isinstance(share, str):
        log_ratio(share, mix.share, done.classes)  # a class that nobody trained is told now
    return Extras(steps, 0, share, mix, done.classes)


def check_adapt(program: Program, field: str) -> None:
    """Raises ValueError where a stranger's model cannot be adapted."""
    if program.adapt is None:
        of = 'answers by more than a model' if program.algorithm.apply else 'has no model'
        what = f'{program.algorithm.title} {of} for a stranger' if (
            program.task.probability
        ) else f'task={program.task.name!r} gives no probabilities of one class to be sure of'
        raise ValueError(f'{field}: {what}')


def has_prior(task: Task) -> bool:
    """Whether a task's predictions are probabilities of one class an image."""
    return task.target == 'label' and task.probability is not None


def with_extras(
    trained: Trained, unlabelled: Examples, m_E: np.ndarray | None, asked: Extras
) -> tuple[Any, dict]:
    """Variables of a center's model, and what was done for it, for the report."""
    variables, told = _generated(trained, unlabelled, m_E, asked)
    if asked.prevalence is None:
        return variables, told
    assert asked.trained is not None
    share_K, doubt = asked.prevalence, ''
    if isinstance(share_K, str):
        probability_NxK = trained.program.predict(variables, unlabelled.image)['probability']
        share_K, doubt = estimate(
            probability_NxK[unlabelled.weight > 0], asked.trained.share, asked.classes
        )
    told['prevalence'] = {
        'estimated': isinstance(asked.prevalence, str),
        'mix': dict(zip(asked.classes, share_K.tolist())),
        'trained': dict(zip(asked.classes, asked.trained.share.tolist())),
        'trained_from': asked.trained.source,
        'doubt': doubt,
    }
    prior_K = log_ratio(share_K, asked.trained.share, asked.classes)
    return {**variables, 'prior': prior_K}, told


def _generated(trained, unlabelled, m_E, asked) -> tuple[Any, dict]:
    """A center's generated model, adapted where that is asked for."""
    if not asked.steps:
        return model_of(trained, unlabelled, m_E=m_E), {}
    variables, objective = adapted_model(trained, unlabelled, asked.steps, m_E)
    told = {'steps': asked.steps, 'before': float(objective[0]), 'after': float(objective[-1])}
    return variables, {'adapted': told}


def adapted_model(
    trained: Trained, unlabelled: Examples, steps: int, m_E: np.ndarray | None = None
) -> tuple[Any, np.ndarray]:
    """Variables of a stranger's model after steps without labels, and the objective [steps + 1]."""
    assert trained.program.adapt is not None
    if m_E is None and trained.program.describe:
        m_E = descriptor.mean(statistic_of(trained, unlabelled))
    padded = pad(canonical(trained, unlabelled, unlabelled), trained.length)
    adapt, shared, key = trained.program.adapt, trained.shared, trained.key
    variables, objective = with_features(
        trained.program.frozen, adapt, padded,
        lambda x: adapt(shared, x, key, m_E, steps=steps), lambda made: made[0],
    )
    if not np.isfinite(objective).all():
        raise ValueError(f'adapt.steps={steps}: the objective is not finite at a new center')
    return with_own_change(trained, unlabelled, variables), objective


def score_adapted(trained: Trained, split: str, steps: int) -> dict | None:
    """A block of the unseen centers' adapted models, cross-fitted as the zero-shot ones are."""
    return block(trained, {
        center.name: metrics_of(trained, cross_fitted(
            trained, center, split, lambda x: adapted_model(trained, x, steps)[0]
        ))
        for center in trained.unseen
    })


def score_extras(trained: Trained, center: Center, asked: Extras) -> Scores:
    """Zero-shot scores of a new center, cross-fitted: of each half, by what the other half tells.

    Its labels are only scored.
    """
    return metrics_of(trained, cross_fitted(
        trained, center, 'test', lambda x: with_extras(trained, x, None, asked)[0]
    ))


def tell_doubts(name: str, told: dict) -> None:
    """Warns of what an estimate may have got wrong."""
    doubt = told.get('prevalence', {}).get('doubt')
    if doubt:
        warnings.warn(f'{name}: {doubt}', stacklevel=3)
