"""Scores of a trained federation: seen and unseen centers, the center model, the controls.

A seen center's descriptor comes from its training images, without labels, and its score from the
split that `score_on` names.  An unseen center is cross-fitted: the descriptor of one half of its
images scores the other half, and back; in development (`score_on='val'`) its training split gives
the descriptor and its validation split the score, so that its test images stay unopened.

Masks are scored at the model's size, and at their own where `Trained.own_size` says so.
"""

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedgen_jax.canonical import Change, change_from, on_canonical, own_change
from fedgen_jax.data.examples import SPLITS, Center, Examples, of_split, pad, take
from fedgen_jax.frozen import with_features
from fedgen_jax.hypernet import descriptor
from fedgen_jax.intervals import of_block
from fedgen_jax.resolution import at_own_size
from fedgen_jax.run import Trained
from fedgen_jax.schema import OF_ONE_MODEL
from fedgen_jax.tasks.base import Predicted

Scores = dict[str, Any]  # as `Task.metrics` returns them


def halves(center: Center) -> np.ndarray:
    """bool [N]: a half of the patients (or images), every other one in the order of a hash."""
    units = sorted(set(center.unit), key=lambda u: (zlib.crc32(u.encode()), u))
    return np.isin(center.unit, units[::2])


def statistic_of(trained: Trained, images: Examples) -> descriptor.Statistic:
    """The additive statistic of a set of images, as it is released.

    Raises ValueError without a learned descriptor.
    """
    if trained.program.describe is None:
        raise ValueError(f'{trained.program.algorithm.title}: has no learned descriptor')
    images = canonical(trained, images, images)
    vectors = trained.program.describe(trained.shared, images.image)
    psi = descriptor.hash_of(trained.shared['psi'])
    own = descriptor.statistic(vectors, images.weight, psi)
    return trained.program.protection.statistic(own)


def seen_statistics(trained: Trained) -> dict[str, descriptor.Statistic] | None:
    """Each seen center's statistic, of its training images under the final descriptor network.

    Of a private run those that were released, if any, which are never made anew.
    """
    if trained.program.describe is None:
        return None
    if trained.released is not None:
        return dict(trained.released)
    return {c.name: statistic_of(trained, of_split(c, 'train')) for c in trained.seen}


def model_of(
    trained: Trained, unlabelled: Examples, client: int | None = None,
    m_E: np.ndarray | None = None, labelled: Examples | None = None, whole: bool = False,
) -> Any:
    """Variables of a center's refined model, made from its unlabelled images.

    client: the number of a seen center; None: a stranger.  m_E: replaces the images' descriptor.
    whole: whether it is the one model for all, whose `m_E`, the pool's, is taken as it is.
    """
    private, name = None, None if client is None else trained.seen[client].name
    if client is not None:
        private = jax.tree.map(lambda x: x[client], trained.private_C)
    elif whole and trained.program.describe:
        private = {'id': np.int32(-1)}  # nobody's, and no stranger's
    if m_E is None and client is not None and trained.released:
        m_E = descriptor.mean(trained.released[trained.seen[client].name])
    if m_E is None and trained.program.describe:
        m_E = descriptor.mean(statistic_of(trained, unlabelled))
    padded = pad(canonical(trained, unlabelled, unlabelled, name), trained.length)
    if labelled is not None:
        labelled = pad(canonical(trained, unlabelled, labelled, name), trained.length)
    program, shared, key = trained.program, trained.shared, trained.key
    made = with_features(program.frozen, program.personalize, padded, lambda x: (
        program.personalize(shared, private, x, labelled, key, m_E)
    ))
    return with_own_change(trained, unlabelled, made, name)


def with_own_change(
    trained: Trained, unlabelled: Examples, variables: Any, name: str | None = None
) -> Any:
    """A model's variables, and how a center's images come to it: what `predict` needs."""
    change = change_of(trained, unlabelled, name)
    return variables if change is None else {**variables, 'canonical': change}


