"""Segmentation: what the loss rewards, and the metrics against what is known of simple masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.data.examples import UNKNOWN
from fedgen_jax.tasks import segmentation
from fedgen_jax.tasks.mask_metrics import MEASURED, measured

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
    found = score([guess], [truth])
    assert found['dice'] == pytest.approx(1 - move / 10)
    assert found['iou'] == pytest.approx(found['dice'] / (2 - found['dice']))
    assert found['hd95'] == pytest.approx(move)
    assert 0 < found['assd'] < move


def test_surface_distances_do_not_depend_on_the_side_they_are_seen_from():
    truth, guess = square(2, 2, 10) == 1, square(3, 6, 6) == 1
    found = measured(truth, guess, (0.5, 2.0))
    turned = measured(guess, truth, (0.5, 2.0))
    np.testing.assert_allclose(found[2:], turned[2:])
    np.testing.assert_allclose(found, measured(truth.T, guess.T, (2.0, 0.5)))


def test_millimetres_follow_the_height_and_the_width_of_a_pixel():
    truth = square(4, 4, 8) == 1
    down, aside = (np.roll(truth, 3, axis) for axis in (0, 1))
    in_mm = [
        dict(zip(MEASURED, measured(truth, guess, (0.5, 2.0))))['hd95_mm']
        for guess in (down, aside, np.zeros_like(truth))
    ]
    np.testing.assert_allclose(in_mm, [1.5, 6.0, np.hypot(0.5 * SIZE, 2.0 * SIZE)])
    even = dict(zip(MEASURED, measured(truth, down, (0.7, 0.7))))
    assert even['hd95_mm'] == pytest.approx(0.7 * even['hd95'])
    assert np.isnan(measured(truth, down)[-1])


def test_millimetres_are_of_the_images_whose_spacing_is_known_alone():
    truth = [square(4, 4, 8), square(4, 4, 8), square(0, 0, 0)]
    guess = [square(7, 4, 8), square(4, 4, 8), square(0, 0, 0)]

    def of(*spacings):
        images = zip(({'mask': g} for g in guess), ({'mask': t} for t in truth), spacings)
        target = {'mask': np.stack(truth)}
        return TASK.metrics(TASK.measure(images), target, np.ones(3))

    plain = score(guess, truth)
    assert of((), (), ()) == plain and 'hd95_mm' not in plain
    some = of((2.0, 1.0), (), (1.0, 1.0))
    assert some['hd95_mm'] == some['classes']['cell']['hd95_mm'] == pytest.approx(6.0)
    assert (some['n'], some['n_mm']) == (3, 2) and some['hd95'] == plain['hd95']
    assert 'hd95_mm' not in of((), (), (1.0, 1.0))  # it shows nothing


def test_images_of_any_sizes_are_measured():
    large, small = square(4, 4, 8), square(7, 4, 8)[::2, ::2]
    rows = TASK.measure(({'mask': m}, {'mask': m}, ()) for m in (large, small))
    target = {'mask': np.zeros((2, 3, 3), np.uint8)}  # says only that something is known
    assert TASK.metrics(rows, target, np.ones(2))['dice'] == 1
    nothing = {'mask': np.zeros((0, 3, 3), np.uint8)}
    assert TASK.metrics(TASK.measure([]), nothing, np.ones(0)) == {'n': 0}


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
