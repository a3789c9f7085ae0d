"""Detection of boxes without anchors, as points (CenterNet: Zhou et al. 2019, arXiv:1904.07850).

The model's outputs are a map at a quarter of the image's resolution: for each class the heat of box
centers, then the logarithm of height and width in cells, and the center's offset (down, right)
within its cell.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.models.unet import NUM_SHAPES
from fedgen_jax.tasks import coco_metrics, coco_resamples, draw
from fedgen_jax.tasks.base import Task, View

STRIDE = 4
MAX_BOXES = 100  # detections an image
SHOWN = 0.3  # the least score of a box in a picture


def detection(classes: Sequence[str]) -> Task:
    """Penalty-reduced focal loss on heat, L1 on size and offset; COCO's AP and FROC.

    Targets are 'box' float32 [B, M, 4] (y0, x0, y1, x1 in pixels) and 'box_class' int32 [B, M], -1
    for padding.  An image without boxes is one that shows nothing.  Of one that shows more than
    `MAX_BOXES` things the others are missed, as by COCO's AP of each class.  Scores are of
    `coco_metrics.scores`.
    """

    def loss(outputs_BxHxWxF, target, weight_B):
        size = outputs_BxHxWxF.shape[1:3]
        each = jax.vmap(lambda b, c: encode(b, c, size, len(classes)))
        heat, cell_BxMx2, goal_BxMx4, real_BxM = each(target['box'], target['box_class'])
        real_BxM = real_BxM * weight_B[:, None]
        count = jnp.maximum(real_BxM.sum(), 1)
        logits, shape = outputs_BxHxWxF[..., :-NUM_SHAPES], outputs_BxHxWxF[..., -NUM_SHAPES:]
        focal = jnp.sum(weight_B[:, None, None, None] * focal_loss(logits, heat)) / count
        at_BxMx4 = jax.vmap(lambda s, cell: s[cell[:, 0], cell[:, 1]])(shape, cell_BxMx2)
        l1 = jnp.sum(real_BxM[..., None] * jnp.abs(at_BxMx4 - goal_BxMx4)) / count
        return focal + 0.5 * l1

    def predict(outputs_BxHxWxF):
        return jax.vmap(decode)(outputs_BxHxWxF)

    def metrics(predictions, target, weight_N):
        return coco_metrics.scores(predictions, target, weight_N, classes)

    def resample(predictions, target, weight_N, count_BxN):
        return coco_resamples.scores(predictions, target, weight_N, count_BxN, classes)

    def show(image_HxWx3, target, prediction):
        truth = np.asarray(target['box_class'])
        if prediction is None:
            picture = draw.boxes(image_HxWx3, target['box'], truth)
            return View(picture, f'truth: {np.sum(truth >= 0)} boxes')
        found = np.where(prediction['score'] >= SHOWN, prediction['box_class'], -1)
        picture = draw.boxes(image_HxWx3, prediction['box'], found)
        return View(picture, f'{np.sum(found >= 0)} boxes')

    return Task(
        'detection',
        'box',
        len(classes) + NUM_SHAPES,
        loss,
        predict,
        metrics,
        stratum=lambda target: jnp.zeros(len(target['box']), jnp.int32),
        num_strata=1,
        show=show,
        resample=resample,
    )


def encode(box_Mx4: jax.Array, box_class_M: jax.Array, size: tuple[int, int], num_classes: int):
    """One image's boxes as the map that the model should give.

    The heat of a box is a Gaussian about its center cell, exactly 1 there; its standard deviations
    are a sixth of the box's sides, at least 2/3 of a cell.

    Returns:
      heat_HxWxK; the boxes' center cells int32 [M, 2]; their log sizes and offsets [M, 4]; whether
      they are boxes, float32 [M].
    """
    real_M = (box_class_M >= 0).astype(jnp.float32)
    box_Mx4 = box_Mx4 / STRIDE
    center_Mx2 = (box_Mx4[:, :2] + box_Mx4[:, 2:]) / 2
    side_Mx2 = jnp.maximum(box_Mx4[:, 2:] - box_Mx4[:, :2], 1e-2)
    last_2 = jnp.array([n - 1 for n in size], jnp.float32)
    cell_Mx2 = jnp.clip(jnp.floor(center_Mx2), 0, last_2[None])
    goal_Mx4 = jnp.concatenate([jnp.log(side_Mx2), center_Mx2 - cell_Mx2], axis=1)

    def bump(axis):
        at = jnp.arange(size[axis], dtype=jnp.float32)[None] - cell_Mx2[:, axis, None]
        sigma = jnp.maximum(side_Mx2[:, axis, None] / 6, 2 / 3)
        return jnp.exp(-0.5 * (at / sigma) ** 2)

    heat_MxHxW = (bump(0) * real_M[:, None])[:, :, None] * bump(1)[:, None]
    own_MxK = jax.nn.one_hot(box_class_M, num_classes)
    heat = [jnp.max(heat_MxHxW * own_MxK[:, k, None, None], 0) for k in range(num_classes)]
    return jnp.stack(heat, -1), cell_Mx2.astype(jnp.int32), goal_Mx4, real_M


def focal_loss(logits: jax.Array, heat: jax.Array) -> jax.Array:
    """Zhou et al. 2019, eq. 1, with alpha 2 and beta 4; elementwise."""
    p = jax.nn.sigmoid(logits)
    found = -((1 - p) ** 2) * jax.nn.log_sigmoid(logits)
    absent = -((1 - heat) ** 4) * p**2 * jax.nn.log_sigmoid(-logits)
    return jnp.where(heat == 1, found, absent)


def decode(outputs_HxWxF: jax.Array) -> dict[str, jax.Array]:
    """The `MAX_BOXES` highest peaks of one image: box [M, 4] in pixels, score [M], box_class [M].

    A peak is a cell whose heat is the highest of its 3x3 neighborhood, in its class.
    """
    rows, cols, _ = outputs_HxWxF.shape
    heat, shape = outputs_HxWxF[..., :-NUM_SHAPES], outputs_HxWxF[..., -NUM_SHAPES:]
    peaks = jnp.where(heat == highest_around(heat), heat, -jnp.inf)
    top_M, index_M = jax.lax.top_k(peaks.reshape(-1), min(MAX_BOXES, peaks.size))
    cell_M, class_M = divided(index_M, heat.shape[-1])
    row_M, col_M = divided(cell_M, cols)
    goal_Mx4 = shape[row_M, col_M]
    cell_Mx2 = jnp.stack([row_M, col_M], 1).astype(jnp.float32)
    center_Mx2 = cell_Mx2 + goal_Mx4[:, 2:]
    half_Mx2 = jnp.exp(jnp.clip(goal_Mx4[:, :2], -4, 6)) / 2
    box_Mx4 = STRIDE * jnp.concatenate([center_Mx2 - half_Mx2, center_Mx2 + half_Mx2], 1)
    limit_4 = STRIDE * jnp.array([rows, cols, rows, cols], jnp.float32)
    return {
        'box': jnp.clip(box_Mx4, 0, limit_4[None]),
        'score': jax.nn.sigmoid(top_M),
        'box_class': class_M,
    }


def highest_around(heat_HxWxK: jax.Array) -> jax.Array:
    """The highest heat of each cell's 3x3 neighborhood, in its class."""
    # By slices: few other runtimes pool over a window of rank 3.
    for axis in (0, 1):
        first, last, all_but_first, all_but_last = (
            jax.lax.slice_in_dim(heat_HxWxK, start, end, axis=axis)
            for start, end in ((0, 1), (-1, None), (1, None), (0, -1))
        )
        after = jnp.concatenate([all_but_first, last], axis)
        before = jnp.concatenate([first, all_but_last], axis)
        heat_HxWxK = jnp.maximum(heat_HxWxK, jnp.maximum(before, after))
    return heat_HxWxK


def divided(index_M: jax.Array, by: int) -> tuple[jax.Array, jax.Array]:
    """Quotient and rest of numbers of at least 0."""
    quotient_M = jax.lax.div(index_M, jnp.full_like(index_M, by))
    return quotient_M, index_M - by * quotient_M
