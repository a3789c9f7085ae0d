"""A function of many images, in chunks of one shape."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Images at a time where a whole center is described or predicted: as many as this, and no more
# than have so many pixels, for a convolution's patches take hundreds of bytes a pixel.
CHUNK, CHUNK_PIXELS = 64, 2**19


def in_chunks(fn: Callable, first: Any, image: np.ndarray) -> Any:
    """fn(first, images) over N in chunks of one shape, so that it compiles once; on the host.

    image: [N, H, W, 3], or features [N, F].
    """
    pixels = math.prod(image.shape[1:3]) if image.ndim == 4 else 1
    chunk = max(1, min(CHUNK, CHUNK_PIXELS // pixels))
    outputs = []
    for i in range(0, max(len(image), 1), chunk):
        x = image[i : i + chunk]
        padded = np.concatenate([x, np.zeros((chunk - len(x), *x.shape[1:]), x.dtype)])
        outputs.append(jax.device_get(fn(first, padded)))
    length = len(image)
    return jax.tree.map(lambda *y: np.concatenate(y)[:length], *outputs)
