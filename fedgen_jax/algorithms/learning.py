"""The local steps: what learns in them, and how several learn in the same ones."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.algorithms.local import (
    Gradient,
    Local,
    Loss,
    Tree,
    batch_at,
    batch_loss,
    center_statistics,
    decayed,
    query_batch,
    task_gradient,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.privacy import dpsgd
from fedgen_jax.random import stream


class Learning(NamedTuple):
    """What learns in T steps at one client.

    params:   the weights to begin with.
    factor:   each step's, times the optimizer's; or one for each top-level entry of `params`.
    gradient: of a step; default: the task's.  Most methods are a closure here.
    stays:    of a weight's path, whether it stays as it began; default: as the model says
              (`models.roles`).
    model:    the model's weights, where `params` are not these alone: the center's statistics of
              the last features are taken under them.
    loss:     what `gradient` is the gradient of, for private steps (`Local.private`), which need it
              of one patient at a time; default: the task's.
    """

    local: Local
    params: Tree
    factor: jax.Array | float | dict[str, jax.Array]
    gradient: Gradient | None = None
    stays: Callable[[tuple[str, ...]], bool] | None = None
    model: Tree = None
    loss: Loss | None = None


class Learned(NamedTuple):
    """Weights after the steps, their mean loss, and the steps' aux, leaves [T, ...].

    Private steps return no loss (None) and no aux (()): both would tell of the images.
    """

    params: Tree
    loss: jax.Array | None
    aux_T: Tree


@dataclasses.dataclass(frozen=True)  # JAX refers to functions weakly, which no tuple allows
class Update:
    """An `Algorithm.client_update` of T steps, which others can take with it (`side_by_side`).

    begin: (shared, private, data, key) -> (Learning, end), with
           end: Learned -> (contribution, private, metrics).
    """

    begin: Callable[..., tuple[Learning, Callable[[Learned], tuple[Tree, Tree, dict]]]]

    def __call__(
        self, shared: Tree, private: Tree, data: Examples, key: jax.Array
    ) -> tuple[Tree, Tree, dict]:
        """`Algorithm.client_update`."""
        (done,) = side_by_side([self], shared, private, data, key)
        return done


def side_by_side(
    updates: Sequence[Callable], shared: Tree, private: Tree, data: Examples, key: jax.Array
) -> list[tuple[Tree, Tree, dict]]:
    """What each of several `Algorithm.client_update`s returns, to the bit as by itself.

    They take the same steps where each is an `Update`.
    """
    if not all(isinstance(update, Update) for update in updates):
        return [update(shared, private, data, key) for update in updates]
    begun: Any = [update.begin(shared, private, data, key) for update in updates]  # type: ignore
    learned = learn_together([x for x, _ in begun], data, key_of_steps(key))
    return [end(x) for (_, end), x in zip(begun, learned)]


def key_of_steps(key: jax.Array) -> jax.Array:
    """That of `learn`, where `key` is a client's in a round."""
    return stream(key, 'learn')


def step_batch(local: Local, data: Examples, key: jax.Array, t: jax.Array) -> tuple:
    """(batch, tau, key) of step t, with the batch's features where `data` has those of steps."""
    key_t = jax.random.fold_in(key, t)
    batch, tau = query_batch(local, data, key_t)
    if data.steps is not None:
        assert data.steps.shape[:2] == (local.steps, local.batch)  # else of another `Local`
        batch = batch._replace(features=data.steps[t])
    return batch, tau, key_t


def learn(learning: Learning, data: Examples, key: jax.Array) -> Learned:
    """T steps on one client, on images: features of `data.steps` are those of a round's own key."""
    return learn_together([learning], data._replace(steps=None), key)[0]


def learn_together(
    learnings: Sequence[Learning], data: Examples, key: jax.Array
) -> list[Learned]:
    """`learn` of each, to the bit; those of the same `Local` see a step's batch in one loop.

    A step's batch is then made once.  What they compute alike of it, such as the features of a
    network of which they all leave the weights as they began, the compiler finds and does once.
    """
    local = learnings[0].local
    if local.private or any(x.local is not local for x in learnings[1:]):
        return [
            private_learn(x, data, key) if x.local.private else _in_one_loop([x], data, key)[0]
            for x in learnings
        ]
    return _in_one_loop(learnings, data, key)


