"""A new center's own labelled steps: what some labels make of the model that was generated for it.

The labelled images of its training split teach (`finetune`, as at a seen center); all others are
scored, so that no image is scored by a model that learned from its label.
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.data.check import say
from fedgen_jax.data.examples import SPLITS, Center, Examples, of_split, take
from fedgen_jax.data.targets import target_of
from fedgen_jax.evaluate import Scores, metrics_of, model_of, predict_on
from fedgen_jax.program import build
from fedgen_jax.run import Restored, Trained


def with_own_steps(done: Restored, steps: int) -> Restored:
    """The run, whose `model_of` takes so many labelled steps at the rate `finetune.lr`."""
    c = ConfigDict(done.config.to_dict())
    c.finetune.steps = steps
    return done._replace(program=build(c, done.classes, len(done.seen)))


def labelled_of(center: Center, target: str) -> Examples:
    """The labelled images of a center's training split.  Raises ValueError where there are none."""
    kind = target_of(target)
    known_N = np.asarray(kind.known(center.examples.target))
    if kind.empty_counts and known_N.any():
        known_N = np.ones_like(known_N)  # an image without objects tells as much (`tell_empty`)
    train_N = center.split == SPLITS.index('train')
    if not np.any(known_N & train_N):
        raise ValueError(
            f'--finetune: no image of {center.name!r} has a {target} and lies in the training '
            f'split: fill in the column {target}, write train in some rows, or leave the flag out'
        )
    return take(center.examples, known_N & train_N)


def tell_empty(center: Center, target: str) -> None:
    """Notes how many images teach that they show nothing: nobody may have looked at them."""
    kind = target_of(target)
    train_N = center.split == SPLITS.index('train')
    empty = int(np.sum(train_N & ~np.asarray(kind.known(center.examples.target))))
    if kind.empty_counts and empty:
        say(
            f'{center.name}: {empty} of its {int(train_N.sum())} training images have no {target}, '
            'and teach that they show nothing: leave out of the folder those that nobody looked at'
        )


def finetuned_model(trained: Trained, center: Center, m_E: np.ndarray | None) -> tuple[Any, dict]:
    """Variables of a new center's model after its labelled steps, and what to tell of them."""
    target = trained.program.task.target
    labelled = labelled_of(center, target)
    tell_empty(center, target)
    variables = model_of(trained, center.examples, m_E=m_E, labelled=labelled)
    return variables, {'finetuned': {'images': len(labelled.weight)}}


def score_finetuned(trained: Trained, center: Center) -> tuple[Scores, Scores]:
    """(scores of the fine-tuned model, of the one before it) on what does not train.

    Both are made of the images of the training split alone.
    """
    train, rest_N = of_split(center, 'train'), center.split != SPLITS.index('train')

    def scores(labelled):
        model = model_of(trained, train, labelled=labelled)
        return metrics_of(trained, predict_on(trained, model, center, rest_N))

    return scores(labelled_of(center, trained.program.task.target)), scores(None)
