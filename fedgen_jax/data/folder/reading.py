"""What the readers of all file types share: a picture, its grays, errors with the way out."""

import contextlib
import importlib
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image


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
            f'does not decode ({type(error).__name__}: {error}): replace the file, or remove '
            'the row'
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
