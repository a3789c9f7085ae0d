"""Changes of geometry: they move 'mask' and 'box' of the target with the image.

Boxes are y0, x0, y1, x1 in pixels, pixel i reaching from i to i + 1. A box of which less than
`MIN_VISIBLE` of the area remains in the image gets class -1.

`magnification` belongs to the virtual center. The others are plain augmentations: they have no
params and draw from the image's key.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from fedgen_jax.ops.resample import (
    MIN_SCALE,
    apply_separable,
    check_edge,
    nearest_index,
    resample_matrix,
    source_positions,
)
from fedgen_jax.shifts.base import Shift, Target

MIN_VISIBLE = 0.25


def magnification(low: float = 0.75, high: float = 1.33, edge: str = 'reflect') -> Shift:
    """Zooms about the center by a factor log-uniform in [low, high]; above 1 magnifies.

    Args:
      low, high: at least 1/4.
      edge: what surrounds a shrunk image, 'reflect' or 'nearest'. Objects seen in the
        reflection have no boxes: for detection take 'nearest'.
    Params: the factor, a scalar.
    """
    check_zoom(low, high, edge)

    def sample(key):
        return jnp.exp(jax.random.uniform(key, minval=math.log(low), maxval=math.log(high)))

    def apply(scale, key, image_HxWx3, target):
        height, width, _ = image_HxWx3.shape
        rows, cols = (resample_matrix(n, scale, edge) for n in (height, width))
        image = jnp.clip(apply_separable(rows, cols, image_HxWx3), 0, 1)
        return image, zoom_target(target, scale, (height, width), edge)

    return Shift(sample, apply)


def zoom_target(target: Target, scale: jax.Array, size: tuple[int, int], edge: str) -> Target:
    """Moves mask (nearest pixel) and boxes as `resample_matrix(., scale, edge)` moves the image."""
    target = dict(target)
    if 'mask' in target:
        rows, cols = (nearest_index(source_positions(n, scale), n, edge) for n in size)
        target['mask'] = target['mask'][rows][:, cols]
    if 'box' in target:
        center = jnp.array([*size, *size], jnp.float32)[None] / 2
        target = _with_boxes(target, (target['box'] - center) * scale + center, size)
    return target


def check_zoom(low: float, high: float, edge: str) -> None:
    check_edge(edge)
    if not MIN_SCALE <= low <= high:
        raise ValueError(f'zoom [{low}, {high}]: need {MIN_SCALE} <= low <= high')


def flip(horizontal: bool = True, vertical: bool = True) -> Shift:
    """Mirrors each image left to right and top to bottom, each with probability 1/2."""

    def apply(params, key, image_HxWx3, target):
        coin = jax.random.bernoulli(key, shape=(2,))
        return _orient(image_HxWx3, target, False, coin[0] & vertical, coin[1] & horizontal)

    return Shift(lambda key: (), apply)


def quarter_turns() -> Shift:
    """Turns each (square) image by 0, 90, 180 or 270 degrees, equally likely."""

    def apply(params, key, image_HxWx3, target):
        height, width, _ = image_HxWx3.shape
        if height != width:
            raise ValueError(
                f'quarter_turns needs square images, got {height}x{width}: use flip instead'
            )
        turns = jax.random.randint(key, (), 0, 4)
        rows, cols = (turns == 1) | (turns == 2), (turns == 2) | (turns == 3)
        return _orient(image_HxWx3, target, turns % 2 == 1, rows, cols)

    return Shift(lambda key: (), apply)


def rotation(low: float = -180.0, high: float = 180.0, edge: str = 'reflect') -> Shift:
    """Turns each image about its center by degrees uniform in [low, high], counterclockwise.

    Bilinear by gathers, the slowest of the shifts: `quarter_turns` costs next to nothing. A box
    becomes the upright box around its turned corners, which is wider than the object.
    """
    check_edge(edge)

    def apply(params, key, image_HxWx3, target):
        size = height, width = image_HxWx3.shape[:2]
        angle = jnp.deg2rad(jax.random.uniform(key, minval=low, maxval=high))
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        y = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[:, None]
        x = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None]
        source = cos * y + sin * x + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2

        def turn(image_HxW, order):
            return map_coordinates(image_HxW, source, order=order, mode=edge)

        target = dict(target)
        if 'mask' in target:
            mask = target['mask']
            target['mask'] = turn(mask.astype(jnp.float32), 0).astype(mask.dtype)
        if 'box' in target:
            corner_y = target['box'][:, jnp.array([0, 0, 2, 2])] - height / 2
            corner_x = target['box'][:, jnp.array([1, 3, 1, 3])] - width / 2
            turned_y = cos * corner_y - sin * corner_x + height / 2
            turned_x = sin * corner_y + cos * corner_x + width / 2
            ends = [f(c, axis=1) for f in (jnp.min, jnp.max) for c in (turned_y, turned_x)]
            target = _with_boxes(target, jnp.stack(ends, axis=1), size)
        image = jax.vmap(turn, in_axes=(2, None), out_axes=2)(image_HxWx3, 1)
        return jnp.clip(image, 0, 1), target

    return Shift(lambda key: (), apply)


def _with_boxes(target, box_Mx4, size):
    """The target with these boxes, clipped to the image, and without those mostly outside."""
    limit = jnp.array([*size, *size], jnp.float32)[None]
    clipped_Mx4 = jnp.clip(box_Mx4, 0, limit)
    visible = _area(clipped_Mx4) >= MIN_VISIBLE * _area(box_Mx4)
    box_class = jnp.where(visible, target['box_class'], jnp.int32(-1))
    return {**target, 'box': clipped_Mx4, 'box_class': box_class}


def _area(box_Mx4):
    return (box_Mx4[:, 2] - box_Mx4[:, 0]) * (box_Mx4[:, 3] - box_Mx4[:, 1])


def _orient(image_HxWx3, target, transpose, flip_rows, flip_cols):
    """Transposes, then flips rows (top to bottom) and columns, each where its boolean is true.

    One gather: chosen among flipped copies, XLA on a CPU would compute whatever made the image
    again for each copy. `transpose` needs a square image, or False.
    """
    height, width, _ = image_HxWx3.shape
    row_Hx1, col_1xW = jnp.arange(height)[:, None], jnp.arange(width)[None]
    row_Hx1 = jnp.where(flip_rows, height - 1 - row_Hx1, row_Hx1)
    col_1xW = jnp.where(flip_cols, width - 1 - col_1xW, col_1xW)
    index = row_Hx1, col_1xW
    if transpose is not False:
        index = jnp.where(transpose, col_1xW, row_Hx1), jnp.where(transpose, row_Hx1, col_1xW)
    target = dict(target)
    if 'mask' in target:
        target['mask'] = target['mask'][index]
    if 'box' in target:
        box_Mx4 = target['box']
        box_Mx4 = jnp.where(transpose, box_Mx4[:, jnp.array([1, 0, 3, 2])], box_Mx4)
        y0, x0, y1, x1 = jnp.moveaxis(box_Mx4, -1, 0)
        y0, y1 = jnp.where(flip_rows, height - y1, y0), jnp.where(flip_rows, height - y0, y1)
        x0, x1 = jnp.where(flip_cols, width - x1, x0), jnp.where(flip_cols, width - x0, x1)
        target['box'] = jnp.stack([y0, x0, y1, x1], axis=-1)
    return image_HxWx3[index], target
