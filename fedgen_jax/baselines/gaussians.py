"""Gaussian classes of one covariance: their discriminant, their estimates, and mixes of two.

For `pfedfda`, whose equations these are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

SHRINK = 1e-4  # of a covariance to a multiple of the identity, before it is inverted
FEWEST = 2  # examples of a class, below which it has no mean of its own
GRID = 11  # mixing weights that are tried: tenths


class Gaussians(NamedTuple):
    """mean: [K, I] of classes; covariance: [I, I] of all; share: [K] of classes.

    mix: [2], the weights of own means and own covariance that these come from.
    """

    mean: jax.Array
    covariance: jax.Array
    share: jax.Array
    mix: jax.Array


def lda(gaussians: Gaussians) -> tuple[jax.Array, jax.Array]:
    """The head (kernel [I, K], bias [K]) whose answer is the classes' posterior."""
    kernel_IxK = _inverse_times(gaussians.covariance, gaussians.mean.T)
    return kernel_IxK, _bias(kernel_IxK, gaussians)


def _bias(kernel_IxK, gaussians):
    return -0.5 * jnp.sum(gaussians.mean.T * kernel_IxK, 0) + jnp.log(gaussians.share + 1e-12)


def _inverse_times(covariance_IxI, x_IxM):
    size = len(covariance_IxI)
    even = jnp.trace(covariance_IxI) / size * jnp.eye(size)
    lower = jax.scipy.linalg.cho_factor((1 - SHRINK) * covariance_IxI + SHRINK * even)
    return jax.scipy.linalg.cho_solve(lower, x_IxM)


def own(z_NxI: jax.Array, chance_NxK: jax.Array, others: Gaussians, ridge: float) -> Gaussians:
    """The Gaussians of features of known or likely classes.

    chance_NxK: of each feature's classes; zeros where it does not count.
    others: whose mean a class of fewer than `FEWEST` takes, and all else where nothing counts.
    """
    count_K = chance_NxK.sum(0)
    mean_KxI = chance_NxK.T @ z_NxI / jnp.maximum(count_K, 1e-6)[:, None]
    mean_KxI = jnp.where((count_K >= FEWEST)[:, None], mean_KxI, others.mean)
    # The sum over classes and examples of chance (z - mean)(z - mean)^T, about one point.
    about_I = others.mean.mean(0)
    z, mean = z_NxI - about_I[None], mean_KxI - about_I[None]
    cross_IxI = (chance_NxK.T @ z).T @ mean
    scatter_IxI = (
        (z * chance_NxK.sum(1)[:, None]).T @ z - cross_IxI - cross_IxI.T
        + (mean * count_K[:, None]).T @ mean
    )
    n = count_K.sum()
    covariance = scatter_IxI / jnp.maximum(n - 1, 1) + ridge * jnp.eye(z.shape[1])
    return others._replace(
        mean=mean_KxI, covariance=jnp.where(n >= FEWEST, covariance, others.covariance)
    )


def mixed(own: Gaussians, others: Gaussians, mix: jax.Array) -> Gaussians:
    """mix[0] of own means and mix[1] of the own covariance, the rest of others'."""
    return own._replace(
        mean=mix[0] * own.mean + (1 - mix[0]) * others.mean,
        covariance=mix[1] * own.covariance + (1 - mix[1]) * others.covariance,
        mix=mix,
    )


def best_mix(
    z_NxI: jax.Array, label_N: jax.Array, others: Gaussians, ridge: float, key: jax.Array
) -> jax.Array:
    """The `Gaussians.mix` of least cross-entropy over two folds; 0 where no class has two examples.

    label_N: -1: it does not count.
    """
    num = len(others.share)
    fold_N = folds(label_N, num, key)
    count_K = jnp.sum(label_N[:, None] == jnp.arange(num)[None], 0)
    label_N = jnp.where(count_K[jnp.maximum(label_N, 0)] >= FEWEST, label_N, -1)
    one_NxK, grid_G = jax.nn.one_hot(label_N, num), jnp.linspace(0, 1, GRID)

    def losses(fold):
        """[G, G] of a fold's features under heads from the other's, by weights of covariances."""
        of_fold_N = (fold_N == fold).astype(jnp.float32)
        found = own(z_NxI, one_NxK * (1 - of_fold_N)[:, None], others, ridge)
        weight_N = of_fold_N * (label_N >= 0).astype(jnp.float32)

        def of_covariance(b):
            # One inverse serves all means: the kernel is linear in them.
            covariance = mixed(found, others, jnp.stack([b, b])).covariance
            own_IxK, other_IxK = jnp.split(
                _inverse_times(covariance, jnp.concatenate([found.mean, others.mean]).T), 2, 1
            )

            def of_means(a):
                kernel_IxK = a * own_IxK + (1 - a) * other_IxK
                bias_K = _bias(kernel_IxK, mixed(found, others, jnp.stack([a, b])))
                each_N = optax.softmax_cross_entropy_with_integer_labels(
                    z_NxI @ kernel_IxK + bias_K[None], jnp.maximum(label_N, 0)
                )
                return jnp.sum(weight_N * each_N)

            return jax.lax.map(of_means, grid_G)

        return jax.lax.map(of_covariance, grid_G)

    loss_GxG = losses(0) + losses(1)
    best = jnp.argmin(loss_GxG)
    return jnp.stack([grid_G[best % GRID], grid_G[best // GRID]])


def folds(label_N: jax.Array, num: int, key: jax.Array) -> jax.Array:
    """0 or 1 of each example: as many of each in every class, to one."""
    order_N = jnp.lexsort((jax.random.uniform(key, label_N.shape), label_N))
    before_K = jnp.sum(label_N[:, None] < jnp.arange(-1, num)[None], 0)  # of other classes
    place_N = jnp.zeros_like(label_N).at[order_N].set(jnp.arange(len(label_N)))
    return (place_N - before_K[label_N + 1]) % 2


def at_stranger(
    z_NxI: jax.Array, weight_N: jax.Array, others: Gaussians, ridge: float, rounds: int
) -> Gaussians:
    """Those of features without labels, by expectation and maximization from the others'.

    Each estimate is mixed with the others' by `others.mix`.
    """

    def step(found, _):
        kernel_IxK, bias_K = lda(found)
        chance_NxK = jax.nn.softmax(z_NxI @ kernel_IxK + bias_K[None]) * weight_N[:, None]
        return mixed(own(z_NxI, chance_NxK, others, ridge), others, others.mix), None

    return jax.lax.scan(step, others, length=rounds)[0]
