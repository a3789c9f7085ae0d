"""Resampled scores are those of the images repeated, of every task."""

import numpy as np
import pytest

from fedgen_jax.data.examples import Examples
from fedgen_jax.intervals import by_metrics
from fedgen_jax.tasks import classification, detection, multilabel, segmentation
from fedgen_jax.tasks.base import Predicted

N, B = 30, 12


def labels(rng, num):
    label = rng.integers(-1, num, N)
    p = rng.dirichlet(np.ones(num), N).round(1)  # with ties
    p[np.arange(N), np.maximum(label, 0)] += 0.4
    return {'probability': p / p.sum(-1, keepdims=True)}, {'label': label}


def several(rng):
    truth = rng.integers(-1, 2, (N, 3))
    truth[4] = -1
    return {'probability': rng.random((N, 3)).round(1)}, {'labels': truth}


def masks(rng):
    truth = np.zeros((N, 12, 12), np.uint8)
    for mask in truth:
        y, x = rng.integers(0, 8, 2)
        mask[y : y + 4, x : x + 3] = rng.integers(0, 3)
    guess = np.where(rng.random(truth.shape) < 0.05, rng.integers(0, 3, truth.shape), truth)
    truth[:, :2, :2] = 255
    truth[3] = 255
    volume = np.repeat(np.arange(N // 3), 3) - 1
    return {'mask': guess}, {'mask': truth, 'volume': volume}


def masks_in_mm(rng):
    """Of every other image the spacing is known."""
    said, target = masks(rng)
    pairs = zip(said['mask'], target['mask'])
    return TASK.measure(
        ({'mask': guess}, {'mask': truth}, (0.5, 1.5) if i % 2 else ())
        for i, (guess, truth) in enumerate(pairs)
    ), target


TASK = segmentation(['none', 'a', 'b'])


def boxes(rng):
    corner = rng.uniform(0, 40, (N, 5, 2))
    box = np.concatenate([corner, corner + rng.uniform(6, 20, (N, 5, 2))], -1)
    kind = rng.integers(-1, 2, (N, 5))
    near = box + rng.normal(0, 1.5, box.shape)
    said = np.concatenate([near, rng.permutation(near)], 1)
    of = np.concatenate([np.maximum(kind, 0), rng.integers(0, 2, (N, 5))], 1)
    # No two scores are equal: of equal ones COCO takes the first, which repetition changes.
    score = rng.permutation(N * 10).reshape(N, 10) / (N * 10)
    return {'box': said, 'box_class': of, 'score': score}, {'box': box, 'box_class': kind}


CASES = {
    'three classes': (classification('abc'), lambda rng: labels(rng, 3)),
    'two classes': (classification('ab'), lambda rng: labels(rng, 2)),
    'several labels': (multilabel('abc'), several),
    'masks': (TASK, masks),
    'masks in mm': (TASK, masks_in_mm),
    'boxes': (detection('ab'), boxes),
}


@pytest.mark.parametrize('name', CASES)
def test_a_resample_scores_as_its_images_repeated(name):
    task, draw = CASES[name]
    rng = np.random.default_rng(0)
    predictions, target = draw(rng)
    weight = np.where(np.arange(N) == 5, 0, 1).astype(np.float32)
    count = rng.multinomial(N, np.full(N, 1 / N), B)
    if 'volume' in target:  # slices of a volume count alike
        first = np.unique(target['volume'], return_index=True)[1]
        count = count[:, first[np.searchsorted(np.unique(target['volume']), target['volume'])]]
        weight[:] = 1
    own = task.resample(predictions, target, weight, count)
    found = Predicted(predictions, Examples(None, target, weight), (), ())
    repeated = by_metrics(task, found, count)
    assert own.keys() >= {task.headline or next(iter(repeated))}
    assert own.keys() == repeated.keys() - {'ece'}
    for metric, value in own.items():
        np.testing.assert_allclose(value, repeated[metric], rtol=1e-5, atol=1e-7, err_msg=metric)
        assert np.ptp(value) > 0.01, metric
    # Each image once: the score itself.
    once = task.resample(predictions, target, weight, np.ones((1, N), int))
    scores = task.metrics(predictions, target, weight)
    assert all(v == pytest.approx(scores[k], rel=1e-5) for k, (v,) in once.items())
