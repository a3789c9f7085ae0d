"""Which examples of a client a step takes, and in which class mix."""

import jax
import jax.numpy as jnp

from fedgen_jax.data.examples import Examples
from fedgen_jax.tasks.base import Task


def class_mix(key: jax.Array, prevalence: str, num_strata: int) -> jax.Array | None:
    """The class mix [K] of a batch; None: as the client's data are."""
    if prevalence == 'natural':
        return None
    if prevalence == 'balanced':
        return jnp.full((num_strata,), 1 / num_strata)
    if prevalence == 'mixed':
        return jax.random.dirichlet(key, jnp.ones(num_strata))
    raise ValueError(f'prevalence={prevalence!r}: one of natural, balanced, mixed')


def draw_indices(task: Task, data: Examples, key: jax.Array, size: int, mix_K: jax.Array | None):
    """Indices [size] of examples, never of padding.

    Without a mix: a random order, begun again where the client has fewer than `size`.  With one:
    a class by the mix, among those the client has, then an example of it.
    """
    real_N = data.weight > 0
    if mix_K is None:
        noise_N = jax.random.uniform(key, real_N.shape)
        order_N = jnp.argsort(jnp.where(real_N, noise_N, jnp.inf))
        return order_N[jnp.arange(size) % jnp.maximum(real_N.sum(), 1)]
    stratum_N = jnp.where(real_N, task.stratum(data.target), -1)
    count_K = jnp.maximum(_counts(stratum_N, task.num_strata), 1)
    share_K = jnp.log(jnp.maximum(mix_K, 1e-6)) - jnp.log(count_K)
    # Unlabelled examples: never beside labelled ones, but near enough for float32 to tell their
    # noise apart.
    logits_N = jnp.where(stratum_N >= 0, share_K[jnp.maximum(stratum_N, 0)], -1e3)
    logits_N = jnp.where(real_N, logits_N, -jnp.inf)
    return jax.random.categorical(key, logits_N, shape=(size,))


def _counts(stratum_N, num_strata):
    """How many examples of each stratum there are, float32 [K]; -1: of none."""
    count_K = jnp.sum(stratum_N[:, None] == jnp.arange(num_strata)[None, :], axis=0)
    return count_K.astype(jnp.float32)


def class_shares(task: Task, data: Examples) -> jax.Array:
    """The shares [K] of a client's classes, as if it had half an example more of each."""
    stratum_N = jnp.where(data.weight > 0, task.stratum(data.target), -1)
    count_K = _counts(stratum_N, task.num_strata) + 0.5
    return count_K / count_K.sum()


def inputs_of(examples: Examples, index_B: jax.Array) -> jax.Array:
    """What a model takes of the examples at `index_B`: their features where these are known."""
    if examples.features is not None:
        return jnp.asarray(examples.features)[index_B]
    return images_of(jnp.asarray(examples.image)[index_B])


def images_of(image_uint8: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1]."""
    return image_uint8.astype(jnp.float32) / 255
