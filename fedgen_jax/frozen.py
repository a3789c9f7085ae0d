"""What a network makes of images below its last layers, where all of that is frozen.

Each model of a center would pass the same images through the same weights, which takes most of the
time of making and scoring models: here it is done once.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.canonical import Input, on_canonical
from fedgen_jax.data.examples import Examples
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.models.roles import roles_of
from fedgen_jax.recalled import content_of, recalled

ABOVE = ('head', 'features')  # roles of the last layers


class Frozen(NamedTuple):
    """The layers below the last ones.

    of:        (variables, uint8 images [B, H, W, 3]) -> features [B, F], compiled.
    variables: theirs.
    content:   a hash of the variables.
    is_below:  of a variable's path, whether it is theirs.
    """

    of: Callable
    variables: dict[str, Any]
    content: bytes
    is_below: Callable[[tuple[str, ...]], bool]


def frozen_below(model: nn.Module, start: Mapping | None) -> Frozen | None:
    """The frozen layers of a model that begins with the variables `start`; None: it has none.

    A model that has them says so: `takes_features`, and the option `below` (as in
    `models.efficientnet`).
    """
    if start is None or not getattr(model, 'takes_features', False):
        return None
    role_of = roles_of(model)

    def is_below(path):
        return path[0] in ('params', 'batch_stats') and role_of(path[1:]) not in ABOVE

    of = jax.jit(lambda variables, image: model.apply(variables, images_of(image), below=True))
    variables = jax.tree.map(np.asarray, _parted(start, is_below)[0])
    return Frozen(of, variables, content_of(variables), is_below)


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
    return rest if content_of(below) == frozen.content else None


def _parted(variables, is_one):
    flat = flatten_dict(dict(variables))
    return tuple(
        unflatten_dict({path: x for path, x in flat.items() if is_one(path) == wanted})
        for wanted in (True, False)
    )
