"""FedGen: a hypernetwork generates each client's model from the client's feature distribution.

State: base `theta`, generator `phi`, descriptor network `psi`.  An episode draws a virtual center
`tau`, shows it to a support set and to a query batch, and lowers

    L(query; theta (+) G_phi(m)),   m = mean over the support of g_psi(tau(x)),

so the generator learns the map from distribution to weights, not a table of clients.

Two local updates share one wire format, a change shaped like (theta, phi, psi) that is summed:

    'meta'     each of the T steps is an episode, and moves (theta, phi, psi);
    'weights'  one virtual center a round: T steps move the refined weights W alone, and the
               client pulls its change back, (W_T - W_0)^T dW_0 / d(theta, phi, psi), as pFedHN
               does at the server (Shamsian et al. 2021, eq. 3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.algorithms.base import Algorithm, State, server_step
from fedgen_jax.algorithms.local import (
    Local,
    batch_at,
    batch_loss,
    class_mix,
    client_weight,
    draw,
    finish,
    images_of,
    init_model,
    learn,
    query_batch,
    weigh,
)
from fedgen_jax.hypernet.descriptor import Descriptor
from fedgen_jax.hypernet.generator import Generator, Normal, refine, shapes_of
from fedgen_jax.random import stream


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
                 met: neighbouring descriptors then get neighbouring models.
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


def fedgen(
    local: Local,
    hypernet: Hypernet,
    server: optax.GradientTransformation,
    local_update: str = 'meta',
    release=None,
) -> Algorithm:
    """See the module's text.

    `server` moves {'theta', 'phi', 'psi'} together (`optax.multi_transform` gives each its rate).
    `release`: (m_E, key) -> m_E, replaces each support's descriptor by a released one, through
    which no gradient flows: what example-level privacy needs.
    """
    if local_update not in ('meta', 'weights'):
        raise ValueError(f'local={local_update!r}: one of meta, weights')
    describe_net = Descriptor()
    shape = (1, local.image_size, local.image_size, 3)
    template = jax.eval_shape(lambda k: init_model(local, k), jax.random.key(0))
    generator = Generator(shapes_of(template), hypernet.modes, **dict(hypernet.options))
    learned = hypernet.descriptor == 'learned'

    def fixed_descriptor(client_id):
        """The controls' descriptors; client_id -1: an unseen client."""
        if hypernet.descriptor == 'constant':
            return jnp.ones(8) / 8**0.5
        if hypernet.descriptor == 'onehot':
            one = jax.nn.one_hot(client_id, hypernet.num_clients)
            return jnp.where(client_id >= 0, one, 1 / hypernet.num_clients)
        raise ValueError(f'descriptor={hypernet.descriptor!r}: one of learned, constant, onehot')

    def init(key):
        theta = init_model(local, key)
        weights = {'theta': theta, 'phi': {}, 'psi': {}}
        if hypernet.modes:
            m_E = fixed_descriptor(jnp.int32(-1)) if not learned else None
            if learned:
                weights['psi'] = describe_net.init(stream(key, 'psi'), jnp.zeros(shape))['params']
                m_E = describe_net.apply({'params': weights['psi']}, jnp.zeros(shape))[0]
            normal = Normal(jnp.zeros_like(m_E), jnp.ones_like(m_E))
            weights['phi'] = generator.init(stream(key, 'phi'), m_E, normal)['params']
            shared = {**weights, 'pooled': m_E, 'normal': normal, 'round': jnp.int32(0)}
        else:
            shared = {**weights, 'round': jnp.int32(0)}
        return State(shared, server.init(weights))

    def init_private(state, client_id):
        return {'id': client_id}

    def vectors(psi, x_BxHxWx3):
        return describe_net.apply({'params': psi}, x_BxHxWx3)

    def support_descriptor(weights, private, data, key, tau):
        """The descriptor of the episode's support."""
        if not learned:
            return fixed_descriptor(private['id'])
        prevalence = local.prevalence
        mix_key = stream(key, 'prevalence')
        if hypernet.support_prevalence != 'same':
            prevalence, mix_key = hypernet.support_prevalence, stream(key, 'support_prevalence')
        mix_K = class_mix(mix_key, prevalence, local.task.num_strata)
        index_S = draw(local.task, data, stream(key, 'support'), hypernet.support, mix_K)
        batch = batch_at(local, data, index_S, stream(key, 'support_images'), tau)
        low = min(4, hypernet.support)
        size = jax.random.randint(stream(key, 'support_size'), (), low, hypernet.support + 1)
        use_S = (jnp.arange(hypernet.support) < size).astype(jnp.float32)
        m_E = jnp.sum(use_S[:, None] * vectors(weights['psi'], batch.image), 0) / use_S.sum()
        if release is not None:
            m_E = jax.lax.stop_gradient(release(m_E, stream(key, 'release')))
        return m_E

    def generated(weights, normal, m_E, on=1.0):
        change = generator.apply({'params': weights['phi']}, m_E, normal)
        return refine(weights['theta'], jax.tree.map(lambda c: on * c, change))

    def episode_weights(weights, shared, private, data, key, tau):
        """The refined weights of an episode, and the descriptor of its support."""
        if not hypernet.modes:
            return weights['theta'], ()
        m_E = support_descriptor(weights, private, data, key, tau)
        a, b = jax.random.uniform(stream(key, 'pooled'), (2,))
        share = jnp.where(a < hypernet.pooled, jnp.where(b < 0.5, 1.0, 2 * b - 1), 0.0)
        mixed_E = share * shared['pooled'] + (1 - share) * m_E
        if hypernet.jitter:
            noise_E = jax.random.normal(stream(key, 'jitter'), m_E.shape)
            mixed_E += hypernet.jitter * jnp.sqrt(shared['normal'].var) * noise_E
        on = jax.random.uniform(stream(key, 'base')) >= hypernet.base
        return generated(weights, shared['normal'], mixed_E, on.astype(jnp.float32)), m_E

    def meta(shared, private, data, key):
        """T episodes, each a step on (theta, phi, psi)."""
        weights = {k: shared[k] for k in ('theta', 'phi', 'psi')}

        def step(carry, t):
            weights, opt = carry
            k = jax.random.fold_in(key, t)
            batch, tau = query_batch(local, data, k)

            def loss(w):
                params, m_E = episode_weights(w, shared, private, data, k, tau)
                return batch_loss(local, params, batch), m_E

            (loss, m_E), grads = jax.value_and_grad(loss, has_aux=True)(weights)
            updates, opt = local.optimizer.update(grads, opt, weights)
            updates = {k: jax.tree.map(lambda u, r=rate[k]: r * u, v) for k, v in updates.items()}
            return (optax.apply_updates(weights, updates), opt), (loss, m_E)

        factor = local.schedule(shared['round'])
        rate = {
            'theta': factor, 'phi': factor * hypernet.rates[0], 'psi': factor * hypernet.rates[1]
        }  # fmt: skip
        carry = (weights, local.optimizer.init(weights))
        (new, _), (loss_T, m_TxE) = jax.lax.scan(step, carry, jnp.arange(local.steps))
        return jax.tree.map(jnp.subtract, new, weights), m_TxE, loss_T.mean()

    def pull_back(shared, private, data, key):
        """T steps on the refined weights of one virtual center, then the generator's VJP."""
        weights = {k: shared[k] for k in ('theta', 'phi', 'psi')}
        tau = local.shift.sample(stream(key, 'shift'))
        params, pull, m_E = jax.vjp(
            lambda w: episode_weights(w, shared, private, data, key, tau), weights, has_aux=True
        )
        one_center = local
        if hypernet.modes:
            one_center = local._replace(shift=local.shift._replace(sample=lambda key: tau))
        new, loss = learn(one_center, params, data, key, local.schedule(shared['round']))
        (delta,) = pull(jax.tree.map(jnp.subtract, new, params))
        return delta, jax.tree.map(lambda x: x[None], m_E), loss

    def client_update(shared, private, data, key):
        update = meta if local_update == 'meta' else pull_back
        delta, m_TxE, loss = update(shared, private, data, stream(key, 'learn'))
        weight = client_weight(local, data)
        contribution = {'weight': weight, 'delta': weigh(weight, delta)}
        if hypernet.modes:
            m_E = sampled(shared, data, key) if learned else fixed_descriptor(private['id'])
            contribution['statistic'] = weigh(data.weight.sum(), {'total': m_E, 'count': 1.0})
            episodes = {'first': m_TxE.mean(0), 'second': (m_TxE**2).mean(0)}
            contribution['episodes'] = weigh(weight, episodes)
        return contribution, private, {'loss': loss}

    def sampled(shared, data, key):
        """The client's own descriptor during training, from a sample of its unshifted images."""
        index = draw(local.task, data, stream(key, 'statistic'), 2 * hypernet.support, None)
        return vectors(shared['psi'], images_of(data.image[index])).mean(0)

    def server_update(state, total):
        first = state.shared['round'] == 0
        state = server_step(server, state, total)
        if not hypernet.modes:
            return state
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

    def describe(shared, image_NxHxWx3):
        return vectors(shared['psi'], images_of(image_NxHxWx3))

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        if m_E is None and hypernet.modes:
            if learned:
                v_NxE = describe(shared, unlabelled.image) * unlabelled.weight[:, None]
                m_E = v_NxE.sum(0) / jnp.maximum(unlabelled.weight.sum(), 1)
            else:
                m_E = fixed_descriptor(jnp.int32(-1) if private is None else private['id'])
        params = shared['theta']
        if hypernet.modes:
            params = generated(shared, shared['normal'], m_E)
        return finish(local, params, unlabelled, labelled, key)

    can_describe = describe if hypernet.modes and learned else None
    return Algorithm(init, init_private, client_update, server_update, can_describe, personalize)
