"""FedGen: a hypernetwork generates each client's model from the client's feature distribution.

State: base `theta`, generator `phi`, descriptor network `psi`.  An episode draws a virtual center
`tau`, applies it to a support set and to a query batch of one client, and lowers

    L(query; theta (+) G_phi(m)),   m = mean over the support of g_psi(tau(x)),

so the generator learns the map from distribution to weights, not a table of clients.

Two local updates share one wire format, a change shaped like (theta, phi, psi) that is summed:

    'meta'     each of the T steps is an episode, and moves (theta, phi, psi);
    'weights'  one virtual center a round: T steps move the refined weights W alone, and the
               client pulls its change back, (W_T - W_0)^T dW_0 / d(theta, phi, psi), as pFedHN
               does at the server (Shamsian et al. 2021, eq. 3).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree, server_step
from fedgen_jax.algorithms.local import (
    Local,
    batch_at,
    batch_loss,
    class_mix,
    client_weight,
    draw_indices,
    finish,
    images_of,
    init_model,
    init_statistics,
    learn,
    weigh,
    weighed,
)
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.hypernet.descriptor import Descriptor
from fedgen_jax.hypernet.generator import MODES, Generator, Normal, refine, shapes_of
from fedgen_jax.models.roles import roles_of
from fedgen_jax.random import stream
from fedgen_jax.registry import choose, look_up

GROUPS = ('theta', 'phi', 'psi')
NETWORKS = {'moments': Descriptor}


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.local = 'meta'  # the local update: meta | weights
    c.descriptor = 'learned'  # learned | constant | onehot (the controls)
    c.network = 'moments'  # that makes the descriptor: moments | module:class
    c.modes = ('input', 'film', 'lowrank', 'head')  # and full; (): generator off
    c.code = 32  # length of the code between descriptor and weights
    c.rank = 8  # of lowrank
    c.bound = 1.0  # no generated number is larger
    c.fade = 4.0  # squared distance beyond which the change shrinks; 0: never
    c.support = 16  # S, the most images in a support set
    c.support_prevalence = 'same'  # classification: same | natural | balanced | mixed
    c.pooled = 0.2  # share of episodes mixed with the pooled descriptor
    c.base = 0.1  # share of episodes on the base alone
    c.jitter = 0.0  # noise on an episode's descriptor, in standard deviations
    c.client_rates = (1.0, 1.0)  # steps of phi and psi on the client, times theta's
    c.generator_lr = 1.0  # of phi at the server, as a multiple of server.lr
    c.descriptor_lr = 1.0  # of psi at the server, as a multiple of server.lr
    return c


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
    base:        share of episodes on the base alone, so that it stands where the change fades.
    jitter:      noise on an episode's descriptor, in standard deviations of those that training
                 met: neighboring descriptors then get neighboring models.
    rates:       the steps of phi and psi on the client, as multiples of theta's ('meta' only).
    """

    descriptor: str
    modes: tuple[str, ...]
    options: tuple
    num_clients: int
    support: int
    support_prevalence: str
    pooled: float
    base: float
    jitter: float = 0.0
    rates: tuple[float, float] = (1.0, 1.0)

    @property
    def learned(self) -> bool:
        """Whether descriptors are made from images."""
        return bool(self.modes) and self.descriptor == 'learned'


class Parts(NamedTuple):
    """What the functions below work with.

    release: (m_E, key) -> m_E, replaces each support's descriptor by a released one, through which
        no gradient flows: what example-level privacy needs; None: as it is.
    """

    local: Local
    hypernet: Hypernet
    network: nn.Module
    generator: Generator
    release: Callable[[jax.Array, jax.Array], jax.Array] | None


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.fedgen
    hypernet = Hypernet(
        descriptor=choose('fedgen.descriptor', h.descriptor, ('learned', 'constant', 'onehot')),
        modes=tuple(choose('fedgen.modes', mode, MODES) for mode in h.modes),
        options=tuple((k, h[k]) for k in ('code', 'rank', 'bound', 'fade')),
        num_clients=num_clients,
        support=h.support,
        support_prevalence=choose(
            'fedgen.support_prevalence', h.support_prevalence,
            ('same', 'natural', 'balanced', 'mixed'),
        ),
        pooled=h.pooled,
        base=h.base,
        jitter=h.jitter,
        rates=tuple(h.client_rates),
    )
    server = optimizer('server', c.server)
    groups = {
        'theta': server,
        'phi': optax.chain(server, optax.scale(h.generator_lr)),
        'psi': optax.chain(server, optax.scale(h.descriptor_lr)),
    }
    by_group = optax.partition(groups, lambda weights: {k: k for k in weights})
    network = look_up('fedgen.network', h.network, NETWORKS)()
    return fedgen(local, hypernet, by_group, h.local, network=network)


