"""The optimizers of clients and server, from their part of a configuration."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.local import Steps


def optimizer(
    field: str, c: ConfigDict, lr: optax.ScalarOrSchedule | None = None
) -> optax.GradientTransformation:
    """The optimizer of `client` or `server`; lr: in place of the field's own."""
    lr = c.lr if lr is None else lr
    if c.optimizer == 'sgd':
        step = optax.sgd(lr, momentum=c.momentum or None)
        return optax.chain(optax.clip_by_global_norm(c.clip), step) if c.get('clip') else step
    if c.optimizer == 'fedadam' and field == 'server':
        return fedadam(lr)
    if c.optimizer == 'adam':
        made = optax.adam(lr, b1=0.9, b2=0.99, eps=1e-8 if field == 'client' else 1e-3)

        def update(updates, state, params=None):
            with jax.numpy_dtype_promotion('standard'):  # it raises floats to whole powers
                return made.update(updates, state, params)

        return optax.GradientTransformation(made.init, update)
    known = ('sgd', 'adam') if field == 'client' else ('sgd', 'adam', 'fedadam')
    raise ValueError(f'{field}.optimizer={c.optimizer!r}: one of {", ".join(known)}')


class Moments(NamedTuple):
    """The running means of a gradient and of its square, trees like the weights."""

    first: optax.Params
    second: optax.Params


def fedadam(
    lr: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3
) -> optax.GradientTransformation:
    """The server's Adam of Reddi et al. 2021, Adaptive federated optimization, algorithm 2:

        m <- b1 m + (1 - b1) D,  v <- b2 v + (1 - b2) D^2,  x <- x + lr m / (sqrt(v) + tau),

    of the mean change D, from m = 0 and v = tau^2, which the paper has as the least; without the
    bias correction of `optax.adam`.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(zeros, jax.tree.map(lambda x: jnp.full_like(x, tau**2), params))

    def update(gradient, state, params=None):
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.first, gradient)
        second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.second, gradient)
        way = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + tau), first, second)
        return way, Moments(first, second)

    step = optax.scale_by_learning_rate(lr)
    return optax.chain(optax.GradientTransformation(init, update), step)


def own_steps(c: ConfigDict, steps: int, lr: float) -> Steps:
    """Labelled steps of a center by itself, with the clients' optimizer, annealed to zero."""
    return Steps(steps, optimizer('client', c.client, annealed(lr, steps)))


def annealed(lr: float, steps: int) -> Callable[[jax.Array], jax.Array]:
    """A rate that falls from `lr` to zero over `steps`."""
    decay = optax.cosine_decay_schedule(lr, max(steps, 1))
    return lambda step: decay(step.astype(jnp.float32))  # strict promotion


def schedule(c: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """round -> factor of the clients' learning rate.

    A cosine may begin anew (SGDR: Loshchilov & Hutter 2017, arXiv:1608.03983), so that a run that
    has ended can go on as the run of as many rounds that has its end among `client.restarts`.
    """
    restarts = tuple(c.client.get('restarts', ()))  # a run that is older than the field lacks it
    if c.client.schedule == 'constant':
        return lambda round_: jnp.float32(1)
    if c.client.schedule == 'cosine':
        ends = (0, *restarts, c.rounds)
        lengths = [b - a for a, b in zip(ends, ends[1:])]
        if min(lengths) < 1:
            raise ValueError(
                f'client.restarts={restarts}: rounds in rising order, above 0 and below '
                f'rounds={c.rounds}'
            )
        decays = [optax.cosine_decay_schedule(1.0, length) for length in lengths]
        decay = optax.join_schedules(decays, list(restarts))
        return lambda round_: decay(round_.astype(jnp.float32))  # strict promotion
    raise ValueError(f'client.schedule={c.client.schedule!r}: one of constant, cosine')
