"""A seen center's own model: what its labels make of the model that was generated for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedgen_jax.data.examples import of_split, pad
from fedgen_jax.evaluate import (
    canonical,
    metrics_in,
    model_of,
    predict_seen,
    score_seen,
    with_own_change,
)
from fedgen_jax.intervals import resampled
from fedgen_jax.run import Trained
from fedgen_jax.tasks.base import Predicted, Task


def own_model(trained: Trained, client: int, kind: str) -> Any:
    """One of the models that a seen center may choose from (`run.CHOICES`), on the host."""
    train = of_split(trained.seen[client], 'train')
    if kind == 'refined':
        return jax.device_get(model_of(trained, train, client))
    if kind == 'finetuned':
        return jax.device_get(model_of(trained, train, client, labelled=train))
    padded = pad(canonical(trained, train, train), trained.length)
    variables = jax.device_get(trained.program.alone(padded, padded, trained.key))
    return with_own_change(trained, train, variables)


def own_models(trained: Trained, kinds: Sequence[str]) -> dict[str, list]:
    """{kind: a model for each seen center}."""
    return {k: [own_model(trained, i, k) for i in range(len(trained.seen))] for k in kinds}


def choose_own(
    trained: Trained, models: Mapping[str, Sequence], split: str, with_intervals: bool = False
) -> dict:
    """Each seen center's own model: of `own_models` the best on its validation images.

    The first stands unless another is clearly better (`best_of`).  Returns {'seen': scores of
    the chosen on `split`, 'generated': those of the refined models, 'chosen': {center: kind},
    'candidates': {kind: its scores at all centers}}.
    """
    kinds = list(models)
    best = []
    for i in range(len(trained.seen)):
        found = [predict_seen(trained, i, 'val', models[k][i]) for k in kinds]
        best.append(kinds[best_of(trained.program.task, found)])
    chosen = [models[kind][i] for i, kind in enumerate(best)]
    candidates = {k: score_seen(trained, split, models[k]) for k in kinds}
    return {
        'seen': score_seen(trained, split, chosen, with_intervals),
        'generated': candidates.get('refined') or score_seen(trained, split),
        'chosen': {c.name: kind for c, kind in zip(trained.seen, best)},
        'candidates': candidates,
    }


def best_of(task: Task, found: Sequence[Predicted]) -> int:
    """The place of the model with the best headline on the same images; else the first.

    Another than the first must be better by a standard error of their difference, by bootstrap over
    patients: validation images are few, and the first model has what all centers learned.  With
    fewer patients than that takes (`intervals.FEW`) the first stands.
    """
    scores = [task.metrics(p.predictions, p.examples.target, p.examples.weight) for p in found]
    metric = task.headline or next((m for s in scores for m in metrics_in(s)), '')
    if not all(metric in s for s in scores):
        return 0
    sign = -1 if metric in task.lower_is_better else 1
    value = [sign * s[metric] for s in scores]
    best = int(np.argmax(value))
    first, other = (resampled(task, [found[i]], seed=0) for i in (0, best))  # the same patients
    if metric not in first or metric not in other:
        return 0
    error = float(np.nanstd(other[metric] - first[metric]))
    return best if value[best] > value[0] + error else 0


def score_own(
    trained: Trained, split: str, finetune: bool, models: Mapping[str, Sequence]
) -> dict:
    """What a center's labels add to `evaluate`: 'finetuned', and 'seen' and 'own' of its choice.

    Of an algorithm over a base (`Program.base`) also {'base': the same of the base}; what a center
    learns alone is the same for both.

    finetune: whether fine-tuned models are scored.  models: what a seen center chooses from, as
        `own_models` makes them.
    """
    scores, base, kinds = {}, trained.program.base, list(models)
    if kinds:
        own = choose_own(trained, models, split, with_intervals=True)
        scores = {'seen': own.pop('seen'), 'own': own}
    if finetune:
        tuned = models.get('finetuned') or own_models(trained, ['finetuned'])['finetuned']
        scores['finetuned'] = {'seen': score_seen(trained, split, tuned)}
    if base:
        below = trained._replace(program=base)
        again = own_models(below, [k for k in kinds if k != 'local_only'])
        theirs = {k: again.get(k, models[k]) for k in kinds}
        if kinds:
            own = choose_own(below, theirs, split)
            scores['base'] = {'seen': own.pop('seen'), 'own': own}
    return scores
