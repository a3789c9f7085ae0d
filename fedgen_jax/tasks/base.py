"""What a task is: a value that carries everything the rest of the code asks of it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedgen_jax.data.examples import Examples, Original


class View(NamedTuple):
    """What a report shows of one example: a picture (None: the image once more), and a caption.

    picture: uint8 [H, W, 3].
    wrong:   whether the caption shows a mistake.
    """

    picture: np.ndarray | None
    caption: str
    wrong: bool = False


class Predicted(NamedTuple):
    """What a model says of images: predictions, targets and weights lead with N, on the host.

    path, unit, original: of each image, as in `data.examples.Center`.
    """

    predictions: Any
    examples: Examples
    path: tuple[str, ...]
    unit: tuple[str, ...]
    original: tuple[Original, ...] = ()


class Task(NamedTuple):
    """A task, as pure functions.  Algorithms, engine and scores never look inside a target.

    It is made from class names; made from an empty list, it only says what it learns from.

    name:        as the configuration spells it.
    target:      the kind of target it learns from: 'label', 'labels', 'mask', 'box' or
                 'module:NAME' (`data/targets.py`).
    num_outputs: channels of the model's last layer.
    loss:        (outputs_Bx..., target, weight_B) -> scalar, the weighted mean over the batch.
    predict:     outputs_Bx... -> a pytree of arrays that lead with B, on the device.
    metrics:     (predictions, target, weight), host arrays -> scores: {metric: float} in the order
                 in which they are shown, 'n': images scored, and what else a reader should know
                 (counts, scores of each class), as JSON.  {'n': 0} where nothing can be scored.
    stratum:     target -> int32 [B], the example's class for resampling; -1: none.
    num_strata:  the number of such classes.
    show:        (image uint8 [H, W, 3], target, prediction or None), of one example -> a `View` of
                 the prediction; of the truth, where there is none.
    lower_is_better: metrics of which less is better: lengths, errors.
    units:       pairs of a metric that is no share of 1, and what it is measured in.
    headline:    the metric that choices, comparisons and curves go by; '': the first.
    resample:    (predictions, target, weight, count_BxN) -> {metric: [B]}: the scores if image n
                 counted count_BxN[b, n] times, NaN where there is none.  None: `metrics` is called
                 for each resample.
    probability: outputs_Bx... -> the classes' probabilities [B, ..., K] of an image, or of each of
                 its pixels; None where the outputs are none.  They sum to 1 over K.  Where the
                 target is a label, `predict` gives them as 'probability'.
    measure:     of a task that learns masks: (prediction, target, spacing) of one image after the
                 other, each of a size of its own, -> what `metrics` and `resample` take in place of
                 predictions, arrays that lead with N.  spacing: mm, the height and the width of a
                 pixel, () where it is not known.  None: the task scores images of one size alone.
    """

    name: str
    target: str
    num_outputs: int
    loss: Callable[[jax.Array, dict, jax.Array], jax.Array]
    predict: Callable[[jax.Array], Any]
    metrics: Callable[[Any, dict, np.ndarray], dict]
    stratum: Callable[[dict], jax.Array]
    num_strata: int
    show: Callable[[np.ndarray, dict, Any], View]
    lower_is_better: tuple[str, ...] = ()
    units: tuple[tuple[str, str], ...] = ()
    headline: str = ''
    resample: Callable[[Any, dict, np.ndarray, np.ndarray], dict] | None = None
    probability: Callable[[jax.Array], jax.Array] | None = None
    measure: Callable[[Iterable[tuple[dict, dict, tuple[float, ...]]]], dict] | None = None
