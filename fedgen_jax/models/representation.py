"""What a model's head reads, and a change of it on the way there."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from fedgen_jax.models.roles import roles_of

Tree = Any


def with_representation(
    model: nn.Module,
    params: Tree,
    apply: Callable[[], Any],
    change: Callable[[jax.Array], jax.Array] = lambda z: z,
) -> tuple[Any, jax.Array]:
    """(what `apply`, a pass of the model, returns; what its head read [B, ..., I]).

    change: of what the head reads, on the way there.

    Raises ValueError where no layer of the model is a head: all of whose weights have that role.
    """
    role_of = roles_of(model)
    found: dict[str, jax.Array] = {}
    # Asked before the pass: `roles` is a method of the model, which would be watched too.
    is_head = {path: role_of(path) == 'head' for path in flatten_dict(params)}

    def watch(next_function, args, kwargs, context):
        if found or context.method_name != '__call__':
            return next_function(*args, **kwargs)
        place = context.module.path
        below = [own for path, own in is_head.items() if place and path[: len(place)] == place]
        if not (below and all(below)):
            return next_function(*args, **kwargs)
        found['z'] = change(args[0])
        return next_function(found['z'], *args[1:], **kwargs)

    with nn.intercept_methods(watch):
        out = apply()
    if not found:
        raise ValueError('model.name: no layer has the role head, whose input is the '
                         'representation: let `roles` of the model say which one is it')
    return out, found['z']