def fedgen(
    local: Local,
    hypernet: Hypernet,
    server: optax.GradientTransformation,
    local_update: str = 'meta',
    release: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    network: nn.Module | None = None,
) -> Algorithm:
    """See the module's text.  `server` moves {'theta', 'phi', 'psi'} together."""
    update = choose('fedgen.local', local_update, {'meta': meta, 'weights': pull_back})
    template = jax.eval_shape(lambda k: init_model(local, k), jax.random.key(0))
    role_of = roles_of(local.model)
    generator = Generator(shapes_of(template, role_of), hypernet.modes, **dict(hypernet.options))
    parts = Parts(local, hypernet, network or Descriptor(), generator, release)

    def server_update(state, total):
        first = state.shared['round'] == 0
        state = server_step(server, state, total)
        return averaged(state, total, first) if hypernet.modes else state

    return Algorithm(
        init=functools.partial(init, parts, server),
        init_private=lambda state, client_id: {'id': client_id},
        client_update=functools.partial(client_update, parts, update),
        server_update=server_update,
        describe=functools.partial(describe, parts) if hypernet.learned else None,
        personalize=functools.partial(personalize, parts),
        title=title_of(hypernet),
        keeps=bool(hypernet.modes) and hypernet.descriptor == 'onehot',
        server_model=True,
        sizes={'base': 'theta', 'generator': 'phi', 'descriptor': 'psi'},
    )


def title_of(hypernet: Hypernet) -> str:
    """Its name for people, which says which control it is."""
    if not hypernet.modes:
        return 'FedGen, no generator'
    controls = {'constant': ', constant descriptor', 'onehot': ', one-hot descriptor'}
    return 'FedGen' + controls.get(hypernet.descriptor, '')


def init(parts: Parts, server: optax.GradientTransformation, key: jax.Array) -> State:
    """The first state; without a generator, FedAvg's with two empty groups beside it."""
    local, hypernet = parts.local, parts.hypernet
    weights = {'theta': init_model(local, key), 'phi': {}, 'psi': {}}
    more = {'round': jnp.int32(0), **init_statistics(local, key)}
    if hypernet.modes:
        m_E = fixed_descriptor(hypernet, jnp.int32(-1)) if not hypernet.learned else None
        if m_E is None:
            blank = jnp.zeros((1, local.image_size, local.image_size, 3))
            weights['psi'] = parts.network.init(stream(key, 'psi'), blank)['params']
            m_E = parts.network.apply({'params': weights['psi']}, blank)[0]
        normal = Normal(jnp.zeros_like(m_E), jnp.ones_like(m_E))
        weights['phi'] = parts.generator.init(stream(key, 'phi'), m_E, normal)['params']
        more |= {'pooled': m_E, 'normal': normal}
    return State({**weights, **more}, server.init(weights))


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


def generated(parts: Parts, weights: Tree, normal: Normal, m_E: jax.Array, on=1.0) -> Tree:
    """theta (+) on * G_phi(m)."""
    change = parts.generator.apply({'params': weights['phi']}, m_E, normal)
    return refine(weights['theta'], jax.tree.map(lambda c: on * c, change))


def support_descriptor(parts: Parts, weights, private, data, key, tau) -> jax.Array:
    """The descriptor [E] of an episode's support."""
    local, hypernet = parts.local, parts.hypernet
    if not hypernet.learned:
        return fixed_descriptor(hypernet, private['id'])
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
    """The refined weights of an episode, and the descriptor of its support."""
    hypernet = parts.hypernet
    if not hypernet.modes:
        return weights['theta'], ()
    m_E = support_descriptor(parts, weights, private, data, key, tau)
    a, b = jax.random.uniform(stream(key, 'pooled'), (2,))
    share = jnp.where(a < hypernet.pooled, jnp.where(b < 0.5, 1.0, 2 * b - 1), 0.0)
    mixed_E = share * shared['pooled'] + (1 - share) * m_E
    if hypernet.jitter:
        noise_E = jax.random.normal(stream(key, 'jitter'), m_E.shape)
        mixed_E += hypernet.jitter * jnp.sqrt(shared['normal'].var) * noise_E
    on = jax.random.uniform(stream(key, 'base')) >= hypernet.base
    return generated(parts, weights, shared['normal'], mixed_E, on.astype(jnp.float32)), m_E