def _in_one_loop(learnings, data, key):
    local = learnings[0].local
    models = [x.params if x.model is None else x.model for x in learnings]
    last_of = {
        k: center_statistics(local, model, data, key)
        for k, model in {id(model): model for model in models}.items()
    }

    def step(carry, t):
        batch, tau, key_t = step_batch(local, data, key, t)
        stepped = []
        for x, model, (moving, opt) in zip(learnings, models, carry):
            own = batch._replace(last=last_of[id(model)])
            gradient = x.gradient or task_gradient(local, x.stays)
            told, grads = gradient(_with(x, moving), own, tau, key_t)
            updates, opt = local.optimizer.update(_moving(x, grads), opt, moving)
            stepped.append(((optax.apply_updates(moving, _scaled(x.factor, updates)), opt), told))
        return tuple(zip(*stepped))

    begin = tuple((w, local.optimizer.init(w)) for w in (_moving(x, x.params) for x in learnings))
    end, told_T = jax.lax.scan(step, begin, jnp.arange(local.steps))
    return [
        Learned(_with(x, moving), loss_T.mean(), aux_T)
        for x, (moving, _), (loss_T, aux_T) in zip(learnings, end, told_T)
    ]


# Weights that stay are no part of the loop's carry: the compiler knows that they are the same in
# all steps and for all that learn, and no optimizer keeps numbers for them.
def _moving(learning, tree):
    """A tree like `params`, with None for what stays."""
    stays = learning.stays or frozen_of(learning.local.model)

    def of(path, x):
        return None if stays(tuple(k.key for k in path)) else x

    return jax.tree_util.tree_map_with_path(of, tree)


def _with(learning, moving):
    """All weights, given those that move."""
    def of(new, first):
        return first if new is None else new

    return jax.tree.map(of, moving, learning.params, is_leaf=lambda x: x is None)


def _scaled(factor, updates):
    if isinstance(factor, dict):
        return {k: _scaled(factor[k], v) for k, v in updates.items()}
    return jax.tree.map(lambda u: factor * u, updates)


def private_learn(learning: Learning, data: Examples, key: jax.Array) -> Learned:
    """`learn` by DP-SGD (`privacy.dpsgd`)."""
    local, private = learning.local, learning.local.private
    assert private
    if learning.gradient and not learning.loss:
        raise ValueError('privacy.unit: this algorithm has no private steps')
    loss = learning.loss or task_loss(local)

    def step(carry, t):
        params, opt = carry
        key_t = jax.random.fold_in(key, t)
        tau = local.shift.sample(stream(key_t, 'shift'))

        def of_patient(params, index_G, real_G, key):
            index_B = jnp.repeat(index_G, private.multiplicity)
            batch = batch_at(local, data, index_B, stream(key, 'query_images'), tau)
            weight_B = jnp.repeat(real_G, private.multiplicity)
            return loss(params, batch._replace(weight=weight_B), tau, key_t)

        grads = dpsgd.gradient(private, of_patient, params, data.own, key_t)
        grads = decayed(local, grads, params, lambda path: not private.trainable(path))
        updates, opt = local.optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, _scaled(learning.factor, updates)), opt), None

    carry = (learning.params, local.optimizer.init(learning.params))
    (params, _), _ = jax.lax.scan(step, carry, jnp.arange(local.steps))
    return Learned(params, None, ())


def task_loss(local: Local) -> Loss:
    """The task's loss."""
    def loss(params, batch, tau, key):
        return batch_loss(local, params, batch)[0]

    return loss


def metrics_of(**losses: jax.Array | None) -> dict[str, jax.Array]:
    """A client's metrics: the losses that `learn` tells."""
    return {name: x for name, x in losses.items() if x is not None}
