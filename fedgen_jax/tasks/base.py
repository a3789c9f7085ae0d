"""What a task is: a value that carries everything the rest of the code asks of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Task(NamedTuple):
    """A task, as pure functions.  Nothing outside this package looks inside a target.

    name:        as the configuration spells it.
    num_outputs: channels of the model's last layer.
    loss:        (outputs_Bx..., target, weight_B) -> scalar, the weighted mean over the batch.
    predict:     outputs_Bx... -> a pytree of arrays that lead with B, on the device.
    metrics:     (predictions, target, weight), host arrays -> {metric: float, 'n': images}.
    stratum:     target -> int32 [B], the example's class for splitting and resampling; -1: none.
    num_strata:  the number of such classes.
    """

    name: str
    num_outputs: int
    loss: Callable[[jax.Array, dict, jax.Array], jax.Array]
    predict: Callable[[jax.Array], Any]
    metrics: Callable[[Any, dict, np.ndarray], dict]
    stratum: Callable[[dict], jax.Array]
    num_strata: int
