"""Episodes: how a generator learns at a client.

An episode draws a virtual center `tau`, applies it to a support set and to a query batch of one
client, and lowers

    L(query; theta (+) G_phi(m)),   m = mean over the support of g_psi(tau(x)),

so the generator learns the map from distribution to weights, not a table of clients.

Two local updates share one wire format, a change shaped like the weights that learn, which is
summed:

    'meta'     each of the T steps is an episode, and moves the weights that learn;
    'weights'  one virtual center a round: T steps move the refined weights W alone, and the
               client pulls its change back, (W_T - W_0)^T dW_0 / d(weights that learn), as pFedHN
               does at the server (Shamsian et al. 2021, eq. 3).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.base import Tree
from fedgen_jax.algorithms.draws import class_mix, draw_indices, images_of
from fedgen_jax.algorithms.learning import Learned, Learning
from fedgen_jax.algorithms.local import (
    Local,
    batch_at,
    batch_loss,
    decayed,
    hold,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.hypernet.generator import Generator, Normal, mode_of, refine
from fedgen_jax.models.roles import frozen_of, roles_of
from fedgen_jax.random import stream
from fedgen_jax.shifts.base import chain


class Hypernet(NamedTuple):
    """How models are generated.

    descriptor:  what a client's model is generated from: 'learned'; or, as controls, 'constant'
                 (the same vector for all) or 'onehot' (the client's number; an unseen client gets
                 the uniform vector over the `num_clients`).
    modes:       what is generated (hypernet/generator.py); () turns the generator off.
    options:     the remaining fields of `Generator`, as (name, value) pairs.
    support:     S, the most images in a support set; its size is drawn from 4 .. S.
    support_prevalence: class mix of the support: 'same' as the query's, or as `Local.prevalence`.
    pooled:      share of episodes whose descriptor is mixed with the pooled one.
    base_share:  share of episodes on the base alone, so that it stands where the change fades.
    jitter:      noise on an episode's descriptor, in standard deviations of those that training
                 met: neighboring descriptors then get neighboring models.
    rates:       the steps of phi and psi on the client, as multiples of theta's ('meta' only).
    stranger:    how much of its own descriptor a center has that did not train with what it has
                 now.  The rest is the pooled one; of a centered generator that at which the change
                 is zero, so that at 0 the center has the base.
    stranger_change: the share of the generated change that it then takes; at 0 it has the base.
    """

    descriptor: str
    modes: tuple[str, ...]
    options: tuple
    num_clients: int
    support: int
    support_prevalence: str
    pooled: float
    base_share: float
    jitter: float = 0.0
    rates: tuple[float, float] = (1.0, 1.0)
    stranger: float = 1.0
    stranger_change: float = 1.0

    @property
    def learned(self) -> bool:
        """Whether descriptors are made from images."""
        return bool(self.modes) and self.descriptor == 'learned'


class Parts(NamedTuple):
    """What the functions below work with.

    groups: the entries of `shared` that episodes move: ('phi', 'psi') over a base that takes its
        own gradient, or ('theta', 'phi', 'psi') where the base takes the refined loss's.
    release: (m_E, key) -> m_E, replaces each support's descriptor by a released one, through which
        no gradient flows: what example-level privacy needs; None: as it is.
    """

    local: Local
    hypernet: Hypernet
    network: nn.Module
    generator: Generator
    groups: tuple[str, ...]
    release: Callable[[jax.Array, jax.Array], jax.Array] | None


def fixed_descriptor(hypernet: Hypernet, client_id: jax.Array) -> jax.Array:
    """The controls' descriptors [E]; client_id -1: an unseen client."""
    if hypernet.descriptor == 'constant':
        return jnp.ones(8) / 8**0.5
    one = jax.nn.one_hot(client_id, hypernet.num_clients)
    return jnp.where(client_id >= 0, one, 1 / hypernet.num_clients)


