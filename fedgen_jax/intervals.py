"""95 % intervals of scores, by bootstrap over patients.

A resample draws as many of a center's patients as it has, with replacement, and all images of a
patient come with it.  The models stay as they are: an interval tells how far a score depends on
which patients of the center were scored, and nothing of other training runs or other centers.

References:
    Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals).
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedgen_jax.data.examples import Examples
from fedgen_jax.data.targets import target_of
from fedgen_jax.tasks.base import Predicted, Task

RESAMPLES = 1000
OF_METRICS = 100  # where a task has no `resample`, and is scored anew each time
EDGES = 2.5, 97.5  # percentiles
FEW = 5  # with fewer patients there is no interval: it would be far too narrow
MAX_COUNTS = 2**22  # in memory at a time


def of_block(
    task: Task, found: Mapping[str, Sequence[Predicted]], scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Intervals [low, high]: 'centers' {center: {metric: interval}}, and 'mean' {metric: interval}.

    'mean' is of the mean over the centers that have the metric, each resampled by itself; absent
    where one of them has no interval.

    found: {center: what its model says of its images}; of several models, whose mean is scored.
    scores: {center: its scores}.
    """
    samples = {name: resampled(task, of, zlib.crc32(name.encode())) for name, of in found.items()}
    centers = {name: _intervals(of) for name, of in samples.items()}
    mean_B = {}
    for metric in dict.fromkeys(m for of in centers.values() for m in of):
        having = [name for name, of in scores.items() if metric in of]
        if all(metric in centers[name] for name in having):
            mean_B[metric] = np.mean([samples[name][metric] for name in having], 0)
    return {'mean': _intervals(mean_B), 'centers': centers}


def resampled(task: Task, found: Sequence[Predicted], seed: int) -> dict[str, np.ndarray]:
    """{metric: [B]} of a center's resamples, the means over several models of the same images.

    Nothing of a center with fewer than `FEW` patients that are scored.
    """
    scored_N = is_scored(task, found[0].examples)
    units, unit_N = np.unique(np.array(found[0].unit, str)[scored_N], return_inverse=True)
    if len(units) < FEW:
        return {}
    num = RESAMPLES if task.resample else OF_METRICS
    rng = np.random.default_rng(seed)
    count_BxU = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), num)
    step = max(1, MAX_COUNTS // len(scored_N))
    parts = []
    for b in range(0, num, step):
        own_BxU = count_BxU[b : b + step]
        count_BxN = np.zeros((len(own_BxU), len(scored_N)), int)
        count_BxN[:, scored_N] = own_BxU[:, unit_N]
        parts.append(_scores(task, found, count_BxN))
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def is_scored(task: Task, examples: Examples) -> np.ndarray:
    """bool [N]: the images whose target is known."""
    kind, weighs_N = target_of(task.target), np.asarray(examples.weight) > 0
    return weighs_N if kind.empty_counts else weighs_N & kind.known(examples.target)


def _scores(task, found, count_BxN) -> dict[str, np.ndarray]:
    """Of each resample the mean over models."""
    of_models = [
        task.resample(p.predictions, p.examples.target, p.examples.weight, count_BxN)
        if task.resample else by_metrics(task, p, count_BxN)
        for p in found
    ]
    return {k: np.mean([of[k] for of in of_models], 0) for k in of_models[0]}


def by_metrics(task: Task, found: Predicted, count_BxN: np.ndarray) -> dict[str, np.ndarray]:
    """What `Task.resample` returns, of any task: each image is scored as often as it counts."""
    of = found.predictions, found.examples.target, found.examples.weight
    rows = []
    for count_N in count_BxN:
        index = np.repeat(np.arange(len(count_N)), count_N)
        said, target, weight = jax.tree.map(lambda x, i=index: np.asarray(x)[i], of)
        if 'volume' in target:  # each copy of a volume is one of its own
            copy = np.arange(len(index)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
            own = target['volume'] * (count_N.max() + 1) + copy
            target = {**target, 'volume': np.where(target['volume'] >= 0, own, -1)}
        rows.append(task.metrics(said, target, weight))
    names = [k for k, v in task.metrics(*of).items() if isinstance(v, float)]
    return {k: np.array([row.get(k, np.nan) for row in rows], float) for k in names}


def _intervals(value_B: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """{metric: its interval}, without those that a twentieth of the resamples lack."""
    found = {}
    for metric, x_B in value_B.items():
        known = x_B[np.isfinite(x_B)]
        if len(known) > 0.95 * len(x_B):
            found[metric] = np.percentile(known, EDGES).tolist()
    return found
