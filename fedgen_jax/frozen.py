"""What the frozen layers of a network make of images, where all others stand on these.

Each model of a center would pass the same images through the same weights, which takes most of the
time of making and scoring models: here it is done once.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.learning import key_of_steps, step_batch
from fedgen_jax.algorithms.local import Local
from fedgen_jax.canonical import Input, on_canonical
from fedgen_jax.data.examples import Examples
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.recalled import content_of, recalled


class Frozen(NamedTuple):
    """The layers below all that learns.

    of:        (variables, uint8 images [B, H, W, 3]) -> features [B, F], compiled.
    of_steps:  (variables, a client's examples, its key in a round) -> features [T, B, F] of the
               images of its steps, compiled.
    variables: theirs.
    content:   a hash of the variables.
    is_below:  of a variable's path, whether it is theirs.
    """

    of: Callable
    of_steps: jax.stages.Wrapped
    variables: dict[str, Any]
    content: bytes
    is_below: Callable[[tuple[str, ...]], bool]


def frozen_below(local: Local) -> Frozen | None:
    """The frozen layers of the model that `local` learns; None: it has none, or no start for them.

    A model that has them says so: `takes_features`, and the option `below` (as in
    `models.efficientnet`).
    """
    model, start = local.model, local.start
    if start is None or not getattr(model, 'takes_features', False):
        return None
    is_frozen = frozen_of(model)

    def is_below(path):
        return path[0] in ('params', 'batch_stats') and is_frozen(path[1:])

    def of(variables, image_BxHxWx3):
        return model.apply(variables, images_of(image_BxHxWx3), below=True)

    def of_steps(variables, data, key):
        def of_step(t):
            batch, _, _ = step_batch(local, data, key_of_steps(key), t)
            return model.apply(variables, batch.image, below=True)

        return jax.lax.map(of_step, jnp.arange(local.steps))

    below, _ = _parted(start, is_below)
    variables = unflatten_dict({path: np.asarray(x) for path, x in below.items()})
    return Frozen(jax.jit(of), jax.jit(of_steps), variables, content_of(variables), is_below)


def features_of(frozen: Frozen, image_NxHxWx3: np.ndarray) -> np.ndarray:
    """[N, F] of uint8 images, on the host."""

    def of(variables, image_BxHxWx3):
        return recalled(frozen.content, lambda x: frozen.of(variables, x), image_BxHxWx3)

    return in_chunks(of, frozen.variables, image_NxHxWx3)


# Functions that changed the frozen layers of a model.
_CHANGING: weakref.WeakSet = weakref.WeakSet()


def with_features(
    frozen: Frozen | None, fn: Callable, unlabelled: Examples, call: Callable[[Examples], Any],
    variables_of: Callable[[Any], Mapping] = lambda made: made,
) -> Any:
    """call(unlabelled), which asks `fn` for a model, with features where these hold.

    They do for weights as they began: a function that changed those is asked without them.
    variables_of: the model's, of what is returned.
    """
    if frozen is None or fn in _CHANGING:
        return call(unlabelled)
    made = call(unlabelled._replace(features=features_of(frozen, unlabelled.image)))
    if above(frozen, variables_of(made)) is not None:
        return made
    _CHANGING.add(fn)
    return call(unlabelled)


def predicted(
    answer: Callable, made: Input | None, frozen: Frozen | None, variables: Mapping,
    image_NxHxWx3: np.ndarray,
) -> Any:
    """`Program.predict`: what `answer` says of any number of images, on the host."""
    last = None if frozen is None else above(frozen, variables)
    if frozen is None or last is None:
        return in_chunks(answer, variables, image_NxHxWx3)
    change = last.pop('canonical', None)
    if change is not None:
        seen = Examples(image_NxHxWx3, {}, np.ones(len(image_NxHxWx3), np.float32))
        image_NxHxWx3 = on_canonical(made, change, seen).image
    return in_chunks(answer, last, features_of(frozen, image_NxHxWx3))


def above(frozen: Frozen, variables: Mapping) -> dict[str, Any] | None:
    """A model's variables without those of the frozen layers; None: its own are others."""
    below, rest = _parted(variables, frozen.is_below)
    began = flatten_dict(frozen.variables)
    same = below.keys() == began.keys() and all(
        np.array_equal(x, began[path]) for path, x in below.items()
    )
    return unflatten_dict(rest) if same else None


def _parted(variables, is_one):
    flat = flatten_dict(dict(variables))
    return (
        {path: x for path, x in flat.items() if is_one(path)},
        {path: x for path, x in flat.items() if not is_one(path)},
    )
