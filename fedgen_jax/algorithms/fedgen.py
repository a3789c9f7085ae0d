"""FedGen: a hypernetwork generates each client's model from the client's feature distribution.

State: base `theta`, generator `phi`, descriptor network `psi`; a client's refined model is
theta (+) G_phi(m), with m its descriptor.  Episodes (`algorithms.episodes`) teach the generator.

    'residual'  theta takes the gradient of the base algorithm alone, any of `ALGORITHMS` that has a
                server's model, and is that algorithm's to the bit.  phi and psi take the refined
                loss's, with theta held still: the generator can only add.
    'joint'     theta takes the refined loss's gradient too, and there is no other base.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import check_code, code_adapted
from fedgen_jax.algorithms.base import Algorithm, State, Tree, next_round, server_step
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.episodes import (
    Hypernet,
    Parts,
    fixed_descriptor,
    generated,
    meta,
    own_descriptor,
    pull_back,
    sampled,
    vectors,
)
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.learning import Update, metrics_of, side_by_side
from fedgen_jax.algorithms.local import Local, client_weight, init_model, weigh, weighed
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.hypernet.descriptor import Descriptor
from fedgen_jax.hypernet.generator import MODES, Generator, Normal, above_frozen, shapes_of
from fedgen_jax.models.roles import roles_of
from fedgen_jax.random import stream
from fedgen_jax.registry import check_counts, choose, look_up

GENERATOR = ('phi', 'psi', 'pooled', 'normal')  # its entries of `shared`
NETWORKS = {'moments': Descriptor}


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.theta = 'residual'  # whose gradient moves the base: its own (residual) | the refined (joint)
    c.base = 'fedavg'  # residual: the base's algorithm, as `algorithm`
    c.phase = 'with'  # residual: the generator learns with the base | after it, on start.weights
    c.local = 'meta'  # the local update: meta | weights
    c.descriptor = 'learned'  # learned | constant | onehot (the controls)
    c.network = 'moments'  # that makes the descriptor: moments | module:class
    c.modes = ('input', 'film', 'lowrank', 'head')  # and features, full; (): generator off
    c.code = 32  # length of the code between descriptor and weights
    c.rank = 8  # of lowrank
    c.bound = 1.0  # no generated number is larger; of lowrank, those between U and V
    c.fade = 0.0  # squared distance beyond which the change shrinks; 0: never
    c.centered = False  # whether the change is zero at the mean descriptor of training
    c.support = 16  # S, the most images in a support set
    c.support_prevalence = 'same'  # classification: same | natural | balanced | mixed
    c.pooled = 0.2  # share of episodes mixed with the pooled descriptor
    c.base_share = 0.0  # share of episodes on the base alone
    c.jitter = 0.0  # noise on an episode's descriptor, in standard deviations
    c.stranger = 1.0  # share of its own descriptor at a center that did not train; else a mean one
    c.stranger_change = 1.0  # share of the generated change there; 0: it gets the base
    c.client_rates = (1.0, 1.0)  # steps of phi and psi on the client, times theta's
    c.generator_lr = 1.0  # of phi at the server, as a multiple of server.lr
    c.descriptor_lr = 1.0  # of psi at the server, as a multiple of server.lr
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.fedgen
    check_counts('fedgen', h, 'code', 'rank', 'support')
    hypernet = Hypernet(
        descriptor=choose('fedgen.descriptor', h.descriptor, ('learned', 'constant', 'onehot')),
        modes=tuple(choose('fedgen.modes', mode, MODES) for mode in h.modes),
        options=tuple((k, h[k]) for k in ('code', 'rank', 'bound', 'fade', 'centered')),
        num_clients=num_clients,
        support=h.support,
        support_prevalence=choose(
            'fedgen.support_prevalence', h.support_prevalence,
            ('same', 'natural', 'balanced', 'mixed'),
        ),
        pooled=h.pooled,
        base_share=h.base_share,
        jitter=h.jitter,
        rates=tuple(h.client_rates),
        stranger=h.stranger,
        stranger_change=h.stranger_change,
    )
    server = optimizer('server', c.server)
    groups = {
        'theta': server,
        'phi': optax.chain(server, optax.scale(h.generator_lr)),
        'psi': optax.chain(server, optax.scale(h.descriptor_lr)),
    }
    by_group = optax.partition(groups, lambda weights: {k: k for k in weights})
    network = look_up('fedgen.network', h.network, NETWORKS)()
    if c.adapt.steps and c.adapt.what == 'code' and hypernet.learned and hypernet.modes:
        check_code(hypernet)
    choose('fedgen.theta', h.theta, ('residual', 'joint'))
    if choose('fedgen.phase', h.phase, ('with', 'after')) == 'after' and not c.start.weights:
        raise ValueError(
            "fedgen.phase='after': needs a finished base: --config.start.weights=RUN, its folder"
        )
    base = None
    if h.theta == 'residual':
        base = base_of(c, local, num_clients)
    elif h.base != 'fedavg' or h.phase != 'with':
        raise ValueError("fedgen.theta='joint': has no base of its own: fedgen.base and "
                         "fedgen.phase belong to 'residual'")
    return fedgen(
        local, hypernet, by_group, h.local, network=network, base=base, after=h.phase == 'after'
    )


def base_of(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    """The algorithm of `fedgen.base`, whose server's model is refined."""
    from fedgen_jax.algorithms import ALGORITHMS  # which has this module

    name = c.fedgen.base
    if name == 'fedgen':
        raise ValueError("fedgen.base='fedgen': another algorithm than itself")
    base = look_up('fedgen.base', name, ALGORITHMS).build(c, local, num_clients)
    needed = {'theta', 'statistics'} if local.keeps_statistics else {'theta'}
    shared = jax.eval_shape(base.init, jax.random.key(0)).shared
    if not (base.server_model and base.sum_only and needed <= set(shared)):
        raise ValueError(f'fedgen.base={name!r}: has no model at the server to refine, not one '
                         'whole one, or no sum')
    if base.apply or set(GENERATOR) & set(shared):
        raise ValueError(f'fedgen.base={name!r}: answers by more than one model to refine')
    return base


