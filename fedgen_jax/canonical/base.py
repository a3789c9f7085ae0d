"""What a canonical input is: moments that add, a change in closed form, and how images follow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedgen_jax.data.examples import Examples
from fedgen_jax.ops.resample import apply_separable, resample_matrix
from fedgen_jax.shifts.geometry import zoom_target

Tree = Any


class Canonical(NamedTuple):
    """A modality's canonical input, for one image and one center.

    moments: image float32 [H, W, 3] in [0, 1] -> [M], of norm at most 1; they add over images.
    solve:   (mean [M] of a center's images, mean [M] of the reference's) -> (colors, log zoom):
             what `apply` takes, and the logarithm of the magnification.  Where either has nothing
             to measure, the identity.
    apply:   (colors, image) -> image.
    """

    moments: Callable[[jax.Array], jax.Array]
    solve: Callable[[jax.Array, jax.Array], tuple[Tree, jax.Array]]
    apply: Callable[[Tree, jax.Array], jax.Array]


def unchanged(area: float = 0.0) -> Canonical:
    """Images as they are, whatever the `area`."""
    del area
    return Canonical(
        moments=lambda image: jnp.ones(1),
        solve=lambda own, reference: ((), jnp.float32(0)),
        apply=lambda colors, image: image,
    )


class Change(NamedTuple):
    """A center's change: its colors, and the factor by which its images are magnified."""

    colors: Tree
    zoom: jax.Array


def moments(canonical: Canonical, image_NxHxWx3: jax.Array) -> jax.Array:
    """uint8 [N, H, W, 3] -> [N, M]."""
    return jax.vmap(canonical.moments)(image_NxHxWx3.astype(jnp.float32) / 255)


def change_of(
    canonical: Canonical, mean_M: jax.Array, reference_M: jax.Array, zoom: tuple[float, float]
) -> Change:
    """The change of a center whose images have the mean moments [M].

    zoom: the least and largest magnification; (1, 1) leaves it as it is.
    """
    colors, log_zoom = canonical.solve(mean_M, reference_M)
    return Change(colors, jnp.clip(jnp.exp(log_zoom), *zoom))


def moved(
    canonical: Canonical, change: Change, examples: Examples, edge: str, size: int = 0
) -> Examples:
    """A center's images, uint8, after its change, and their masks and boxes with them.

    edge: what surrounds a shrunk image (`ops.resample`).
    size: of the square images that come out, a divisor of what goes in: what magnification needs of
        fine detail is read from larger images than a network sees.  0: as it is.

    Raises ValueError where masks or boxes would need another size.
    """
    factor = examples.image.shape[1] // size if size else 1
    if factor > 1 and {'mask', 'box'} & set(examples.target):
        raise ValueError('input.size: masks and boxes stay at data.image_size: set it to 0')

    def one(image_HxWx3, target):
        x = canonical.apply(change.colors, image_HxWx3.astype(jnp.float32) / 255)
        size = x.shape[:2]
        rows, cols = (resample_matrix(n, change.zoom, edge) for n in size)
        x = apply_separable(rows, cols, x)
        x = x.reshape(size[0] // factor, factor, size[1] // factor, factor, 3).mean((1, 3))
        x = jnp.round(255 * jnp.clip(x, 0, 1)).astype(jnp.uint8)
        return x, zoom_target(target, change.zoom, size, edge)

    image, target = jax.vmap(one)(examples.image, examples.target)
    return Examples(image, target, examples.weight)


def carried_back(change: Change, predictions: Tree, size: tuple[int, int], edge: str) -> Tree:
    """Predictions of moved images, in the places of the center's own.

    Of masks, what the magnification took out of sight goes on as the edge; boxes that lie mostly
    outside the image score 0.
    """
    if not {'mask', 'box'} & set(predictions):
        return predictions
    back = jax.vmap(lambda p: zoom_target(p, 1 / change.zoom, size, edge))(predictions)
    if 'box' in back:
        inside = back['box_class'] >= 0
        back['score'] = jnp.where(inside, back['score'], 0.0)
        back['box_class'] = predictions['box_class']
    return back