def canonical(
    trained: Trained, unlabelled: Examples, examples: Examples, name: str | None = None
) -> Examples:
    """A center's examples on canonical input, by its unlabelled images; else as they are.

    name: of a seen center.
    """
    change = change_of(trained, unlabelled, name)
    return on_canonical(trained.program.input, change, examples)


def change_of(trained: Trained, unlabelled: Examples, name: str | None) -> Change | None:
    """A center's change: by the moments that it released, as in training, or by its images'."""
    made = trained.program.input
    if made and name is not None and trained.moments:
        return change_from(made, trained.reference, trained.moments[name])
    return own_change(made, trained.reference, unlabelled)


def score(trained: Trained, variables: Any, examples: Examples) -> Scores:
    """The task's metrics of a model on examples, at the model's size."""
    predictions = trained.program.predict(variables, examples.image)
    return trained.program.task.metrics(predictions, examples.target, examples.weight)


def block(trained: Trained, centers: Mapping[str, Scores]) -> dict | None:
    """{'mean', 'worst', 'centers'} of scores a center; None where there are none.

    A metric's mean and worst are over the centers that have it.  What is no number is left out.
    """
    if not centers:
        return None
    fullest = sorted(centers.values(), key=lambda s: -len(metrics_in(s)))  # keeps their order
    names = dict.fromkeys(k for s in fullest for k in metrics_in(s))
    kept = {
        name: {k: x for k, x in s.items() if k not in names or isinstance(x, float)}
        for name, s in centers.items()
    }
    values = {k: [s[k] for s in kept.values() if k in s] for k in names}
    lower = trained.program.task.lower_is_better
    return {
        'mean': {k: float(np.mean(v)) for k, v in values.items()},
        'worst': {k: float(max(v) if k in lower else min(v)) for k, v in values.items()},
        'centers': kept,
    }


def metrics_in(scores: Scores) -> dict[str, float]:
    """The metrics among scores, without counts and the like."""
    return {k: v for k, v in scores.items() if isinstance(v, float)}


def mean_scores(scores: Sequence[Any]) -> Any:
    """The mean over models that were scored on the same examples; counts and names stay.

    A score that some models lack, as of a class that they alone found nothing of, is the others'.
    What counts the answers of one model (`OF_ONE_MODEL`) has no mean, and goes.
    """
    first = scores[0]
    if isinstance(first, dict):
        gone = OF_ONE_MODEL if len(scores) > 1 else ()
        keys = dict.fromkeys(k for s in scores for k in s if k not in gone)
        return {k: mean_scores([s[k] for s in scores if k in s]) for k in keys}
    if isinstance(first, float):
        return float(np.mean(scores))
    if isinstance(first, list):
        return [mean_scores(each) for each in zip(*scores)]
    return first