def vectors(parts: Parts, psi: Tree, x_BxHxWx3: jax.Array) -> jax.Array:
    """g_psi of each image: [B, E]."""
    v_BxE: Any = parts.network.apply({'params': psi}, x_BxHxWx3)
    return v_BxE


def generated(
    parts: Parts, weights: Tree, normal: Normal, m_E: jax.Array, on=1.0, offset_F=None
) -> Tree:
    """theta (+) on * G_phi(m); offset_F: of the code."""
    change = parts.generator.apply({'params': weights['phi']}, m_E, normal, offset_F)
    return refine(weights['theta'], jax.tree.map(lambda c: on * c, change))


def own_descriptor(
    parts: Parts, shared: Tree, private: Tree | None, unlabelled: Examples, m_E: jax.Array | None
) -> jax.Array | None:
    """The descriptor [E] that a finished model is generated from; None without a generator.

    m_E: replaces that of the images.  A stranger's (no `private`) is drawn to the mean one.
    """
    hypernet = parts.hypernet
    if m_E is None and hypernet.modes:
        if hypernet.learned:
            v_NxE = vectors(parts, shared['psi'], images_of(unlabelled.image))
            v_NxE *= unlabelled.weight[:, None]
            m_E = v_NxE.sum(0) / jnp.maximum(unlabelled.weight.sum(), 1)
        else:
            client_id = jnp.int32(-1) if private is None else private['id']
            m_E = fixed_descriptor(hypernet, client_id)
    if m_E is not None and private is None and hypernet.learned:
        center_E = shared['normal'].mean if parts.generator.centered else shared['pooled']
        m_E = hypernet.stranger * m_E + (1 - hypernet.stranger) * center_E
    return m_E


def support_descriptor(parts: Parts, weights, private, data, key, tau) -> jax.Array:
    """The descriptor [E] of an episode's support."""
    local, hypernet = parts.local, parts.hypernet
    if not hypernet.learned:
        return fixed_descriptor(hypernet, private['id'])
    if local.private:  # the released one: a support of this step would tell of its images
        return data.own.m
    prevalence, mix_key = local.prevalence, stream(key, 'prevalence')
    if hypernet.support_prevalence != 'same':
        prevalence, mix_key = hypernet.support_prevalence, stream(key, 'support_prevalence')
    mix_K = class_mix(mix_key, prevalence, local.task.num_strata)
    index_S = draw_indices(local.task, data, stream(key, 'support'), hypernet.support, mix_K)
    batch = batch_at(local, data, index_S, stream(key, 'support_images'), tau)
    low = min(4, hypernet.support)
    size = jax.random.randint(stream(key, 'support_size'), (), low, hypernet.support + 1)
    use_S = (jnp.arange(hypernet.support) < size).astype(jnp.float32)
    v_SxE = vectors(parts, weights['psi'], batch.image)
    m_E = jnp.sum(use_S[:, None] * v_SxE, 0) / use_S.sum()
    if parts.release is not None:
        m_E = jax.lax.stop_gradient(parts.release(m_E, stream(key, 'release')))
    return m_E


def episode_weights(parts: Parts, weights, shared, private, data, key, tau) -> tuple[Tree, Tree]:
    """The refined weights of an episode, and the descriptor of its support.

    weights: those that learn; the base is the server's where it is not among them.
    """
    hypernet = parts.hypernet
    weights = {'theta': shared['theta'], **weights}
    weights['theta'] = hold(weights['theta'], frozen_of(parts.local.model))
    if not hypernet.modes:
        return weights['theta'], ()
    m_E = support_descriptor(parts, weights, private, data, key, tau)
    a, b = jax.random.uniform(stream(key, 'pooled'), (2,))
    share = jnp.where(a < hypernet.pooled, jnp.where(b < 0.5, 1.0, 2 * b - 1), 0.0)
    mixed_E = share * shared['pooled'] + (1 - share) * m_E
    if hypernet.jitter:
        noise_E = jax.random.normal(stream(key, 'jitter'), m_E.shape)
        mixed_E += hypernet.jitter * jnp.sqrt(shared['normal'].var) * noise_E
    on = jax.random.uniform(stream(key, 'base')) >= hypernet.base_share
    return generated(parts, weights, shared['normal'], mixed_E, on.astype(jnp.float32)), m_E