def meta(parts: Parts, shared, private, data, key):
    """T episodes, each a step on (theta, phi, psi): (change, mean loss, statistics, m_TxE)."""
    local, hypernet = parts.local, parts.hypernet

    def gradient(weights, batch, tau, key):
        def loss(w):
            params, m_E = episode_weights(parts, w, shared, private, data, key, tau)
            value, statistics = batch_loss(local, params, batch)
            return value, (statistics, m_E)

        return jax.value_and_grad(loss, has_aux=True)(weights)

    factor = local.schedule(shared['round'])
    factors = {k: factor * rate for k, rate in zip(GROUPS, (1.0, *hypernet.rates))}
    weights = {k: shared[k] for k in GROUPS}
    new, loss, (statistics_T, m_TxE) = learn(local, weights, data, key, factors, gradient)
    return jax.tree.map(jnp.subtract, new, weights), loss, statistics_T, m_TxE


def pull_back(parts: Parts, shared, private, data, key):
    """T steps on the refined weights of one virtual center, then the generator's VJP."""
    local = parts.local
    weights = {k: shared[k] for k in GROUPS}
    tau = local.shift.sample(stream(key, 'shift'))
    params, pull, m_E = jax.vjp(
        lambda w: episode_weights(parts, w, shared, private, data, key, tau), weights, has_aux=True
    )
    one_center = local
    if parts.hypernet.modes:
        one_center = local._replace(shift=local.shift._replace(sample=lambda key: tau))
    new, loss, statistics_T = learn(one_center, params, data, key, local.schedule(shared['round']))
    (delta,) = pull(jax.tree.map(jnp.subtract, new, params))
    return delta, loss, statistics_T, jax.tree.map(lambda x: x[None], m_E)


def client_update(parts: Parts, update: Callable, shared, private, data, key):
    """A round at one client: what it learned, and where its descriptor lies."""
    local, hypernet = parts.local, parts.hypernet
    delta, loss, statistics_T, m_TxE = update(parts, shared, private, data, stream(key, 'learn'))
    contribution = weighed(local, data, delta, statistics_T)
    if hypernet.modes:
        own = sampled(parts, shared, data, key) if hypernet.learned else (
            fixed_descriptor(hypernet, private['id'])
        )
        contribution['statistic'] = weigh(data.weight.sum(), {'total': own, 'count': 1.0})
        episodes = {'first': m_TxE.mean(0), 'second': (m_TxE**2).mean(0)}
        contribution['episodes'] = weigh(client_weight(local, data), episodes)
    return contribution, private, {'loss': loss}


def sampled(parts: Parts, shared, data, key) -> jax.Array:
    """The client's own descriptor [E] in training, from a sample of its unshifted images."""
    size = 2 * parts.hypernet.support
    index = draw_indices(parts.local.task, data, stream(key, 'statistic'), size, None)
    return vectors(parts, shared['psi'], images_of(data.image[index])).mean(0)


def averaged(state: State, total: Tree, first: jax.Array) -> State:
    """The state with the pooled descriptor and the normalizer of the round mixed in."""
    s = total['statistic']
    pooled = s['total'] / jnp.maximum(s['count'], 1)
    mean, second = (
        total['episodes'][k] / jnp.maximum(total['weight'], 1e-9) for k in ('first', 'second')
    )
    now = {'pooled': pooled, 'normal': Normal(mean, jnp.maximum(second - mean**2, 1e-6))}
    # The first round replaces the start values; later ones are averaged over about ten.
    rate = jnp.where(total['weight'] > 0, jnp.where(first, 1.0, 0.1), 0.0)
    old = {k: state.shared[k] for k in now}
    new = jax.tree.map(lambda a, b: (1 - rate) * a + rate * b, old, now)
    return state._replace(shared={**state.shared, **new})


def describe(parts: Parts, shared: Tree, image_NxHxWx3: jax.Array) -> jax.Array:
    """`Algorithm.describe`."""
    return vectors(parts, shared['psi'], images_of(image_NxHxWx3))


def personalize(parts: Parts, shared, private, unlabelled, labelled, key, m_E=None) -> Tree:
    """`Algorithm.personalize`."""
    hypernet = parts.hypernet
    if m_E is None and hypernet.modes:
        if hypernet.learned:
            v_NxE = describe(parts, shared, unlabelled.image) * unlabelled.weight[:, None]
            m_E = v_NxE.sum(0) / jnp.maximum(unlabelled.weight.sum(), 1)
        else:
            client_id = jnp.int32(-1) if private is None else private['id']
            m_E = fixed_descriptor(hypernet, client_id)
    params = shared['theta']
    if hypernet.modes:
        params = generated(parts, shared, shared['normal'], m_E)
    return finish(parts.local, params, unlabelled, labelled, key, shared.get('statistics'))