def cross_fits(center: Center, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (adapted on, scored on) of an unseen center's images, booleans [N]; none is empty."""
    if split == 'val':
        pairs = [(center.split == SPLITS.index('train'), center.split == SPLITS.index('val'))]
    else:
        first = halves(center)
        pairs = [(first, ~first), (~first, first)]
    return [(adapt, on) for adapt, on in pairs if adapt.any() and on.any()]


def predict_seen(
    trained: Trained, client: int, split: str, variables: Any = None
) -> Predicted:
    """A seen center's model on its `split`; by default the one generated for it."""
    center = trained.seen[client]
    of = center.split == SPLITS.index(split)
    if variables is None:
        variables = model_of(trained, of_split(center, 'train'), client)
    return predict_on(trained, variables, center, of)


def predict_on(
    trained: Trained, variables: Any, center: Center, index_N: np.ndarray
) -> Predicted:
    """A model's predictions of a center's images at `index_N` (booleans)."""
    examples = take(center.examples, index_N)
    predictions = trained.program.predict(variables, examples.image)
    path, unit = (tuple(itertools.compress(x, index_N)) for x in (center.path, center.unit))
    original = tuple(itertools.compress(center.original, index_N))
    return Predicted(predictions, examples, path, unit, original)


def predict_unseen(
    trained: Trained,
    center: Center,
    split: str,
    client: int | None = None,
    m_E: np.ndarray | None = None,
) -> Predicted:
    """A stranger's zero-shot model, cross-fitted (see the module's text).

    client: a seen center whose private model it borrows; m_E: replaces its descriptor.  Batch
    statistics are cross-fitted all the same.
    """
    return cross_fitted(trained, center, split, lambda x: model_of(trained, x, client, m_E))


def cross_fitted(
    trained: Trained, center: Center, split: str, make: Callable[[Examples], Any]
) -> Predicted:
    """What an unseen center's models say, each of images that it was not made from.

    make: unlabelled images -> a model's variables.
    """
    parts = [
        predict_on(trained, make(take(center.examples, adapt)), center, on)
        for adapt, on in cross_fits(center, split)
    ]
    if not parts:  # one patient: nothing is left to score
        nothing = np.zeros(len(center.split), bool)
        parts = [predict_on(trained, make(center.examples), center, nothing)]
    return concatenate(parts)


def metrics_of(trained: Trained, found: Predicted) -> Scores:
    """The task's metrics of predictions."""
    found = measured(trained, found)
    return trained.program.task.metrics(
        found.predictions, found.examples.target, found.examples.weight
    )


def measured(trained: Trained, found: Predicted) -> Predicted:
    """Predictions as they are scored: at the images' own size, where the federation is."""
    return at_own_size(found, trained.program.task) if trained.own_size else found


def concatenate(parts: Sequence[Predicted]) -> Predicted:
    """The predictions of several centers, or halves of one, together."""
    predictions, examples = jax.tree.map(lambda *x: np.concatenate(x), *(p[:2] for p in parts))
    path, unit, original = (
        sum((getattr(p, k) for p in parts), ()) for k in ('path', 'unit', 'original')
    )
    return Predicted(predictions, examples, path, unit, original)


def score_seen(
    trained: Trained, split: str, models: Sequence[Any] = (), with_intervals: bool = False
) -> dict:
    """Each seen center's model on its `split`; 'pooled': on all of them together.

    models: variables, one a center; by default the refined ones.
    with_intervals: whether to add 'intervals' (`intervals.of_block`).
    """
    models = models or [None] * len(trained.seen)
    found = [measured(trained, predict_seen(trained, i, split, v)) for i, v in enumerate(models)]
    centers = {c.name: metrics_of(trained, p) for c, p in zip(trained.seen, found)}
    told = {'pooled': metrics_of(trained, concatenate(found))}
    if with_intervals:
        task, names = trained.program.task, (c.name for c in trained.seen)
        told['intervals'] = of_block(task, {n: [p] for n, p in zip(names, found)}, centers)
    return {**(block(trained, centers) or {}), **told}


def score_stranger(
    trained: Trained, center: Center, split: str, m_E: np.ndarray | None = None
) -> Scores:
    """Zero-shot scores of an unseen center; without a server's model, the mean over seen ones'."""
    found = predict_stranger(trained, center, split, m_E)
    return mean_scores([metrics_of(trained, p) for p in found])


def predict_stranger(
    trained: Trained, center: Center, split: str, m_E: np.ndarray | None = None
) -> list[Predicted]:
    """What the models say that `score_stranger` scores, as it is scored."""
    alone = not trained.program.algorithm.server_model
    clients: Sequence[int | None] = range(len(trained.seen)) if alone else [None]
    return [measured(trained, predict_unseen(trained, center, split, i, m_E)) for i in clients]


def score_unseen(trained: Trained, split: str, with_intervals: bool = False) -> dict | None:
    """A block of the unseen centers' zero-shot models; `with_intervals` as in `score_seen`."""
    found = {c.name: predict_stranger(trained, c, split) for c in trained.unseen}
    scores = {
        name: mean_scores([metrics_of(trained, p) for p in of]) for name, of in found.items()
    }
    of_all = block(trained, scores)
    if of_all and with_intervals:
        of_all['intervals'] = of_block(trained.program.task, found, scores)
    return of_all


def score_center_model(trained: Trained, split: str) -> dict | None:
    """The one model for all, from the pooled descriptor of the seen centers."""
    if not trained.program.algorithm.server_model:
        return None
    statistics = seen_statistics(trained)
    m_E = descriptor.mean(descriptor.pool(statistics.values())) if statistics else None
    if statistics == {}:  # nothing was released: what training sent, with noise, is there
        m_E = np.asarray(trained.shared['pooled'])

    def made_of(images):
        return model_of(trained, images, m_E=m_E, whole=True)

    def of(center):
        made, on_N = made_of(of_split(center, 'train')), center.split == SPLITS.index(split)
        return metrics_of(trained, predict_on(trained, made, center, on_N))

    def of_stranger(center):
        return metrics_of(trained, cross_fitted(trained, center, split, made_of))

    return {
        'seen': block(trained, {c.name: of(c) for c in trained.seen}),
        'unseen': block(trained, {c.name: of_stranger(c) for c in trained.unseen}),
    }


MAX_OTHERS = 20  # descriptors of others that a center is scored under


def others_of(num: int, limit: int = MAX_OTHERS) -> np.ndarray:
    """int [num, min(num - 1, limit)]: the others whose descriptors each of `num` centers takes.

    Each column is a derangement.  Up to `limit` others they are all, and their mean is that over
    all derangements; beyond, cyclic shifts of one random order, so that cost grows with `num`.
    """
    if num - 1 <= limit:
        return np.array([[j for j in range(num) if j != i] for i in range(num)], int)
    rng = np.random.default_rng(num)
    order = rng.permutation(num)
    steps = np.sort(rng.choice(np.arange(1, num), limit, replace=False))
    place = np.argsort(order)
    return order[(place[:, None] + steps[None]) % num]


def score_shuffled(trained: Trained, split: str) -> dict | None:
    """The control: every center under others' descriptors (`others_of`).

    An unseen center takes those of seen ones, at most `MAX_OTHERS`.
    """
    statistics = seen_statistics(trained)
    if not statistics or len(trained.seen) < 2:
        return None
    m_CxE = [descriptor.mean(s) for s in statistics.values()]
    others_CxK = others_of(len(m_CxE))
    spread = np.linspace(0, len(m_CxE) - 1, min(len(m_CxE), MAX_OTHERS)).astype(int)

    def seen(i, center):
        train = of_split(center, 'train')
        models = (model_of(trained, train, i, m_CxE[j]) for j in others_CxK[i])
        return mean_scores([
            metrics_of(trained, predict_seen(trained, i, split, model)) for model in models
        ])

    def unseen(center):
        return mean_scores([score_stranger(trained, center, split, m_CxE[j]) for j in spread])

    return {
        'seen': block(trained, {c.name: seen(i, c) for i, c in enumerate(trained.seen)}),
        'unseen': block(trained, {c.name: unseen(c) for c in trained.unseen}),
    }


def evaluate(
    trained: Trained, split: str, intervals: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> dict:
    """The scores of models that are generated, without a label of the center they are for.

    intervals: which of 'seen' and 'unseen' have them, as `score_seen`.
    tell: called with the name of each part as it begins.
    """
    tell('the seen centers')
    seen = score_seen(trained, split, with_intervals='seen' in intervals)
    if trained.unseen:
        tell('the unseen centers')
    unseen = score_unseen(trained, split, 'unseen' in intervals)
    if trained.program.algorithm.server_model:
        tell('the center model')
    center_model = score_center_model(trained, split)
    if trained.program.describe:
        tell("the control, others' descriptors")
    shuffled = score_shuffled(trained, split)
    sampled = shuffled and others_of(len(trained.seen)).shape[1]
    return {
        'seen': seen,
        'unseen': unseen,
        'center_model': center_model,
        'controls': {'shuffled': shuffled, 'sampled': sampled},
    }
