"""Statistics of channels, by image: what `mixstyle`, `dsu` and `fedfa` change while a model learns.

The three share where: behind the first so many normalizations of a model (weights of role norm,
`models.roles`), on maps [B, H, W, I], in training alone.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.local import Gradient, Local, batch_loss, decayed, hold
from fedgen_jax.models.roles import frozen_of, roles_of

EPSILON = 1e-6  # added to variances, as in all three papers' code

# (a map [B, H, W, I], the number of its place, key) -> (another, what is told of it).
Change = Callable[[jax.Array, int, jax.Array], tuple[jax.Array, dict]]


def moments(x_BxHxWxI: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each channel of each image, float32 [B, 1, 1, I]."""
    x = x_BxHxWxI.astype(jnp.float32)
    variance = x.var((1, 2), keepdims=True)
    return x.mean((1, 2), keepdims=True), jnp.sqrt(variance + EPSILON)


def with_moments(
    x_BxHxWxI: jax.Array, of: tuple[jax.Array, jax.Array], to: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """The map with other moments, `to`, than its own, `of`."""
    x = (x_BxHxWxI.astype(jnp.float32) - of[0]) / of[1]
    return (x * to[1] + to[0]).astype(x_BxHxWxI.dtype)


def sometimes(p: float, key: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` with probability p, of a whole batch."""
    return jnp.where(jax.random.uniform(key) < p, new, old)


def changed_gradient(local: Local, layers: int, change: Change) -> Gradient:
    """The task's gradient, of a model whose maps are changed behind its first normalizations.

    Its aux is (that of `task_gradient`, what `change` tells of each place, in order).
    """
    role_of, frozen = roles_of(local.model), frozen_of(local.model)

    def gradient(params, batch, tau, key):
        def loss(p):
            told = []

            def watch(next_function, args, kwargs, context):
                y = next_function(*args, **kwargs)
                if len(told) >= layers or not is_place(role_of, context, y):
                    return y
                y, of_it = change(y, len(told), jax.random.fold_in(key, len(told)))
                told.append(of_it)
                return y

            with nn.intercept_methods(watch):
                value, statistics = batch_loss(local, hold(p, frozen), batch)
            return value, (statistics, tuple(told))

        value, grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, decayed(local, grads, params, frozen)

    return gradient


def is_place(role_of: Callable, context: nn.module.InterceptorContext, y) -> bool:
    """Whether a map behind a normalization."""
    if context.method_name != '__call__' or getattr(y, 'ndim', 0) != 4:
        return False
    return role_of((*context.module.path, 'scale')) == 'norm'


def widths_of(name: str, local: Local, p: float, layers: int) -> list[int]:
    """The channels of each place of a model, at most `layers`.

    Raises ValueError, which begins with the algorithm's `name`, where there is none, or where
    nothing can be changed there.
    """
    if not 0 <= p <= 1 or layers < 1:
        raise ValueError(f'{name}.p={p}, {name}.layers={layers}: from 0 to 1, and at least 1')
    role_of = roles_of(local.model)
    found: list[int] = []

    def watch(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        if is_place(role_of, context, y) and len(found) < layers:
            if isinstance(context.module, nn.InstanceNorm):
                raise ValueError(f"model.norm='instance': algorithm={name!r} changes statistics "
                                 'that it makes equal: pass --config.model.norm=group')
            found.append(y.shape[-1])
        return y

    x = jnp.zeros((1, local.image_size, local.image_size, 3))
    with nn.intercept_methods(watch):
        jax.eval_shape(local.model.init, jax.random.key(0), x)
    if not found:
        raise ValueError(f'algorithm={name!r}: model.name: no normalization of maps (weights of '
                         'role norm): another model')
    return found
