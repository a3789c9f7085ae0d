"""What the readers of all file types share: a picture, its grays, errors with the way out."""

import contextlib
import importlib
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

SPARSE = 'sparse volume: the scale is that of the voxels that are not background'
UNWINDOWED = 'no gray file of more than 8 bits, so that data.window was not used'


class Window(NamedTuple):
    """The values, in the units of the files, that become black and white."""

    low: float
    high: float


class Picture(NamedTuple):
    """What a file shows.

    image:   8-bit RGB, in the file's own pixels.
    assumed: what had to be assumed to read it: fixed sentences, one for each kind.
    aspect:  the height of a pixel by its width.
    """

    image: Image.Image
    assumed: tuple[str, ...] = ()
    aspect: float = 1.0


class Problem(ValueError):
    """A problem that already says the way out."""


@contextlib.contextmanager
def one_kind_of_error():
    """Raises whatever a reader raises as a ValueError that says the way out.

    Warnings of libraries on single files are not shown: they name neither file nor way out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except Problem:
        raise
    except Exception as error:  # readers raise nearly every type on a malformed file
        raise ValueError(
            f'does not decode ({type(error).__name__}: {error}): replace the file, or leave it out'
        ) from error


def extra(module: str):
    """A module of the `medical` extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition('.')[0]
        raise Problem(f"needs {name}: pip install 'fedgen_jax[medical]'") from error


def to_unit(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """float64 in [0, 1]: `low` and what lies below it is 0, `high` and above 1."""
    x = np.asarray(x, np.float64)
    if not (np.all(np.isfinite(x)) and np.isfinite(low) and np.isfinite(high)):
        raise Problem('NaN or infinite pixels: correct the image')
    return np.clip((x - low) / max(high - low, 1e-12), 0, 1)


def to_rgb(unit_HxW: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(unit_HxW * 255).astype(np.uint8)).convert('RGB')


def black_and_white(x: np.ndarray) -> tuple[float, float, tuple[str, ...]]:
    """What becomes black and white of many values, and what was assumed.

    The 0.5 and 99.5 percentiles; in a sparse volume, those of what is not background.

    There nearly all voxels are of one number, or of what would be one gray beside the others, and
    all others would be as white as each other.
    """
    percent = [0.05, 0.5, 2, 50, 98, 99.5, 99.95]
    least, low, near, middle, far, high, most = np.percentile(x, percent)
    one_gray = (most - least) / 1000
    if far - middle > one_gray:
        return low, high, ()
    above, below = x[x > middle + one_gray], x[x < middle - one_gray]
    bright, dark = above.size > 0, middle - near <= one_gray and below.size > 0
    low = np.percentile(below, 0.5) if dark else low
    high = np.percentile(above, 99.5) if bright else high
    return low, high, (SPARSE,) if bright or dark else ()
