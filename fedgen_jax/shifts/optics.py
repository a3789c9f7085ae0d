"""The optical path: blur and sharpening, resolution, and both with the zoom in one step."""

import math

import jax
import jax.numpy as jnp

from fedgen_jax.ops.resample import apply_separable, gaussian_matrix, resample_matrix
from fedgen_jax.shifts.base import Shift
from fedgen_jax.shifts.geometry import check_zoom, zoom_target

Range = tuple[float, float]


def lens(
    zoom: Range | None = (0.75, 1.33),
    blur: Range | None = (-1.0, 1.5),
    resolution: Range | None = (0.4, 1.0),
    probability: float = 1.0,
    edge: str = 'reflect',
) -> Shift:
    """`magnification`, `blur` and `resolution` as one pair of matrix products.

    Each is separable and linear, so their matrices are multiplied first, once for each virtual
    center, and each image pays for one of the three. (Values are clipped to [0, 1] once, at the
    end.)

    Args:
      zoom, blur, resolution: their ranges, as for the shifts of that name; None leaves one out.
      probability: that each of them, independently, takes place at a virtual center.
      edge: as for `magnification`.
    Params: a dict with a scalar for each that is not None.
    """
    if zoom:
        check_zoom(*zoom, edge)
    if resolution:
        check_zoom(*resolution, edge)
    ranges = {'zoom': zoom, 'blur': blur, 'resolution': resolution}

    def sample(key):
        params = {}
        unit = jax.random.uniform(key, (2, len(ranges)))
        for i, (name, bounds) in enumerate(ranges.items()):
            if bounds is None:
                continue
            low, high = bounds if name == 'blur' else (math.log(b) for b in bounds)
            value = jnp.where(unit[0, i] < probability, low + (high - low) * unit[1, i], 0)
            params[name] = value if name == 'blur' else jnp.exp(value)
        return params

    def matrix(params, size):
        result = jnp.eye(size)
        if 'zoom' in params:
            result = resample_matrix(size, params['zoom'], edge)
        if 'blur' in params:
            result = _product(_blur_matrix(size, params['blur']), result)
        if 'resolution' in params:
            down = resample_matrix(size, params['resolution'])
            up = resample_matrix(size, 1 / params['resolution'])
            result = _product(up, _product(down, result))
        return result

    def apply(params, key, image_HxWx3, target):
        height, width, _ = image_HxWx3.shape
        image = apply_separable(matrix(params, height), matrix(params, width), image_HxWx3)
        if 'zoom' in params:
            target = zoom_target(target, params['zoom'], (height, width), edge)
        return jnp.clip(image, 0, 1), target

    return Shift(sample, apply)


def blur(low: float = -1.0, high: float = 1.5) -> Shift:
    """Blurs (above 0) or sharpens (below 0) by an amount uniform in [low, high].

    Above 0 it is the deviation of a Gaussian in pixels; below 0 the strength of an unsharp mask
    of 1 pixel, taken along each axis so that it stays separable.  Params: {'blur': amount}.
    """
    return lens(zoom=None, blur=(low, high), resolution=None)


def resolution(low: float = 0.4, high: float = 1.0) -> Shift:
    """Down to a fraction of the pixels along each axis, log-uniform in [low, high], and up again.

    Params: {'resolution': fraction}, at least 1/4.
    """
    return lens(zoom=None, blur=None, resolution=(low, high))


def _blur_matrix(size, amount):
    smooth = gaussian_matrix(size, jnp.where(amount > 0, amount, 1.0))
    eye = jnp.eye(size)
    return jnp.where(amount > 0, smooth, eye + amount * (smooth - eye))


def _product(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