def fedgen(
    local: Local,
    hypernet: Hypernet,
    server: optax.GradientTransformation,
    local_update: str = 'meta',
    release: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    network: nn.Module | None = None,
    base: Algorithm | None = None,
    after: bool = False,
) -> Algorithm:
    """See the module's text.

    server: moves {'phi', 'psi'}, and without a base 'theta' with them.
    base:   of the residual form, with `theta` in its `shared`; None: the joint form.
    after:  the base is finished, and stays as it began (`Local.start`).
    """
    update = choose('fedgen.local', local_update, {'meta': meta, 'weights': pull_back})
    if base and not hypernet.modes and not after:
        return base._replace(title=title_of(hypernet, base))
    template = jax.eval_shape(lambda k: init_model(local, k), jax.random.key(0))
    role_of = roles_of(local.model)
    generator = Generator(shapes_of(template, role_of), hypernet.modes, **dict(hypernet.options))
    groups = ('phi', 'psi') if base else ('theta', 'phi', 'psi')
    parts = Parts(local, hypernet, network or Descriptor(), generator, groups, release)
    learn_at = Update(functools.partial(begin, parts, update))
    move = functools.partial(server_update, parts, server)
    first = functools.partial(init, parts, server)
    under: Algorithm = base or fedavg(local, server)
    end = functools.partial(ended, under)
    algorithm = Algorithm(
        init=functools.partial(first, under),
        init_private=lambda state, client_id: {'id': client_id},
        client_update=learn_at,
        server_update=move,
        describe=functools.partial(describe, parts) if hypernet.learned else None,
        personalize=functools.partial(personalize, parts, end),
        title=title_of(hypernet, base),
        keeps=bool(hypernet.modes) and hypernet.descriptor == 'onehot',
        server_model=True,
        sizes={**under.sizes, 'generator': 'phi', 'descriptor': 'psi'},
        adapt=functools.partial(code_adapted, parts, end) if hypernet.learned else None,
        unseen='descriptor' if hypernet.learned else '',
        features=local_update == 'meta' and above_frozen(hypernet.modes),
    )
    return over(base, algorithm, after) if base else algorithm


def over(base: Algorithm, generator: Algorithm, after: bool) -> Algorithm:
    """Base and generator in the same rounds: neither's sums nor steps depend on the other's."""

    def init(key):
        state = generator.init(key)
        return state._replace(
            optimizer={'base': base.init(key).optimizer, 'generator': state.optimizer}
        )

    def client_update(shared, private, data, key):
        updates = base.client_update, generator.client_update
        (sent, private, metrics), (own, _, told) = side_by_side(updates, shared, private, data, key)
        told = {**metrics, **metrics_of(refined_loss=told.get('loss'))}
        return {'base': sent, 'generator': own}, private, told

    def client_update_after(shared, private, data, key):
        own, _, told = generator.client_update(shared, private, data, key)
        return {'generator': own}, private, told

    def server_update(state, total):
        moved = generator.server_update(
            state._replace(optimizer=state.optimizer['generator']), total['generator']
        )
        below = state._replace(optimizer=state.optimizer['base'])
        below = next_round(below) if after else base.server_update(below, total['base'])
        own = {k: moved.shared[k] for k in GENERATOR if k in moved.shared}
        return below._replace(
            shared={**below.shared, **own},
            optimizer={'base': below.optimizer, 'generator': moved.optimizer},
        )

    return generator._replace(
        features=generator.features and base.features,
        init=init,
        init_private=base.init_private,
        client_update=client_update_after if after else client_update,
        server_update=server_update,
        keeps=generator.keeps or base.keeps,
        base=base,
    )