# Of learned weights: (change, mean loss, statistics, m_TxE).
End = Callable[[Learned], tuple[Tree, jax.Array | None, Tree, Tree]]


def meta(parts: Parts, shared, private, data, key) -> tuple[Learning, End]:
    """T episodes, each a step.

    Private ones (`Local.private`) tell no loss, and no descriptors but the one that was released.
    """
    local, hypernet = parts.local, parts.hypernet
    frozen = frozen_of(local.model)

    def episode(w, batch, tau, key):
        params, m_E = episode_weights(parts, w, shared, private, data, key, tau)
        value, statistics = batch_loss(local, params, batch)
        return value, (statistics, m_E)

    def gradient(weights, batch, tau, key):
        value, grads = jax.value_and_grad(episode, has_aux=True)(weights, batch, tau, key)
        if 'theta' in grads:  # alone: a generator's kernels begin at zero, and would be held there
            grads['theta'] = decayed(local, grads['theta'], weights['theta'], frozen)
        return value, grads

    factor = local.schedule(shared['round'])
    rates = dict(zip(('theta', 'phi', 'psi'), (1.0, *hypernet.rates)))
    factors = {k: factor * rates[k] for k in parts.groups}
    weights = {k: shared[k] for k in parts.groups}
    if local.private:
        # Steps of their own, on images as they are: the released descriptor is of these.
        own = local.private._replace(name='generator')
        decay = local.decay if 'theta' in parts.groups else 0.0
        local = local._replace(private=own, shift=chain(), decay=decay)

    def stays(path):
        return path[0] == 'theta' and frozen(path[1:])

    def end(done):
        statistics_T, m_TxE = done.aux_T or ((), ())
        return jax.tree.map(jnp.subtract, done.params, weights), done.loss, statistics_T, m_TxE

    learning = Learning(
        local, weights, factors, gradient, stays, shared['theta'], lambda *step: episode(*step)[0]
    )
    return learning, end


def pull_back(parts: Parts, shared, private, data, key) -> tuple[Learning, End]:
    """T steps on the refined weights of one virtual center, then the generator's VJP."""
    local = parts.local
    weights = {k: shared[k] for k in parts.groups}
    tau = local.shift.sample(stream(key, 'shift'))
    params, pull, m_E = jax.vjp(
        lambda w: episode_weights(parts, w, shared, private, data, key, tau), weights, has_aux=True
    )
    one_center = local
    if parts.hypernet.modes:
        one_center = local._replace(shift=local.shift._replace(sample=lambda key: tau))
    factor = local.schedule(shared['round'])

    def end(done):
        (delta,) = pull(jax.tree.map(jnp.subtract, done.params, params))
        return delta, done.loss, done.aux_T, jax.tree.map(lambda x: x[None], m_E)

    return Learning(one_center, params, factor, stays=functools.partial(unmoved, parts)), end


def unmoved(parts: Parts, path: tuple[str, ...]) -> bool:
    """Whether neither training nor the generator moves the weight at `path`."""
    modes, role = parts.hypernet.modes, roles_of(parts.local.model)(path)
    return frozen_of(parts.local.model)(path) and mode_of(role, modes) is None


def sampled(parts: Parts, shared, data, key) -> jax.Array:
    """The client's own descriptor [E] in training, from a sample of its unshifted images."""
    size = 2 * parts.hypernet.support
    index = draw_indices(parts.local.task, data, stream(key, 'statistic'), size, None)
    return vectors(parts, shared['psi'], images_of(data.image[index])).mean(0)
