"""IFCA: several models, and each client trains the one that fits it best.

References:
    Ghosh et al. 2020, An efficient framework for clustered federated learning, NeurIPS
    (algorithm 1, model averaging).

The server has K models.  In a round a client takes the one of the least loss on at most 128 of its
images, trains it, and the server averages each cluster's by itself.  A seen center's finished model
is that of its last choice.

The models begin from different weights, the first from FedAvg's: with one cluster it is FedAvg.
Where `start.weights` gives all the same ones, the clients of the first round are dealt
out by their numbers, for losses could not tell the models apart.

An unseen center has no labels to take a loss on: it takes the model whose predictions of its images
have the least mean entropy, or with labels that of the least loss.  The paper has no unseen ones.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import IMAGES, entropy
from fedgen_jax.algorithms.base import Algorithm, State, Tree
from fedgen_jax.algorithms.draws import draw_indices, images_of
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Update
from fedgen_jax.algorithms.local import Local, if_real
from fedgen_jax.algorithms.losses import loss_on, sample_of
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.data.examples import Examples
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.clusters = 2  # K, models
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    clusters = c.ifca.clusters
    if clusters < 1:
        raise ValueError(f'ifca.clusters={clusters}: at least 1')
    if clusters > 1 and not local.task.probability:
        raise ValueError(
            f'ifca.clusters={clusters}: an unseen center chooses by the entropy of predictions, '
            f'and those of task={local.task.name!r} are no probabilities that sum to 1: pass '
            '--config.ifca.clusters=1, or another algorithm'
        )
    return ifca(local, optimizer('server', c.server), clusters)


def ifca(local: Local, server: optax.GradientTransformation, clusters: int) -> Algorithm:
    base = fedavg(local, server)

    def init(key):
        keys = [key, *(stream(key, f'cluster {k}') for k in range(1, clusters))]
        state_K = stacked([base.init(k) for k in keys])
        return State({**models_in(state_K.shared), 'round': jnp.int32(0)}, state_K.optimizer)

    def init_private(state, client_id):
        return {'id': client_id, 'cluster': jnp.int32(0)}

    def choice(shared, private, data, key):
        if clusters == 1:
            return jnp.int32(0)
        best = least_loss(local, shared, data, stream(key, 'cluster'))
        if local.start is None:
            return best
        return jnp.where(shared['round'] == 0, private['id'] % clusters, best)

    def begin(shared, private, data, key):
        k = choice(shared, private, data, key)
        learning, base_end = base.client_update.begin(model_of(shared, k), private, data, key)

        def end(done):
            contribution, _, metrics = base_end(done)
            sent = jax.tree.map(
                lambda x: jnp.zeros((clusters, *x.shape), x.dtype).at[k].set(x), contribution
            )
            return sent, {**private, **if_real(data, {'cluster': k}, private)}, metrics

        return learning, end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        k = jnp.int32(0)
        if private is not None:
            k = private['cluster']
        elif clusters > 1 and labelled is not None:
            k = least_loss(local, shared, labelled, key)
        elif clusters > 1:
            k = least_entropy(local, shared, unlabelled, key)
        own = model_of(shared, k)
        return finish(local, own['theta'], unlabelled, labelled, key, own.get('statistics'))

    return base._replace(
        init=init, init_private=init_private, client_update=Update(begin),
        server_update=lambda state, total: each_moved(base, state, total),
        personalize=personalize, title='IFCA', keeps=True, unseen='entropy of its images',
        sizes={'base': 'clusters'}, features=True,
    )


def models_in(shared: Tree) -> Tree:
    """FedAvg's `shared`, of one model or of several stacked, as the entry of `shared` here."""
    return {'clusters': {k: v for k, v in shared.items() if k != 'round'}}


def model_of(shared: Tree, k: jax.Array | int) -> Tree:
    """FedAvg's `shared` of the model k."""
    own = jax.tree.map(lambda x_K: x_K[k], shared['clusters'])
    return {**own, 'round': shared['round']}


def number_of(shared: Tree) -> int:
    """K, how many models there are."""
    return len(jax.tree.leaves(shared['clusters'])[0])


def stacked(trees: Sequence[Tree]) -> Tree:
    """One tree, whose leaves lead with K."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def each_moved(base: Algorithm, state: State, total: Tree) -> State:
    """Each model after the server's step along its own clients' sum."""
    def move(k):
        optimizer, own = jax.tree.map(lambda x_K: x_K[k], (state.optimizer, total))
        moved = base.server_update(State(model_of(state.shared, k), optimizer), own)
        return models_in(moved.shared), moved.optimizer

    # One by one: under vmap a sum is divided in another way, which rounds otherwise.
    models_K, optimizer_K = stacked([move(k) for k in range(number_of(state.shared))])
    shared = {**models_K, 'round': state.shared['round'] + 1}
    return state._replace(shared=shared, optimizer=optimizer_K)


def least_loss(local: Local, shared: Tree, data: Examples, key: jax.Array) -> jax.Array:
    """The model of the least loss on a sample of a client's images."""
    sample = sample_of(local, data, key)
    losses = [
        loss_on(local, model_of(shared, k)['theta'], sample, data, key)
        for k in range(number_of(shared))
    ]
    return jnp.argmin(jnp.stack(losses)).astype(jnp.int32)


def least_entropy(local: Local, shared: Tree, unlabelled: Examples, key: jax.Array) -> jax.Array:
    """The model whose predictions of a sample of unlabelled images have the least mean entropy."""
    index_B = draw_indices(local.task, unlabelled, stream(key, 'cluster'), IMAGES, None)
    x_BxHxWx3 = images_of(jnp.asarray(unlabelled.image)[index_B])

    def mean_entropy(k):
        own = model_of(shared, k)
        variables = finish(local, own['theta'], unlabelled, None, key, own.get('statistics'))
        outputs = local.model.apply(variables, x_BxHxWx3, train=False)
        return entropy(local.task.probability(outputs)).mean()

    return jnp.argmin(jnp.stack([mean_entropy(k) for k in range(number_of(shared))]))
