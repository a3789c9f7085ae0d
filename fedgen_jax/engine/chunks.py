"""A function of many images, in chunks of one shape."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Images at a time where a whole center is described or predicted: as many as this, and no more
# than have so many pixels, for a convolution's patches take hundreds of bytes a pixel.
CHUNK, CHUNK_PIXELS = 64, 2**19


def in_chunks(fn: Callable, first: Any, image_NxHxWx3: np.ndarray) -> Any:
    """fn(first, images) over N in chunks of one shape, so that it compiles once; on the host."""
    _, height, width, _ = image_NxHxWx3.shape
    chunk = max(1, min(CHUNK, CHUNK_PIXELS // (height * width)))
    outputs = []
    for i in range(0, max(len(image_NxHxWx3), 1), chunk):
        x = image_NxHxWx3[i : i + chunk]
        padded = np.concatenate([x, np.zeros((chunk - len(x), *x.shape[1:]), x.dtype)])
        outputs.append(jax.device_get(fn(first, padded)))
    length = len(image_NxHxWx3)
    return jax.tree.map(lambda *y: np.concatenate(y)[:length], *outputs)
