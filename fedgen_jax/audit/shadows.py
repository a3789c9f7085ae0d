"""Many small trainings at once: what `lira` compares a model with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedgen_jax.algorithms.local import Local, apply_model, batch_at, batch_loss, init_model
from fedgen_jax.algorithms.optimizers import annealed
from fedgen_jax.data.examples import Examples
from fedgen_jax.random import stream
from fedgen_jax.shifts.base import chain

CHUNK = 128  # images of a pass


class Recipe(NamedTuple):
    """How a shadow learns, beside the run's optimizer: T steps of B images, augmented or not."""

    steps: int = 200
    batch: int = 32
    augment: bool = True


def members(rng: np.random.Generator, shadows: int, images: int) -> np.ndarray:
    """bool [S, N]: each image is in a random half of the shadows."""
    order = rng.random((shadows, images)).argsort(0)
    return order < shadows // 2


def train(
    local: Local, data: Examples, member_SxN: np.ndarray, recipe: Recipe, seed: int
) -> dict:
    """Weights [S, ...] of models that learned from their members alone, all by `vmap`.

    local: the run's network, task and augmentation.  data: on canonical input, with labels.
    """
    plain = local.plain if recipe.augment else chain()
    local = local._replace(plain=plain, shift=chain(), private=None, prior=False, statistics='own')
    data = jax.tree.map(jnp.asarray, data)
    optimizer, falling = local.optimizer, annealed(1.0, recipe.steps)

    def one(member_N, key):
        logits_N = jnp.where(member_N, 0.0, -jnp.inf)
        params = init_model(local, key)

        def step(carry, t):
            params, opt = carry
            key_t = jax.random.fold_in(key, t)
            index = jax.random.categorical(stream(key_t, 'query'), logits_N, shape=(recipe.batch,))
            batch = batch_at(local, data, index, stream(key_t, 'images'), local.shift.sample(key_t))
            grads = jax.grad(lambda p: batch_loss(local, p, batch)[0])(params)
            updates, opt = optimizer.update(grads, opt, params)
            updates = jax.tree.map(lambda u: falling(t) * u, updates)
            return (optax.apply_updates(params, updates), opt), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(recipe.steps))[0][0]

    keys = jax.random.split(jax.random.key(seed), len(member_SxN))
    return jax.jit(jax.vmap(one))(jnp.asarray(member_SxN), keys)


def confidence(probability_NxK: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """log p - log(1 - p) of the true class, [N]."""
    p_NxK = np.clip(np.asarray(probability_NxK, np.float64), 1e-12, 1)
    own = np.take_along_axis(p_NxK, label_N[:, None], 1)[:, 0]
    rest = np.maximum(p_NxK.sum(1) - own, 1e-12)
    return np.log(own) - np.log(rest)


def views(image_NxHxWx3: np.ndarray, flips: bool) -> list[np.ndarray]:
    """The images as they are and, where training flips them, their three mirror images."""
    x = image_NxHxWx3
    return [x, x[:, :, ::-1], x[:, ::-1], x[:, ::-1, ::-1]] if flips else [x]


def confidences(local: Local, weights_S: dict, data: Examples, flips: bool) -> np.ndarray:
    """[S, N] of models on images, the mean over `views`.

    Batch statistics, if there are any, are those of random parts, as in the training of these.
    """
    local = local._replace(statistics='own', prior=False)

    @jax.jit
    def probability(weights_S, image):
        def one(w):
            assert local.task.probability
            return local.task.probability(apply_model(local, w, image)[0])

        return jax.lax.map(one, weights_S)

    order = np.random.default_rng(0).permutation(len(data.weight))
    label_N, found = np.asarray(data.target['label'])[order], []
    for x in views(np.asarray(data.image)[order], flips):
        p_SxNxK = np.concatenate([
            np.asarray(probability(weights_S, part.astype(np.float32) / 255))
            for part in np.array_split(x, -(-len(x) // CHUNK))
        ], 1)
        found.append(np.stack([confidence(p, label_N) for p in p_SxNxK]))
    return np.mean(found, 0)[:, order.argsort()]
