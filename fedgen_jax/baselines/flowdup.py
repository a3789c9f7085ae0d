"""FLowDUP: a hypernetwork at the clients moves their models within few directions.

References:
    Zakerinia, Scott, Lampert 2025, Federated learning with unlabeled clients: Personalization can
    happen in low dimensions (arXiv 2505.15579).

    theta_c = theta + P v_c,    v_c = h_phi(unlabelled images of c),    v of k numbers,

with P drawn once and fixed.  A step of a client lowers

    loss(batch; theta_c) + penalty / 2 * |v_c - mu|^2,

the second term, of which mu is learned too, on images without labels.  All of {theta, phi, mu} is
averaged as in FedAvg; P comes from a seed that everyone has, and is never sent.

Chosen here: theta learns with h, where the paper has an initial parameter, so that at k = 0 the
method is FedAvg; `flowdup.base` is 'fixed' for the paper's form.  P is a Kronecker product of two
Gaussian matrices, with columns of norm about 1, which is drawn and applied without ever being
written out (Lotfi et al. 2022, PAC-Bayes compression bounds so tight that they can explain
generalization, NeurIPS): k is then a square.  The paper's k is 10,000 by default, of larger
networks.  Its learned regularizer is taken to be the distance to a learned mean, as of a Gaussian
prior.  h is the encoder of `baselines.hypernetworks` with two layers behind it, of which the last
begins at zero: the first model is theta.  A step's images are as its batch is: of the same virtual
center, where training plays some.

An unseen center: its own unlabelled images, in one pass.  Its labels, where it has some, fine-tune
the weights that come of it.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree, server_step
from fedgen_jax.algorithms.draws import draw_indices
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import (
    Local,
    batch_at,
    batch_loss,
    contribution_of,
    decayed,
    hold,
    init_model,
    init_statistics,
)
from fedgen_jax.baselines.hypernetworks import Encoder, by_entry, encoded, image_alone, standard
from fedgen_jax.hypernet.generator import refine
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream
from fedgen_jax.registry import check_counts, choose

GROUPS = ('theta', 'phi', 'mu')
SIZE = 32  # of an encoded image


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.code = 256  # k, a square: directions in which models differ; 0: FedAvg
    c.images = 32  # unlabelled ones that a step's code is of
    c.hidden = 64  # units between the encoder and the code
    c.penalty = 1e-3  # weight of a code's squared distance to the learned mean
    c.base = 'learned'  # learned | fixed, as it was drawn or given
    c.rate = 1.0  # of the hypernetwork at the server, as a multiple of server.lr
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    own = c.flowdup
    check_counts('flowdup', own, 'hidden', 'images')
    if own.code < 0 or math.isqrt(own.code) ** 2 != own.code:
        raise ValueError(f'flowdup.code={own.code}: a square number, as 256 or 1024')
    if own.penalty < 0:
        raise ValueError(f'flowdup.penalty={own.penalty}: at least 0')
    fixed = choose('flowdup.base', own.base, ('learned', 'fixed')) == 'fixed'
    if local.private:
        raise ValueError(
            "privacy.unit: FLowDUP's hypernetwork has no private steps: take another algorithm"
        )
    rates = {'theta': 0.0 if fixed else 1.0, 'phi': own.rate, 'mu': own.rate}
    return flowdup(local, by_entry(c.server, rates), own, fixed)


class Code(nn.Module):
    """The layers of h behind the encoder: a vector [E] -> v [k], which begins at 0."""

    size: int
    hidden: int

    @nn.compact
    def __call__(self, m_E: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(self.hidden, name='hidden')(m_E)) * self.hidden**-0.5
        zeros = nn.initializers.zeros
        return nn.Dense(self.size, use_bias=False, kernel_init=zeros, name='out')(x)


def expanded(theta: Tree, v_K: jax.Array, stays) -> Tree:
    """theta + P v, of all weights but those whose path `stays`.

    P = A (x) B, with [S, sqrt(k)] Gaussian matrices of variance 1 / S, and S^2 weights or more.
    """
    moves = {path: x for path, x in flatten_dict(theta).items() if not stays(path)}
    total = sum(x.size for x in moves.values())
    if len(v_K) > total:
        raise ValueError(f'flowdup.code={len(v_K)}: at most {total}, the weights that are trained')
    side, rank = math.isqrt(max(total - 1, 0)) + 1, math.isqrt(len(v_K))
    a_SxR, b_SxR = jax.random.normal(jax.random.key(0), (2, side, rank)) / side**0.5
    flat = (a_SxR @ v_K.reshape(rank, rank) @ b_SxR.T).reshape(-1)
    change, at = {}, 0
    for path, x in moves.items():
        change[path] = flat[at : at + x.size].reshape(x.shape)
        at += x.size
    return refine(theta, change)


def flowdup(
    local: Local, server: optax.GradientTransformation, own: ConfigDict, fixed: bool
) -> Algorithm:
    """See the module's text.  own: the method's fields; fixed: whether theta stays."""
    encoder, behind, frozen = Encoder(SIZE), Code(own.code, own.hidden), frozen_of(local.model)

    def init(key):
        blank = jnp.zeros((1, local.image_size, local.image_size, 3))
        phi = {
            'encoder': encoder.init(stream(key, 'encoder'), blank)['params'],
            'code': behind.init(stream(key, 'code'), jnp.zeros(SIZE))['params'],
        }
        weights = {'theta': init_model(local, key), 'phi': phi, 'mu': jnp.zeros(own.code)}
        more = {'round': jnp.int32(0), **init_statistics(local, key)}
        return State({**weights, **more}, server.init(weights))

    def code_of(phi, m_E) -> Any:
        return behind.apply({'params': phi['code']}, m_E)

    def begin(shared, private, data, key):
        def objective(weights, batch, tau, key):
            index_S = draw_indices(local.task, data, stream(key, 'support'), own.images, None)
            seen = batch_at(local, data, index_S, stream(key, 'support_images'), tau).image
            v_SxE: Any = encoder.apply({'params': weights['phi']['encoder']}, seen)
            v_K = code_of(weights['phi'], standard(v_SxE.mean(0)))
            theta = hold(weights['theta'], frozen)
            loss, statistics = batch_loss(local, expanded(theta, v_K, frozen), batch)
            apart = jnp.sum((v_K - weights['mu']) ** 2)
            return loss + 0.5 * own.penalty * apart, (loss, statistics)

        def gradient(weights, batch, tau, key):
            told, grads = jax.value_and_grad(objective, has_aux=True)(weights, batch, tau, key)
            grads['theta'] = decayed(local, grads['theta'], weights['theta'], frozen)
            return told[1], grads

        def stays(path):
            return path[0] == 'theta' and (fixed or frozen(path[1:]))

        weights = {k: shared[k] for k in GROUPS}

        def end(done):
            contribution = contribution_of(local, data, done.params, weights, done.aux_T)
            return contribution, private, metrics_of(loss=done.loss)

        factors = dict.fromkeys(GROUPS, local.schedule(shared['round']))
        return Learning(local, weights, factors, gradient, stays, shared['theta']), end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        phi = shared['phi']
        m_E = encoded(encoder, phi['encoder'], image_alone, unlabelled, unlabelled.weight)
        params = expanded(shared['theta'], code_of(phi, m_E), frozen)
        return finish(local, params, unlabelled, labelled, key, shared.get('statistics'))

    return Algorithm(
        init, lambda state, client_id: {'id': client_id}, Update(begin),
        lambda state, total: server_step(server, state, total), None, personalize,
        title='FLowDUP', unseen='code of its images', keeps=False, server_model=True,
        sizes={'base': 'theta', 'hypernetwork': 'phi'},
    )
