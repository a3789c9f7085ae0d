"""What a shift is, and how shifts combine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = Any
Target = dict[str, jax.Array]


class Shift(NamedTuple):
    """A change of acquisition: a pair of pure functions, written for one image.

    sample: key -> params.  One draw is one virtual center: its images share the params.
    apply:  (params, key, image_HxWx3, target) -> (image_HxWx3, target).  The image is float32 in
            [0, 1] and stays there; `key` feeds what differs from image to image (noise); a
            geometric shift moves 'mask' and 'box' of the target with the image and leaves
            what it does not know alone.
    """

    sample: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, jax.Array, Target], tuple[jax.Array, Target]]


def chain(*shifts: Shift) -> Shift:
    """The shifts one after another; the params are a tuple, one entry a shift."""

    def sample(key):
        keys = jax.random.split(key, max(len(shifts), 1))
        return tuple(s.sample(k) for s, k in zip(shifts, keys))

    def apply(params, key, image_HxWx3, target):
        for i, (shift, p) in enumerate(zip(shifts, params)):
            image_HxWx3, target = shift.apply(p, jax.random.fold_in(key, i), image_HxWx3, target)
        return image_HxWx3, target

    return Shift(sample, apply)


def sometimes(shift: Shift, probability: float = 0.5) -> Shift:
    """The shift at a virtual center with this probability, and nothing otherwise.

    Both results are computed and one is kept (as under `vmap` anyway), so it suits cheap shifts.
    Params: (on, params of the shift).
    """

    def sample(key):
        coin, key = jax.random.split(key)
        return jax.random.bernoulli(coin, probability), shift.sample(key)

    def apply(params, key, image_HxWx3, target):
        on, params = params
        weight = on.astype(image_HxWx3.dtype)

        def keep(new, old):
            if new.dtype == weight.dtype:
                # Not `where`: it becomes a branch, behind which XLA on a CPU computes `params`
                # anew for every pixel.
                return weight * new + (1 - weight) * old
            return jnp.where(on, new, old)

        shifted = shift.apply(params, key, image_HxWx3, target)
        return jax.tree.map(keep, shifted, (image_HxWx3, target))

    return Shift(sample, apply)
