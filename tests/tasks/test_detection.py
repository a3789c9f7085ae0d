"""Detection: boxes through the map and back, the loss, and COCO's metrics on known boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.models.unet import NUM_SHAPES
from fedgen_jax.tasks import detection
from fedgen_jax.tasks.coco_metrics import LEAST_SCORE, MIN_BOXES
from fedgen_jax.tasks.detection import MAX_BOXES, STRIDE, decode, encode, focal_loss

TASK = detection(('white', 'red'))
SIZE = 64
CELLS = (SIZE // STRIDE, SIZE // STRIDE)
BOX = np.array(
    [[4, 8, 20, 28], [30, 30, 42, 38], [50, 2, 63, 20], [10, 44, 18, 60], [0, 0, 0, 0]], np.float32
)
CLASS = np.array([0, 1, 1, 0, -1], np.int32)


def outputs_for(box_Mx4, box_class_M, confidence=8.0):
    """What a perfect model would say."""
    heat, cell, goal, real = encode(jnp.array(box_Mx4), jnp.array(box_class_M), CELLS, 2)
    out = np.full((*CELLS, 2 + NUM_SHAPES), -confidence, np.float32)
    out[..., :2] = np.where(heat == 1, confidence, -confidence)
    for c, g, r in zip(cell, goal, real):
        if r:
            out[c[0], c[1], 2:] = g
    return out


def predict(*outputs):
    return jax.tree.map(np.asarray, TASK.predict(jnp.stack(outputs)))


def target_of(*boxes):
    return {'box': np.stack([b for b, _ in boxes]), 'box_class': np.stack([c for _, c in boxes])}


def test_boxes_go_through_the_map_and_back():
    found = jax.tree.map(np.asarray, decode(outputs_for(BOX, CLASS)))
    real = found['score'] > 0.5
    assert real.sum() == 4 and len(real) == MAX_BOXES
    order = np.lexsort(BOX[:4].T)
    back = found['box'][real]
    np.testing.assert_allclose(back[np.lexsort(back.T)], BOX[:4][order], atol=1e-3)
    np.testing.assert_array_equal(found['box_class'][real][np.lexsort(back.T)], CLASS[:4][order])


def test_heat_is_one_at_centers_of_its_class_and_falls_off():
    heat, cell, _, _ = encode(jnp.array(BOX), jnp.array(CLASS), CELLS, 2)
    for (y, x), c in zip(np.asarray(cell[:4]), CLASS):
        assert heat[y, x, c] == 1 and heat[y, x, 1 - c] < 1
    assert (heat == 1).sum() == 4 and heat.min() >= 0


def test_neighbors_of_a_peak_are_no_peaks():
    out = np.full((*CELLS, 2 + NUM_SHAPES), -9.0, np.float32)
    out[5, 5, 0], out[5, 6, 0], out[5, 6, 1], out[9, 9, 0] = 3.0, 2.0, 1.0, 0.5
    found = decode(jnp.array(out))
    good = np.asarray(found['score']) > 0.1
    assert [int(c) for c in np.asarray(found['box_class'])[good]] == [0, 1, 0]


def test_focal_loss():
    heat = jnp.array([1.0, 0.0, 0.9])
    sure_right, sure_wrong = jnp.array([9.0, -9.0, -9.0]), jnp.array([-9.0, 9.0, 9.0])
    assert focal_loss(sure_right, heat).max() < 1e-3
    wrong = focal_loss(sure_wrong, heat)
    assert wrong[0] > 5 and wrong[1] > 5 and wrong[2] < 0.01  # near a center: hardly an error


def test_the_loss_falls_towards_the_truth_and_ignores_padding():
    target = jax.tree.map(jnp.array, target_of((BOX, CLASS), (BOX, CLASS)))
    good, bad = outputs_for(BOX, CLASS), np.zeros((*CELLS, 2 + NUM_SHAPES), np.float32)
    weight = jnp.array([1.0, 0.0])
    best = TASK.loss(jnp.stack([good, bad]), target, weight)
    worst = TASK.loss(jnp.stack([bad, bad]), target, weight)
    assert best < 0.05 < worst
    moved = good.copy()
    moved[..., 2:] += 0.5
    assert TASK.loss(jnp.stack([moved, bad]), target, weight) > best + 0.5
    gradient = jax.grad(lambda o: TASK.loss(o, target, weight))(jnp.stack([bad, bad]))
    assert np.abs(gradient[0]).max() > 0 and np.abs(gradient[1]).max() == 0


def many(num, box_class):
    """An image with a row of equal boxes."""
    box = np.array([[8, 6 * i, 20, 6 * i + 5] for i in range(num)], np.float32)
    return box, np.full(num, box_class, np.int32)


def as_predictions(target, score=0.9):
    c = target['box_class']
    return {'box': target['box'], 'score': np.where(c >= 0, score, 0.0), 'box_class': c}


def test_ap_of_a_perfect_detector_and_of_none():
    target = target_of(*[many(MIN_BOXES, k) for k in (0, 1)])
    found = TASK.metrics(as_predictions(target), target, np.ones(2))
    assert [found[k] for k in ('ap50', 'ap75', 'map', 'froc')] == [pytest.approx(1.0)] * 4
    assert found['n'] == 2 and found['boxes'] == {'white': MIN_BOXES, 'red': MIN_BOXES}
    nothing = TASK.metrics(as_predictions(target, LEAST_SCORE / 2), target, np.ones(2))
    assert nothing['ap50'] == nothing['map'] == nothing['froc'] == 0


def test_boxes_a_little_off_count_at_low_overlap_alone():
    target = target_of(many(MIN_BOXES, 0))
    moved = {**target, 'box': target['box'] + np.array([3.0, 0, 3.0, 0], np.float32)}  # IoU 0.6
    found = TASK.metrics(as_predictions(moved), target, np.ones(1))
    assert found['ap50'] == pytest.approx(1) and found['ap75'] == 0
    assert found['map'] == pytest.approx(0.3, abs=0.01)  # IoU 0.5, 0.55 and 0.6


def test_the_wrong_class_is_a_miss_and_a_false_alarm():
    target = target_of(many(MIN_BOXES, 0), many(MIN_BOXES, 1))
    swapped = {**target, 'box_class': 1 - target['box_class']}
    assert TASK.metrics(as_predictions(swapped), target, np.ones(2))['ap50'] == 0


def test_rare_classes_are_left_out_and_named():
    target = target_of(many(MIN_BOXES, 0), many(MIN_BOXES, 1))
    target['box_class'][1, MIN_BOXES - 1 :] = -1
    guess = as_predictions(target)
    guess['score'][1] = 0  # misses every red box
    found = TASK.metrics(guess, target, np.ones(2))
    assert found['left_out'] == ['red'] and found['boxes']['red'] == MIN_BOXES - 1
    assert TASK.metrics(guess, target, np.array([1.0, 0.0]))['left_out'] == ['red']  # none at all
    assert found['ap50'] == pytest.approx(1) and found['classes']['red']['ap50'] == 0
    only = TASK.metrics(guess, target, np.array([0.0, 1.0]))
    assert 'ap50' not in only and only['n'] == 1
    blank = {**target, 'box_class': np.full_like(target['box_class'], -1)}
    assert TASK.metrics(guess, blank, np.ones(2)) == {'n': 0}


def test_froc_counts_false_positives_an_image():
    box, kind = many(MIN_BOXES, 0)
    target = target_of((box, kind), (box, np.full_like(kind, -1)))
    guess = as_predictions(target)
    # Four false alarms in the empty image, surer than half of the right boxes.
    guess = {k: v.copy() for k, v in guess.items()}
    guess['box_class'][1, :4], guess['score'][1, :4] = 0, 0.5
    guess['score'][0, 5:] = 0.3
    sensitivity = TASK.metrics(guess, target, np.ones(2))['classes']['white']['sensitivity']
    assert sensitivity == [0.5] * 4 + [1.0] * 3  # at 1/8 .. 1, then at 2 false alarms an image


def test_views():
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    target = {'box': BOX, 'box_class': CLASS}
    truth = TASK.show(image, target, None)
    said = jax.tree.map(lambda x: x[0], predict(outputs_for(BOX, CLASS)))
    guess = TASK.show(image, target, said)
    assert truth.caption == 'truth: 4 boxes' and guess.caption == '4 boxes'
    np.testing.assert_array_equal(truth.picture.shape, guess.picture.shape)