def title_of(hypernet: Hypernet, base: Algorithm | None = None) -> str:
    """Its name for people, which says which control it is, and on which base."""
    name = 'FedGen' if base else 'FedGen, joint'
    if base and base.title != 'FedAvg':
        name += f' on {base.title}'
    if not hypernet.modes:
        return name + ', no generator'
    controls = {'constant': ', constant descriptor', 'onehot': ', one-hot descriptor'}
    return name + controls.get(hypernet.descriptor, '')


def init(
    parts: Parts, server: optax.GradientTransformation, base: Algorithm, key: jax.Array
) -> State:
    """The first state; without a generator, the base's with two empty groups beside it."""
    local, hypernet = parts.local, parts.hypernet
    first = base.init(key).shared
    weights = {'theta': first['theta'], 'phi': {}, 'psi': {}}
    more = {k: v for k, v in first.items() if k != 'theta'}
    if hypernet.modes:
        m_E = fixed_descriptor(hypernet, jnp.int32(-1)) if not hypernet.learned else None
        if m_E is None:
            blank = jnp.zeros((1, local.image_size, local.image_size, 3))
            weights['psi'] = parts.network.init(stream(key, 'psi'), blank)['params']
            m_E = parts.network.apply({'params': weights['psi']}, blank)[0]
        normal = Normal(jnp.zeros_like(m_E), jnp.ones_like(m_E))
        weights['phi'] = parts.generator.init(stream(key, 'phi'), m_E, normal)['params']
        more |= {'pooled': m_E, 'normal': normal}
    return State({**weights, **more}, server.init({k: weights[k] for k in parts.groups}))


def begin(parts: Parts, update: Callable, shared, private, data, key):
    """A round at one client (`Update.begin`): what it learned, and where its descriptor lies."""
    local, hypernet = parts.local, parts.hypernet
    learning, change_of = update(parts, shared, private, data, stream(key, 'learn'))

    def end(done):
        delta, loss, statistics_T, m_TxE = change_of(done)
        contribution = weighed(local, data, delta, statistics_T)
        # Private steps use the one descriptor that was released, and nothing more of it is sent.
        if hypernet.modes and not local.private:
            own = sampled(parts, shared, data, key) if hypernet.learned else (
                fixed_descriptor(hypernet, private['id'])
            )
            contribution['statistic'] = weigh(data.weight.sum(), {'total': own, 'count': 1.0})
            episodes = {'first': m_TxE.mean(0), 'second': (m_TxE**2).mean(0)}
            contribution['episodes'] = weigh(client_weight(local, data), episodes)
        return contribution, private, metrics_of(loss=loss)

    return learning, end


def server_update(parts: Parts, server: optax.GradientTransformation, state: State, total: Tree):
    """A step on what learned, and the round's descriptors mixed in."""
    first = state.shared['round'] == 0
    state = server_step(server, state, total)
    return averaged(state, total, first) if 'statistic' in total else state


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


def personalize(
    parts: Parts, end: Callable[..., Tree], shared, private, unlabelled, labelled, key, m_E=None
) -> Tree:
    """`Algorithm.personalize`.  end: `ended`, of the base."""
    m_E = own_descriptor(parts, shared, private, unlabelled, m_E)
    params = shared['theta']
    if parts.hypernet.modes:
        on = parts.hypernet.stranger_change if private is None else 1.0
        params = generated(parts, shared, shared['normal'], m_E, on)
    return end(shared, private, params, unlabelled, labelled, key)


def ended(base: Algorithm, shared, private, params, unlabelled, labelled, key) -> Tree:
    """What the base makes of refined weights, in place of its own, for a center.

    A client's private state that lacks what the base keeps is nobody's (`Algorithm.personalize`).
    Weights that the base keeps at a client (`Algorithm.own`) are changed as the server's are.
    """
    kept = jax.eval_shape(lambda: base.init_private(State(shared, ()), jnp.int32(0)))
    own = None if private is None or set(kept) - set(private) else private
    if own is not None and base.own:
        change = flatten_dict(jax.tree.map(jnp.subtract, params, shared['theta']))
        weights = {k: x + change[k] for k, x in flatten_dict(own[base.own]).items()}
        own = {**own, base.own: unflatten_dict(weights)}
    return base.personalize({**shared, 'theta': params}, own, unlabelled, labelled, key)
