"""FedSR: FedAvg whose representations are short, and tell little of an image beside its class.

References:
    Nguyen, Torr, Lim 2022, FedSR: A simple and effective domain generalization method for federated
    learning, NeurIPS (section 4).

With z what the head reads, drawn from p(z|x) = N(mu(x), sigma(x)^2), a client's loss is

    the task's + l2r E |z|^2 + cmi E KL(p(z|x) || r(z|y)),    r(z|y) = N(mu_y, sigma_y^2),

a bound of the mutual information of z and x, given the class y.  All clients share r and learn it
with the model.  mu(x) is what the model's head reads; sigma(x) is a softplus of one more linear
layer on it, small at first, so that a pretrained start keeps its features.  The authors' code has
|z| where the equation has its square, and a factor of z in the KL that mu_y can follow.  Where
cmi is 0, z is mu(x); where both are 0, this is FedAvg to the bit.

z is the vector of an image, or in segmentation of each pixel, whose class y then is.  A task of
neither kind has no cmi.  An unseen center gets the shared model, with z = mu(x), as all do.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree, server_step
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import (
    Batch,
    Local,
    apply_model,
    contribution_of,
    decayed,
    hold,
    init_model,
)
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.models.representation import with_representation
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream

CLASSES = ('label', 'mask')  # targets that are a class for each vector
FIRST = {'spread': -3.0, 'scale': 1.0}  # before the softplus: the authors' scale is 1


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.l2r = 0.01  # weight of the representation's squared length
    c.cmi = 0.0005  # weight of what it tells of an image, given its class
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    p = c.fedsr
    if p.l2r < 0 or p.cmi < 0:
        raise ValueError(f'fedsr.l2r={p.l2r}, fedsr.cmi={p.cmi}: at least 0')
    if p.cmi and local.task.target not in CLASSES:
        raise ValueError(
            f'fedsr.cmi={p.cmi}: task={local.task.name!r} has no class for each representation: '
            'pass --config.fedsr.cmi=0'
        )
    return fedsr(local, optimizer('server', c.server), p.l2r, p.cmi)


def kl(mean, spread, mean_y, spread_y):
    """KL(N(mean, spread^2) || N(mean_y, spread_y^2)), summed over the last axis."""
    each = jnp.log(spread_y / spread) + (spread**2 + (mean - mean_y) ** 2) / (2 * spread_y**2) - 0.5
    return each.sum(-1)


def fedsr(
    local: Local, server: optax.GradientTransformation, l2r: float, cmi: float
) -> Algorithm:
    base = fedavg(local, server)
    frozen, loss = frozen_of(local.model), loss_of(local, l2r, cmi)

    def init(key):
        theta, shared = init_model(local, key), base.init(key).shared
        shared = {**shared, 'reference': first_reference(local, theta) if cmi else {}}
        return State(shared, server.init({k: shared[k] for k in ('theta', 'reference')}))

    def gradient(params, batch, tau, key):
        told, grads = jax.value_and_grad(loss, has_aux=True)(params, batch, key)
        return told, {**grads, 'theta': decayed(local, grads['theta'], params['theta'], frozen)}

    def begin(shared, private, data, key):
        old = {k: shared[k] for k in ('theta', 'reference')}

        def end(done):
            contribution = contribution_of(local, data, done.params, old, done.aux_T)
            return contribution, private, metrics_of(loss=done.loss)

        return Learning(
            local, old, local.schedule(shared['round']), gradient,
            lambda path: path[0] == 'theta' and frozen(path[1:]), model=old['theta'],
        ), end

    return base._replace(
        features=True, init=init, client_update=Update(begin), title='FedSR',
        server_update=lambda state, total: server_step(server, state, total),
        sizes={'base': 'theta', 'reference': 'reference'},
    )


def first_reference(local: Local, theta: Tree) -> Tree:
    """What learns beside the model: its representation's spread, and each class's distribution."""
    size = (1, local.image_size, local.image_size, 3)
    variables = {'params': theta} if local.start is None else {**local.start, 'params': theta}

    def width():
        return with_representation(local.model, theta, lambda: local.model.apply(
            variables, jnp.zeros(size), train=True, mutable=['batch_stats']
        ))[1]

    num, wide = local.task.num_outputs, jax.eval_shape(width).shape[-1]
    return {
        'layer': jnp.zeros((wide, wide)), 'bias': jnp.full(wide, FIRST['spread']),
        'mean': jnp.zeros((num, wide)), 'scale': jnp.full((num, wide), FIRST['scale']),
    }


def loss_of(local: Local, l2r: float, cmi: float) -> Callable:
    """({'theta', 'reference'}, batch, key) -> (the task's loss and both terms, statistics)."""
    frozen = frozen_of(local.model)

    def loss(params, batch, key):
        theta, r = hold(params['theta'], frozen), params['reference']
        at = {}

        def draw(mean):
            if not cmi:
                return mean
            spread = jax.nn.softplus(mean @ r['layer'] + along(r['bias'], mean)) + 1e-4
            at['mean'], at['spread'] = mean, spread
            noise = jax.random.normal(stream(key, 'representation'), mean.shape)
            return mean + spread * noise

        def apply():
            return apply_model(local, theta, batch.inputs, batch.last)

        (outputs, statistics), z = with_representation(local.model, theta, apply, draw)
        value = local.task.loss(outputs, batch.target, batch.weight)
        if l2r:
            value += l2r * weighted_mean((z**2).sum(-1), batch.weight)
        if cmi:
            value += cmi * class_term(local, at['mean'], at['spread'], r, batch)
        return value, statistics if local.keeps_statistics else ()

    return loss


def class_term(
    local: Local, mean: jax.Array, spread: jax.Array, reference: Tree, batch: Batch
) -> jax.Array:
    """The mean divergence of representations [..., I] from the distribution of their class."""
    y = batch.target[local.task.target].astype(jnp.int32)
    if y.shape != mean.shape[:-1]:
        raise ValueError(
            f'fedsr.cmi: classes {y.shape} and representations {mean.shape} do not fit: '
            'pass --config.fedsr.cmi=0'
        )
    known = (y >= 0) & (y < local.task.num_outputs)
    y = jnp.where(known, y, 0)
    each = kl(mean, spread, reference['mean'][y], jax.nn.softplus(reference['scale'])[y])
    return weighted_mean(each, batch.weight, known)


def along(bias_I, x):
    """A vector [I], in the shape in which it is added to [..., I]."""
    return jnp.expand_dims(bias_I, tuple(range(x.ndim - 1)))


def weighted_mean(x_Bx, weight_B, known_Bx=True):
    """The mean over images and places, of those that count and are known."""
    weight = jnp.expand_dims(weight_B, tuple(range(1, x_Bx.ndim)))
    weight = jnp.where(known_Bx, weight, 0) * jnp.ones_like(x_Bx)
    return (weight * x_Bx).sum() / jnp.maximum(weight.sum(), 1)
