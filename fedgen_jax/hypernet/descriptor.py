"""The descriptor: an additive embedding of a client's feature distribution.

`Descriptor` maps one image to a vector of norm at most 1, the first and second moments of what a
small network sees in it.  A client's statistic is the sum over its images and their number, kept in
fixed point, so that pooling, subtracting and adding again are exact; its descriptor is the mean.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.models.layers import conv

FIXED_POINT = 2**20  # one unit of the descriptor, as integers: 20 bits below, 43 above in int64


class Descriptor(nn.Module):
    """g_psi: an image -> its vector [E], of norm at most 1.

    Three parts, each scaled to a norm below 0.55: the colors' first and second moments, exactly;
    how much of the image's energy lies at each scale (what tells magnification and blur); the
    first and second moments of a small convolutional network's channels, which are learned.
    """

    widths: Sequence[int] = (16, 32)
    size: int = 24

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, E]."""
        batch = len(x_BxHxWx3)
        scales = [x_BxHxWx3]
        while min(scales[-1].shape[1:3]) >= 8:
            scales.append(_halve(scales[-1]))
        small = next(s for s in scales if s.shape[1] <= max(self.size, scales[-1].shape[1]))

        mean_Bx3 = x_BxHxWx3.mean((1, 2))
        centered = x_BxHxWx3 - mean_Bx3[:, None, None]
        second_Bx9 = jnp.einsum('bhwc,bhwd->bcd', centered, centered).reshape(batch, 9)
        second_Bx9 = second_Bx9 / (centered.shape[1] * centered.shape[2])
        color = jnp.concatenate([mean_Bx3 - 0.5, 2 * second_Bx9], -1)

        detail = [
            jnp.mean((a - _double(b, a.shape)) ** 2, axis=(1, 2, 3))
            for a, b in zip(scales[:-1], scales[1:])
        ]
        spectrum = 0.05 * jnp.log(jnp.stack(detail, -1) + 1e-5) + 0.35

        y = small - 0.5
        moments = []
        for i, width in enumerate(self.widths):
            y = nn.tanh(conv(width, 3, 2, name=f'conv_{i}')(4 * y if i == 0 else 2 * y))
            moments += [y.mean((1, 2)), (y**2).mean((1, 2))]
        learned = jnp.concatenate(moments, -1)

        parts = [0.6 * color, spectrum, learned / np.sqrt(learned.shape[-1])]
        return jnp.concatenate([0.55 * clip_norm(p) for p in parts], -1)  # sqrt(3) * 0.55 < 1


def clip_norm(x_BxE: jax.Array) -> jax.Array:
    """Scales vectors longer than 1 back to 1."""
    squared = jnp.sum(x_BxE**2, -1, keepdims=True)
    return x_BxE * jax.lax.rsqrt(jnp.maximum(squared, 1.0))


def _halve(x_BxHxWxI):
    x = x_BxHxWxI[:, : x_BxHxWxI.shape[1] // 2 * 2, : x_BxHxWxI.shape[2] // 2 * 2]
    x = (x[:, ::2] + x[:, 1::2]) / 2
    return (x[:, :, ::2] + x[:, :, 1::2]) / 2


def _double(x_BxHxWxI, shape):
    x = jnp.repeat(jnp.repeat(x_BxHxWxI, 2, axis=1), 2, axis=2)
    return jnp.pad(
        x, ((0, 0), (0, shape[1] - x.shape[1]), (0, shape[2] - x.shape[2]), (0, 0)), mode='edge'
    )


class Statistic(NamedTuple):
    """A client's additive statistic, `(s_c, n_c)`: all that the server ever needs of it.

    total: int64 [E], the sum of its images' vectors in units of 1 / FIXED_POINT.
    count: the number of images.
    psi:   the hash of the descriptor network that made it.
    unit:  what is counted: images, or with `privacy.release` the patients, of whom each adds the
           mean of their images.
    variance: of the noise that was added to each number of `total`; 0: they are exact.
    """

    total: np.ndarray
    count: int  # type: ignore[assignment]  # a tuple's own method has the name
    psi: str
    unit: str = 'image'
    variance: int = 0


def statistic(vectors_NxE: np.ndarray, weight_N: np.ndarray, psi: str) -> Statistic:
    """Sums the vectors of the images whose weight is positive."""
    vectors = np.asarray(vectors_NxE, np.float64)[np.asarray(weight_N) > 0]
    return Statistic(np.rint(vectors * FIXED_POINT).astype(np.int64).sum(0), len(vectors), psi)


def add(a: Statistic, b: Statistic) -> Statistic:
    """The statistic of both clients' images together, exactly."""
    _same_kind(a, b)
    variance = a.variance + b.variance
    return Statistic(a.total + b.total, a.count + b.count, a.psi, a.unit, variance)


def remove(a: Statistic, b: Statistic) -> Statistic:
    """The statistic of `a` without the images of `b`, exactly: `remove(add(a, b), b) == a`."""
    _same_kind(a, b)
    if b.count > a.count:
        raise ValueError(f'cannot remove {b.count} {b.unit}s from a pool of {a.count}')
    variance = a.variance - b.variance
    return Statistic(a.total - b.total, a.count - b.count, a.psi, a.unit, variance)


def update(pooled: Statistic, old: Statistic, new: Statistic) -> Statistic:
    """The pool after one client's data changed from `old` to `new`."""
    return add(remove(pooled, old), new)


def pool(statistics: Iterable[Statistic]) -> Statistic:
    """The sum of many."""
    first, *rest = statistics
    for s in rest:
        first = add(first, s)
    return first


def mean(s: Statistic) -> np.ndarray:
    """The descriptor `m_c = s_c / n_c`, float32 [E]."""
    if s.count < 1:
        raise ValueError(f'a statistic of no {s.unit}s has no descriptor')
    return (s.total / (FIXED_POINT * s.count)).astype(np.float32)


def standard_error(s: Statistic) -> float:
    """The standard deviation of each number of `mean(s)` that the noise in it makes."""
    return s.variance**0.5 / (FIXED_POINT * s.count)


def hash_of(tree) -> str:
    """A hash of a pytree's numbers and paths: it names a descriptor network or a model."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _same_kind(a, b):
    if a.unit != b.unit:
        raise ValueError(f'statistics of {a.unit}s and of {b.unit}s do not add')
    if a.psi != b.psi:
        raise ValueError(
            f'statistics of two descriptor networks ({a.psi} and {b.psi}) do not add: '
            'recompute one of them'
        )
