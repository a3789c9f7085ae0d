"""FedAvg whose clients keep some weights, or their batch statistics, for themselves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from fedgen_jax.algorithms.base import Algorithm, Tree
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update
from fedgen_jax.algorithms.local import (
    Local,
    if_real,
    init_model,
    init_statistics,
    mean_of_steps,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.models.roles import frozen_of, roles_of
from fedgen_jax.registry import choose

STRANGERS = ('mean', 'first')
Own = Callable[[tuple[str, ...]], bool]


def keeping(
    local: Local,
    server: optax.GradientTransformation,
    own: Own,
    stranger: str = 'mean',
    own_statistics: bool = False,
    before: Callable[[Learning, Examples, jax.Array], Learning] | None = None,
) -> Algorithm:
    """FedAvg of all weights but those at paths where `own` is true, which stay at each client.

    stranger: what a center that did not train has in their place: 'mean', of the clients' (they are
        sent for it, and no client that trains ever gets it), or 'first', as all began (they are
        never sent).
    own_statistics: batch statistics that training keeps (`Local.keeps_statistics`) stay at the
        client too.  A stranger then takes all of its own, from its unlabelled images (AdaBN).
    before: (Learning, data, key) -> the Learning of a client's round, from what it would be.
    """
    base = fedavg(local, server)
    private_statistics = own_statistics and local.keeps_statistics

    def init(key):
        state = base.init(key)
        gone = ('statistics',) if private_statistics else ()
        return state._replace(shared={k: v for k, v in state.shared.items() if k not in gone})

    def init_private(state, client_id):
        private = {'id': client_id, 'own': part_of(state.shared['theta'], own)}
        if private_statistics:
            private['statistics'] = init_statistics(local, jax.random.key(0))['statistics']
        return private

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)
        learning = learning._replace(params=joined(shared['theta'], private['own']))
        if before:
            learning = before(learning, data, key)

        def end(done):
            contribution, _, metrics = base_end(done)
            if stranger == 'first':
                delta = part_of(contribution['delta']['theta'], lambda path: not own(path))
                contribution['delta'] = {'theta': delta}
            new = {'own': part_of(done.params, own)}
            if private_statistics:
                del contribution['statistics']
                new['statistics'] = mean_of_steps(done.aux_T)
            return contribution, {**private, **if_real(data, new, private)}, metrics

        return learning, end

    def server_update(state, total):
        zeros = jax.tree.map(jnp.zeros_like, state.shared['theta'])
        delta = {'theta': joined(zeros, total['delta']['theta'])}
        return base.server_update(state, {**total, 'delta': delta})

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        if private is None:
            how = local._replace(statistics='own') if private_statistics else local
            theta, statistics = shared['theta'], shared.get('statistics')
            return finish(how, theta, unlabelled, labelled, key, statistics)
        statistics = private.get('statistics', shared.get('statistics'))
        theta = joined(shared['theta'], private['own'])
        return finish(local, theta, unlabelled, labelled, key, statistics)

    return base._replace(
        features=True,
        init=init, init_private=init_private, client_update=Update(begin),
        server_update=server_update, personalize=personalize, keeps=True, own='own',
        unseen='batch statistics' if private_statistics else '',
    )


def of_roles(local: Local, field: str, stranger: str, *roles: str) -> Own:
    """Whether a weight is of one of these roles (`models.roles`).

    Raises ValueError where none that learns is, or all that learn are, or `stranger` is unknown.
    """
    role_of, frozen = roles_of(local.model), frozen_of(local.model)
    choose(f'{field}.stranger', stranger, STRANGERS)
    shapes = jax.eval_shape(lambda key: init_model(local, key), jax.random.key(0))
    is_own = [role_of(path) in roles for path in flatten_dict(shapes) if not frozen(path)]
    which = ' or '.join(roles)
    if not any(is_own):
        raise ValueError(
            f'algorithm={field!r}: no weight of role {which} learns, so nothing would stay at a '
            "client: a model in which it does (such as model.trained='adapters'), or fedavg"
        )
    if all(is_own):
        raise ValueError(
            f'algorithm={field!r}: all weights that learn are of role {which}, so nothing would be '
            "shared: a model that learns more (such as model.trained='all'), or local_only"
        )
    return lambda path: role_of(path) in roles


def has_statistics(local: Local) -> bool:
    """Whether the model has batch statistics."""
    kept = local._replace(statistics='running')
    return bool(jax.tree.leaves(jax.eval_shape(lambda k: init_statistics(kept, k),
                                               jax.random.key(0))))


def part_of(theta: Tree, own: Own) -> Tree:
    """The weights at paths where `own` is true."""
    return unflatten_dict({path: x for path, x in flatten_dict(theta).items() if own(path)})


def joined(theta: Tree, part: Tree) -> Tree:
    """All weights, those of `part` in place of theirs."""
    return unflatten_dict({**flatten_dict(theta), **flatten_dict(part)})
