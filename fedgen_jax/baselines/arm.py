"""ARM-CML: a model that sees, beside each image, what a network says of its center's images.

References:
    Zhang et al. 2021, Adaptive risk minimization: Learning to adapt to domain shift, NeurIPS
    (section 4.1, contextual meta-learning): with the images x_1 .. x_B of one domain,

        c = mean over i of f_phi(x_i),   and the prediction of x_i is g_theta(x_i, c),

    where c has the size of an image and is appended to its channels.  Both networks learn from the
    task's loss on batches of one domain each.

A batch of training is a client's, of one virtual center where there are any.  At any center, seen
or unseen: c of up to 256 of its unlabelled images, which it keeps: the paper takes c of each batch
that it scores; here an unseen center's is of one half of its images and the other half is scored.

What was chosen: our networks begin with a linear map of the channels of one pixel (`Input`), to
which c's channels come: x A + c M + b, with A the identity and M zero at the start, so that it
starts as FedAvg.  f_phi is the paper's, three 5x5 convolutions, with group in place of batch
normalization, and narrower by default.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import IMAGES
from fedgen_jax.algorithms.base import Algorithm, State, Tree
from fedgen_jax.algorithms.draws import draw_indices, images_of
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import Local, batch_loss, contribution_of, decayed, hold
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.models.layers import Input, conv, norm
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.channels = 3  # of the context
    c.width = 16  # channels inside its network, a multiple of 8; the paper's 64 cost 12 times more
    return c


class Context(nn.Module):
    """f_phi."""

    channels: int
    width: int

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, H, W, channels]."""
        x = x_BxHxWx3 - 0.5
        for i in range(2):
            x = conv(self.width, 5, name=f'conv_{i}')(x)
            x = nn.relu(norm('group', True, f'norm_{i}')(x))
        return conv(self.channels, 5, name='conv_end')(x)


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.arm
    if h.channels < 1 or h.width < 8 or h.width % 8:
        raise ValueError(f'arm.channels={h.channels}, arm.width={h.width}: at least 1, and a '
                         'multiple of 8')
    if local.of_center:
        raise ValueError("model.last='center': algorithm='arm': statistics of the center's images "
                         'would be without their context: pass --config.model.last=batch')
    for field, set_ in (('adapt.steps', c.adapt.steps), ('oracle.steps', c.oracle.steps),
                        ('fedgen.base', c.algorithm == 'fedgen')):
        if set_:
            raise ValueError(f"{field}: algorithm='arm': its models' context is lost in it: "
                             'another algorithm, or leave it out')
    return arm(local, c, Context(h.channels, h.width))


def arm(local: Local, c: ConfigDict, network: nn.Module) -> Algorithm:
    """network: f_phi, which takes images [B, H, W, 3] to [B, H, W, channels]."""
    server, place, stays = optimizer('server', c.server), place_of(local), frozen_of(local.model)
    base = fedavg(local, server)

    def init(key):
        state, size = base.init(key), local.image_size
        phi, found = _first(network, stream(key, 'context'), size)
        context = {'network': phi, 'matrix': jnp.zeros((found.shape[-1], 3))}
        groups = {'theta': state.shared['theta'], 'context': context}
        return State({**state.shared, **groups}, server.init(groups))

    def seeing(context, x_BxHxWx3, weight_B):
        """The local learning whose model has the context of these images, and it."""
        c_BxHxWxC = network.apply({'params': context['network']}, x_BxHxWx3)
        mean_HxWxC = jnp.einsum('b,bhwc->hwc', weight_B, c_BxHxWxC) / jnp.maximum(weight_B.sum(), 1)
        collection = {'map': mean_HxWxC @ context['matrix']}
        for name in reversed(place):
            collection = {name: collection}
        return local._replace(model=Seeing(local.model, collection)), collection

    def gradient(weights, batch, tau, key):
        def loss(w):
            own, _ = seeing(w['context'], batch.image, batch.weight)
            return batch_loss(own, hold(w['theta'], stays), batch)

        value, grads = jax.value_and_grad(loss, has_aux=True)(weights)
        return value, decayed(local, grads, weights, stays_of)

    def stays_of(path):
        return path[0] == 'theta' and stays(path[1:])

    def begin(shared, private, data, key):
        old = {k: shared[k] for k in ('theta', 'context')}

        def end(done):
            sent = contribution_of(local, data, done.params, old, done.aux_T)
            return sent, private, metrics_of(loss=done.loss)

        factor = local.schedule(shared['round'])
        return Learning(local, old, factor, gradient, stays_of, shared['theta']), end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        index_B = draw_indices(local.task, unlabelled, stream(key, 'context'), IMAGES, None)
        weight_B = (jnp.arange(IMAGES) < (unlabelled.weight > 0).sum()).astype(jnp.float32)
        x_BxHxWx3 = images_of(jnp.asarray(unlabelled.image)[index_B])
        own, collection = seeing(shared['context'], x_BxHxWx3, weight_B)
        statistics = shared.get('statistics')
        variables = finish(own, shared['theta'], unlabelled, labelled, key, statistics)
        return {**variables, 'context': collection}

    return base._replace(
        init=init, client_update=Update(begin), personalize=personalize, title='ARM-CML',
        unseen='context of its images',
        sizes={'base': 'theta', 'context': 'context'},
    )


@dataclasses.dataclass(frozen=True)
class Seeing:
    """A model that adds a center's context; in all else the model itself."""

    model: nn.Module
    context: Tree

    def apply(self, variables: Tree, *args, **kwargs) -> Any:
        """`nn.Module.apply`, with the collection `context`."""
        return self.model.apply({**variables, 'context': self.context}, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def place_of(local: Local) -> tuple[str, ...]:
    """The path of the model's `Input`.  Raises ValueError where it has none, or several."""
    places = set()

    def watch(next_function, args, kwargs, context):
        if isinstance(context.module, Input):
            places.add(context.module.path)
        return next_function(*args, **kwargs)

    x = jnp.zeros((1, local.image_size, local.image_size, 3))
    with nn.intercept_methods(watch):
        jax.eval_shape(local.model.init, jax.random.key(0), x)
    if len(places) != 1:
        raise ValueError("algorithm='arm': model.name: needs one layer `models.layers.Input`, "
                         f'which takes the context: has {len(places)}')
    (place,) = places
    return place


def _first(network, key, size):
    x = jnp.zeros((1, size, size, 3))
    found, variables = network.init_with_output(key, x)
    return variables.get('params', {}), found
