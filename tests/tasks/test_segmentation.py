"""Segmentation: what the loss rewards, and the metrics against what is known of simple masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.tasks import segmentation
from fedgen_jax.tasks.segmentation import overlap

TASK = segmentation(('background', 'cell', 'nucleus'))
SIZE = 20


def square(y, x, side, value=1):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + side, x : x + side] = value
    return mask


def score(guess, truth, **extra):
    target = {'mask': np.stack(truth), **extra}
    return TASK.metrics({'mask': np.stack(guess)}, target, np.ones(len(truth)))


def logits_of(mask_BxHxW, confidence=10.0):
    return confidence * jax.nn.one_hot(mask_BxHxW, 3)


def test_a_perfect_prediction():
    mask = np.maximum(square(2, 2, 8), square(4, 4, 3, 2))
    found = score([mask], [mask])
    assert (found['dice'], found['iou'], found['hd95'], found['assd']) == (1, 1, 0, 0)
    assert found['n'] == 1 and set(found['classes']) == {'cell', 'nucleus'}
    loss = TASK.loss(logits_of(mask[None], 30.0), {'mask': jnp.array(mask[None])}, jnp.ones(1))
    assert 0 <= loss < 1e-3


@pytest.mark.parametrize('move', [1, 3])
def test_a_moved_square(move):
    truth, guess = square(2, 2, 10), square(2, 2 + move, 10)
    dice, iou, hd95, assd = overlap(truth == 1, guess == 1)
    assert dice == pytest.approx(1 - move / 10)
    assert iou == pytest.approx(dice / (2 - dice))
    assert hd95 == pytest.approx(move)
    assert 0 < assd < move


def test_surface_distances_do_not_depend_on_the_side_they_are_seen_from():
    truth, guess = square(2, 2, 10) == 1, square(3, 6, 6) == 1
    np.testing.assert_allclose(overlap(truth, guess), overlap(guess, truth))
    np.testing.assert_allclose(overlap(truth, guess), overlap(truth.T, guess.T))


def test_empty_masks():
    empty, full = square(0, 0, 0), square(2, 2, 8)
    diagonal = np.hypot(SIZE, SIZE)
    missed = score([empty], [full])
    assert (missed['dice'], missed['iou']) == (0, 0)
    assert missed['hd95'] == missed['assd'] == pytest.approx(diagonal)
    invented = score([full, full], [empty, full])
    assert invented['dice'] == 0.5 and invented['classes']['cell']['n'] == 2
    right = score([empty, full], [empty, full])  # an image without cells, rightly seen, is left out
    assert right['dice'] == 1 and right['classes']['cell']['n'] == 1 and right['n'] == 2
    assert score([empty], [empty]) == {'n': 0}


def test_a_class_that_no_truth_shows_is_outside_the_mean():
    truth, guess = square(2, 2, 8), square(2, 2, 8)
    guess[-1, -1] = 2
    found = score([guess], [truth])
    assert found['dice'] == found['classes']['cell']['dice'] == 1
    assert found['classes']['nucleus']['dice'] == 0
    assert score([guess], [square(0, 0, 0)]) == {'n': 0}


def test_unknown_pixels_are_neither_learned_nor_scored():
    truth, guess = square(2, 2, 8), square(2, 2, 8)
    guess[15:] = 1
    assert score([guess], [truth])['dice'] < 1
    truth[15:] = UNKNOWN
    assert score([guess], [truth])['dice'] == 1
    losses = [
        TASK.loss(logits_of(g[None]), {'mask': jnp.array(truth[None])}, jnp.ones(1))
        for g in (guess, square(2, 2, 8))
    ]
    assert losses[0] == losses[1]
    assert score([guess], [np.full_like(truth, UNKNOWN)]) == {'n': 0}


def test_padding_is_neither_learned_nor_scored():
    truth = np.stack([square(2, 2, 8), square(1, 1, 5)])
    guess = np.stack([square(2, 2, 8), square(9, 9, 5)])
    weight = np.array([1.0, 0.0])
    found = TASK.metrics({'mask': guess}, {'mask': truth}, weight)
    assert found['dice'] == 1 and found['n'] == 1
    both = TASK.loss(logits_of(guess), {'mask': jnp.array(truth)}, jnp.array(weight))
    one = TASK.loss(logits_of(guess[:1]), {'mask': jnp.array(truth[:1])}, jnp.ones(1))
    assert both == pytest.approx(float(one), abs=1e-6)


def test_the_loss_falls_towards_the_truth_for_a_rare_class_too():
    truth = square(8, 8, 2, 2)[None]
    none, some = np.zeros_like(truth), square(8, 8, 1, 2)[None]
    target = {'mask': jnp.array(truth)}
    loss = [TASK.loss(logits_of(g), target, jnp.ones(1)) for g in (none, some, truth)]
    assert loss[0] > loss[1] + 0.1 > loss[2] + 0.2


def test_slices_of_a_volume_are_counted_together():
    big, small, moved = square(0, 0, 10), square(0, 0, 2), square(5, 5, 2)
    guess, truth = [big, moved, big], [big, small, big]
    found = score(guess, truth, volume=np.array([0, 0, -1]))
    assert found['dice'] == pytest.approx(2 / 3)  # a slice counts as much as any other
    assert found['dice_volume'] == pytest.approx(200 / 208)
    assert 'dice_volume' not in score(guess, truth)


def test_views():
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    mask = square(2, 2, 8)
    truth = TASK.show(image, {'mask': mask}, None)
    guess = TASK.show(image, {'mask': mask}, {'mask': square(2, 2, 4)})
    assert (truth.picture < 255).any() and (guess.picture != truth.picture).any()
    assert guess.caption == 'Dice 0.40'
