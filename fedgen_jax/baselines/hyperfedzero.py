"""HyperFedZero: every image has a head of its own, generated from an embedding of the image.

References:
    Zhou et al. 2026, Deploying models to non-participating clients in federated learning without
    fine-tuning: A hypernetwork-based approach, ICLR (arXiv 2508.12673).

    e = softmax(f(x) + z * softplus(noisy(x))),  z ~ N(0, 1) in training, 0 afterwards
    head of x = first head + (h(e, c_1), ..., h(e, c_J)), in chunks, c_j learned
    loss + alpha * var(sum_x e) / mean(sum_x e) + beta * mean_x sum -e log e

of a batch; the variance and mean are over the numbers of e.  The backbone, f, `noisy`, h and the
c_j are averaged as in FedAvg.

Chosen here: what is generated is the head (the weights of that role), in chunks of `chunk` numbers;
the convolutions below are shared, for kernels of their own for each image cost a batch of networks.
The head's first weights stay beneath what is generated, so that training begins as without it.  f
is the encoder of `baselines.hypernetworks`, whose outputs are normalized, for images differ little
in them at first, and a layer; `noisy` is a layer beside this one.  The sizes and both coefficients
are not the paper's, of which we had the equations alone.  In the penalty the image's weight counts,
so that padding does not.

An unseen center: each of its images, by itself; and its batch statistics, where there are any.
Labels, where it has some, fine-tune all that training moves.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree, server_step
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, learn, metrics_of
from fedgen_jax.algorithms.local import (
    Local,
    apply_model,
    contribution_of,
    decayed,
    hold,
    init_model,
    init_statistics,
    mean_of_steps,
)
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.hypernetworks import Encoder
from fedgen_jax.models.representation import with_representation
from fedgen_jax.models.roles import frozen_of, roles_of
from fedgen_jax.random import stream
from fedgen_jax.registry import check_counts
from fedgen_jax.shifts.base import chain

GROUPS = ('theta', 'phi')


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.code = 16  # numbers of an image's embedding
    c.chunk = 64  # numbers of the head that are generated at once
    c.hidden = 64  # units of the hypernetwork
    c.alpha = 0.01  # of the penalty on embeddings that are not spread over all numbers
    c.beta = 0.01  # of the penalty on the entropy of each embedding
    c.constant = False  # control: embeddings of no image, so that all have one head
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    check_counts('hyperfedzero', c.hyperfedzero, 'code', 'chunk', 'hidden')
    if local.private:
        raise ValueError(
            "privacy.unit: HyperFedZero's hypernetwork has no private steps: take another algorithm"
        )
    if local.mix != 'natural':
        raise ValueError(
            "statistics_mix=balanced: is by a model's own head, and HyperFedZero has one an image: "
            'pass --config.statistics_mix=natural'
        )
    return hyperfedzero(local, optimizer('server', c.server), c.hyperfedzero)


class Heads(nn.Module):
    """Images -> (a change of the head [B, I + 1, K], its bias last; embeddings [B, E])."""

    shape: tuple[int, int]
    code: int
    chunk: int
    hidden: int
    constant: bool = False

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, key: jax.Array | None = None):
        """key: of the noise; None: there is none."""
        seen = nn.LayerNorm(name='scale')(Encoder(self.hidden, name='extractor')(x_BxHxWx3))
        if self.constant:
            seen = jnp.ones_like(seen)
        f_BxE = nn.Dense(self.code, name='embedding')(seen)
        noise_BxE = nn.softplus(nn.Dense(self.code, name='noisy')(seen))
        if key is not None:
            f_BxE = f_BxE + jax.random.normal(key, f_BxE.shape) * noise_BxE
        e_BxE = nn.softmax(f_BxE)
        size = int(np.prod(self.shape))
        count = -(-size // self.chunk)
        c_JxE = self.param('chunks', nn.initializers.normal(1.0), (count, self.code))
        hidden_JxH = nn.Dense(self.hidden, name='of_chunk')(c_JxE)
        hidden_BxH = nn.Dense(self.hidden, use_bias=False, name='of_image')(self.code * e_BxE)
        x_BxJxH = nn.relu(hidden_JxH[None] + hidden_BxH[:, None]) * self.hidden**-0.5
        small = nn.initializers.normal(0.1 * self.shape[0] ** -0.5)
        made = nn.Dense(self.chunk, use_bias=False, kernel_init=small, name='out')(x_BxJxH)
        return made.reshape(len(made), -1)[:, :size].reshape(-1, *self.shape), e_BxE


def head_shape(params: Tree, role_of) -> tuple[int, int]:
    """(I + 1, K) of a head that is one dense layer, or a convolution of one pixel."""
    found = {p[-1]: x.shape for p, x in flatten_dict(params).items() if role_of(p) == 'head'}
    kernel = found.get('kernel', ())
    if set(found) != {'kernel', 'bias'} or len(kernel) < 2 or any(n != 1 for n in kernel[:-2]):
        raise ValueError(
            'model.name: HyperFedZero generates a head of one kernel, of one pixel, and one bias: '
            'let `roles` of the model say which layer it is'
        )
    return kernel[-2] + 1, kernel[-1]


def balance(e_BxE: jax.Array, weight_B: jax.Array, alpha: float, beta: float) -> jax.Array:
    """The penalty on a batch's embeddings."""
    total_E = (weight_B[:, None] * e_BxE).sum(0)
    spread = total_E.var() / jnp.maximum(total_E.mean(), 1e-9)
    entropy_B = -(e_BxE * jnp.log(jnp.maximum(e_BxE, 1e-12))).sum(-1)
    mean = (weight_B * entropy_B).sum() / jnp.maximum(weight_B.sum(), 1e-9)
    return alpha * spread + beta * mean


