"""What pFedHN, ODPFL-HN and PeFLL share: a hypernetwork at the server generates whole models.

From one vector v_c a client,

    theta_c = theta + H_phi(v_c),

of every weight that training moves (`models.roles`).  The client takes its T steps from theta_c and
sends the change; the server pulls it back through H (Shamsian et al. 2021, eq. 3),

    Delta phi = sum_c w_c (d theta_c / d phi)^T Delta theta_c / sum_c w_c.

On the wire a client is sent its own model alone.  A simulated client is given all of `shared`, and
makes theta_c itself, which is the same number for number; so is one that is deployed, whose
measured bytes count all of it.

Chosen here: `theta`, the biases of H's last layer, begin as a model's first weights (so that
`start.weights` serve, and all methods of a comparison begin alike), and the features that this
layer reads are divided by the root of their number: a round then moves theta_c by about what the
client sent, at `server.lr` 1.  The authors' code has PyTorch's initializers and a rate of 0.01.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import State, Tree, server_step
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.local import Local, init_model, init_statistics
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.data.examples import Examples
from fedgen_jax.hypernet.generator import refine
from fedgen_jax.models.layers import conv
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream
from fedgen_jax.registry import check_counts

SPREAD = 0.1  # of first models, as a share of the spread of a model's first weights
CHUNK = 256  # images that are encoded at once


def defaults() -> ConfigDict:
    """Fields of every method that has such a hypernetwork."""
    c = ConfigDict()
    c.hidden = 100  # units of each hidden layer, and features that the last one reads
    c.layers = 3  # hidden layers
    c.rate = 1.0  # of the hypernetwork at the server, as a multiple of server.lr
    c.decay = 1e-5  # this times the hypernetwork's weights is taken from them in a round
    return c


class Hypernetwork(nn.Module):
    """H_phi: a vector [E] -> {path: change}, of the weights in `shapes`, ((path, shape), ...)."""

    shapes: tuple
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, v_E: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        x = v_E
        for i in range(self.layers):
            he = nn.initializers.he_normal()
            x = nn.relu(nn.Dense(self.hidden, kernel_init=he, name=f'hidden_{i}')(x))
        features_H = nn.Dense(self.hidden, name='features')(x) * self.hidden**-0.5
        return {p: self._weight('.'.join(p), shape, features_H) for p, shape in self.shapes}

    def _weight(self, name, shape, features_H):
        size = int(np.prod(shape))
        fan_in = size / shape[-1] if len(shape) > 1 else 1.0
        begin = nn.initializers.normal(SPREAD * fan_in**-0.5)
        last = nn.Dense(size, use_bias=False, kernel_init=begin, name=name)
        return last(features_H).reshape(shape)


def hypernetwork_of(name: str, c: ConfigDict, local: Local) -> Hypernetwork:
    """That of a method's fields, in the group `name`, for the weights that training moves."""
    check_counts(name, c, 'hidden', *(field for field in ('code',) if field in c))
    template = jax.eval_shape(lambda k: init_model(local, k), jax.random.key(0))
    stays = frozen_of(local.model)
    shapes = tuple((p, x.shape) for p, x in flatten_dict(template).items() if not stays(p))
    return Hypernetwork(shapes, c.hidden, c.layers)


def first_weights(net: Hypernetwork, local: Local, key: jax.Array, size: int) -> Tree:
    """The entries of `shared` at first, for vectors of `size` numbers."""
    phi = net.init(stream(key, 'phi'), jnp.zeros(size))['params']
    first = {'theta': init_model(local, key), 'phi': phi, 'round': jnp.int32(0)}
    return {**first, **init_statistics(local, key)}


def model_from(net: Hypernetwork, shared: Tree, v_E: jax.Array) -> Tree:
    """theta_c."""
    change: Any = net.apply({'params': shared['phi']}, v_E)
    return refine(shared['theta'], change)


def sent_down(shared: Tree) -> Tree:
    """`Algorithm.down`: a model, which is as large as `theta`."""
    return {k: shared[k] for k in ('theta', 'round', 'statistics', 'psi') if k in shared}


def pulled_back(
    net: Hypernetwork, shared: Tree, v_CxE: jax.Array, delta_C: Tree
) -> tuple[Tree, jax.Array]:
    """sum_c (d theta_c / d phi)^T delta_c, and each (d theta_c / d v_c)^T delta_c [C, E]."""
    flat_C = flatten_dict(delta_C)

    def inner(phi, v_CxE):
        change_C: Any = jax.vmap(lambda v: net.apply({'params': phi}, v))(v_CxE)
        return sum(jnp.vdot(x_C, flat_C[path]) for path, x_C in change_C.items())

    phi, own_CxE = jax.grad(inner, (0, 1))(shared['phi'], v_CxE)
    return phi, own_CxE


def by_entry(c: ConfigDict, rates: dict[str, float]) -> optax.GradientTransformation:
    """The server's optimizer, with a rate of its own for each entry of `shared` that learns."""
    server = optimizer('server', c)
    groups = {k: optax.chain(server, optax.scale(rate)) for k, rate in rates.items()}
    return optax.partition(groups, lambda weights: {k: k for k in weights})


def hypernetwork_step(
    server: optax.GradientTransformation, state: State, total_C: Tree, more: Tree, decay: float
) -> State:
    """`server_step` on messages [C, ...] of which 'delta' holds 'theta'; more: {entry: sum}."""
    total = jax.tree.map(lambda x_C: x_C.sum(0), total_C)
    shrunk = jax.tree.map(
        lambda d, x: d - total['weight'] * decay * x, more['phi'], state.shared['phi']
    )
    total['delta'] = {**total['delta'], **more, 'phi': shrunk}
    return server_step(server, state, total)


class Encoder(nn.Module):
    """An image -> its vector [E]: two convolutions, their mean, and two layers."""

    size: int
    widths: tuple[int, ...] = (16, 32)
    hidden: int = 84

    @nn.compact
    def __call__(self, x_BxHxWxI: jax.Array) -> jax.Array:
        x = x_BxHxWxI - 0.5
        for i, width in enumerate(self.widths):
            x = nn.relu(conv(width, 5, 2, name=f'conv_{i}')(x))
        x = nn.relu(nn.Dense(self.hidden, name='hidden')(x.mean((1, 2))))
        return nn.Dense(self.size, name='out')(x)


def standard(v_E: jax.Array) -> jax.Array:
    """A vector with mean 0 and variance 1."""
    return (v_E - v_E.mean()) * jax.lax.rsqrt(v_E.var() + 1e-6)


def encoded(
    encoder: Encoder, psi: Tree, see: Callable, data: Examples, weight_N: jax.Array
) -> jax.Array:
    """A client's vector [E]: the mean of its images', which count `weight_N`, standardized.

    see: (an image, uint8 [H, W, 3], its target) -> what the encoder sees of it, [H, W, I].
    """

    def one(example):
        v_1xE: Any = encoder.apply({'params': psi}, see(*example)[None])
        return v_1xE[0]

    v_NxE = jax.lax.map(one, (jnp.asarray(data.image), data.target), batch_size=CHUNK)
    return standard((weight_N[:, None] * v_NxE).sum(0) / jnp.maximum(weight_N.sum(), 1))


def image_alone(image: jax.Array, target: Tree) -> jax.Array:
    """`see` without a label."""
    return images_of(image)
