"""Which values of deep gray files become black and white, where the configuration says it.

An image has 8 bits a pixel once it is read.  16 bits of which it uses a small part become a few
grays, unless a window says which part that is.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fedgen_jax.data.folder import decode
from fedgen_jax.data.folder.reading import Window, black_and_white
from fedgen_jax.data.folder.text import DataError

SAMPLE = 1024  # pixels of an image that a center's window is made of
SHALLOW = Window(0.0, 255.0)  # of a center without deep images: it says nothing


def parse(text: str) -> Window | None:
    """The window that 'LOW:HIGH' names; None of '' and of 'center'.  Raises DataError."""
    if text in ('', 'center'):
        return None
    low, _, high = text.partition(':')
    try:
        window = Window(float(low), float(high))
    except ValueError:
        window = Window(np.nan, np.nan)
    if not -np.inf < window.low < window.high < np.inf:
        raise DataError(
            f'data.window={text}: is neither LOW:HIGH, such as -160:240, nor center, nor empty'
        )
    return window


def text_of(window: Window | None) -> str:
    """The inverse of `parse`, to the bit; '' of None and of `SHALLOW`."""
    return '' if window in (None, SHALLOW) else f'{window.low!r}:{window.high!r}'


def of_centers(
    text: str, centers: Sequence[str], images: Callable[[], Iterable[Any]]
) -> dict[str, Window]:
    """The window of each center; {} where the files' own scales hold.

    text:    '' | 'LOW:HIGH', in the units of the files | 'center': the 0.5 and 99.5 percentiles of
             all deep gray images of a center, its one scale.  An image never has its own: its
             brightness is part of the shift between centers.
    centers: of each image; images: these, as `decode.open_image` takes them.
    """
    window = parse(text)
    if window or not text:
        return dict.fromkeys(centers, window) if window else {}
    samples = collections.defaultdict(list)
    for center, image in zip(centers, images(), strict=True):
        try:
            x = decode.read_values(image)
        except ValueError:  # which the reading of the image itself tells, with its row
            continue
        if x is not None and len(sample := _sample(x)):
            samples[center].append(sample)
    ends = {name: black_and_white(np.concatenate(of)) for name, of in samples.items()}
    # One value alone has no range; a deep image of it is black.
    found = {name: Window(float(low), float(max(high, low + 1e-6)))
             for name, (low, high, _) in ends.items()}
    # Of a center without deep images the window says nothing, which each image then tells.
    return dict.fromkeys(centers, SHALLOW) | found


def _sample(x: np.ndarray) -> np.ndarray:
    """`SAMPLE` pixels at most, of places drawn alike for all images of a shape."""
    x = x.ravel()
    if x.size > SAMPLE:
        x = x[np.random.default_rng(0).integers(0, x.size, SAMPLE)]
    x = np.asarray(x, np.float64)
    return x[np.isfinite(x)]  # the reading of the image tells of others