def hyperfedzero(
    local: Local, server: optax.GradientTransformation, own: ConfigDict
) -> Algorithm:
    """See the module's text.  own: the method's fields."""
    role_of, frozen = roles_of(local.model), frozen_of(local.model)
    template = jax.eval_shape(lambda k: init_model(local, k), jax.random.key(0))
    heads = Heads(head_shape(template, role_of), own.code, own.chunk, own.hidden, own.constant)

    def stays(path):
        return path[0] == 'theta' and below(path[1:])

    def below(path):
        return frozen(path) or role_of(path) == 'head'

    def init(key):
        blank = jnp.zeros((1, local.image_size, local.image_size, 3))
        phi = heads.init(stream(key, 'phi'), blank)['params']
        weights = {'theta': init_model(local, key), 'phi': phi}
        more = {'round': jnp.int32(0), **init_statistics(local, key)}
        return State({**weights, **more}, server.init(weights))

    def outputs_of(outputs, z, change_BxIxK):
        """The first head's outputs, and what the image's own adds to them."""
        more = [1] * (z.ndim - 2)
        kernel = change_BxIxK[:, :-1].reshape(len(z), *more, *change_BxIxK[:, :-1].shape[1:])
        bias = change_BxIxK[:, -1].reshape(len(z), *more, -1)
        added = jnp.matmul(z.astype(jnp.float32)[..., None, :], kernel)[..., 0, :] + bias
        return outputs + added

    def objective(weights, batch, tau, key):
        theta = hold(weights['theta'], below)
        made: Any = heads.apply({'params': weights['phi']}, batch.image, stream(key, 'noise'))
        change_BxIxK, e_BxE = made
        (outputs, statistics), z = with_representation(
            local.model, theta, lambda: apply_model(local, theta, batch.image, batch.last)
        )
        outputs = outputs_of(outputs, z, change_BxIxK)
        loss = local.task.loss(outputs, batch.target, batch.weight)
        penalty = balance(e_BxE, batch.weight, own.alpha, own.beta)
        return loss + penalty, (loss, statistics if local.keeps_statistics else ())

    def gradient(weights, batch, tau, key):
        told, grads = jax.value_and_grad(objective, has_aux=True)(weights, batch, tau, key)
        grads['theta'] = decayed(local, grads['theta'], weights['theta'], below)
        return told[1], grads

    def learning(weights, of: Local, factor):
        factors = dict.fromkeys(GROUPS, factor)
        return Learning(of, weights, factors, gradient, stays, weights['theta'])

    def begin(shared, private, data, key):
        weights = {k: shared[k] for k in GROUPS}

        def end(done):
            contribution = contribution_of(local, data, done.params, weights, done.aux_T)
            return contribution, private, metrics_of(loss=done.loss)

        return learning(weights, local, local.schedule(shared['round'])), end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        weights, statistics = {k: shared[k] for k in GROUPS}, shared.get('statistics')
        if labelled is not None:
            steps = local.finetune
            alone = local._replace(shift=chain(), optimizer=steps.optimizer, steps=steps.count)
            done = learn(learning(weights, alone, 1.0), labelled, stream(key, 'finetune'))
            last_T = jax.tree.map(lambda x_T: x_T[-10:], done.aux_T)
            weights, statistics = done.params, mean_of_steps(last_T)
        finished = finish(local, weights['theta'], unlabelled, None, key, statistics)
        return {**finished, 'phi': weights['phi']}

    def apply(variables, x_BxHxWx3):
        model = {k: v for k, v in variables.items() if k != 'phi'}
        outputs, z = with_representation(
            local.model, model['params'], lambda: local.model.apply(model, x_BxHxWx3, train=False)
        )
        if 'phi' not in variables:  # a model that a center learned alone
            return outputs
        made: Any = heads.apply({'params': variables['phi']}, x_BxHxWx3)
        return outputs_of(outputs, z, made[0])

    return Algorithm(
        init, lambda state, client_id: {'id': client_id}, Update(begin),
        lambda state, total: server_step(server, state, total), None, personalize,
        title='HyperFedZero' + ', constant' * own.constant,
        unseen='' if own.constant else 'each image by itself', keeps=False, server_model=True,
        sizes={'base': 'theta', 'hypernetwork': 'phi'}, apply=apply,
    )
