"""ATP: FedAvg's model, and how far each of its tensors goes without labels, learned from labels.

References:
    Bao et al. 2023, Adaptive test-time personalization for federated learning, NeurIPS (algorithm
    1, ATP-batch; eq. 4 to 6).

One rate a_j for each tensor of the model, which all begin at 0.  On a batch, with h the gradient of
the mean entropy of predictions at the server's weights w,

    w'_j = w_j - a_j h_j,        a_j <- a_j + lr <g_j, h_j> / sqrt(numbers in w_j),

where g is the gradient of the task's loss at w': the step goes down along the derivative of that
loss by a_j.  The server averages the clients' rates, each counting the same.  With
`statistics=running` each mean and variance of batch normalization has a rate too, along
h = (kept - the batch's); else statistics are the center's own, as if theirs were 1.

Training of the weights is FedAvg's to the bit.  At any center, seen or unseen, one step of these
rates on at most 256 of its unlabelled images.

What was chosen: the authors learn rates when training is over, on validation images; here they
learn in each round after the client's steps, at the weights that the server sent, on batches drawn
as training draws them, each of one virtual center where there are any.  Their test batches are
scored themselves; here an unseen center's model is of one half of its images and scored on the
other.  Weights that training freezes have no rate.  Fine-tuned models are not adapted.
"""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import IMAGES, entropy
from fedgen_jax.algorithms.base import Algorithm, State, Tree
from fedgen_jax.algorithms.draws import draw_indices, inputs_of
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish, statistics_under
from fedgen_jax.algorithms.learning import Update
from fedgen_jax.algorithms.local import Batch, Local, apply_model, hold, query_batch, weigh
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.tent import check_steps
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.lr = 0.5  # of the rates
    c.steps = 2  # of the rates, a client and round
    c.batch = 32  # images of each
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.atp
    check_steps('atp', h, local)
    base, batches = fedavg(local, optimizer('server', c.server)), local._replace(batch=h.batch)

    def init(key):
        state = base.init(key)
        rates = jax.tree.map(lambda x: jnp.float32(0), moving(local, state.shared))
        return state._replace(shared={**state.shared, 'rates': rates})

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)

        def step(rates, t):
            batch, _ = query_batch(batches, data, jax.random.fold_in(stream(key, 'rates'), t))
            return jax.tree.map(lambda a, g: a + h.lr * g, rates, gain(local, shared, rates, batch)
                                ), None

        def end(done):
            sent, private, metrics = base_end(done)
            rates, _ = jax.lax.scan(step, shared['rates'], jnp.arange(h.steps))
            real = (data.weight.sum() > 0).astype(jnp.float32)
            change = jax.tree.map(jnp.subtract, rates, shared['rates'])
            return {**sent, 'rates': weigh(real, change), 'clients': real}, private, metrics

        return learning, end

    def server_update(state: State, total):
        rates = jax.tree.map(
            lambda a, change: a + change / jnp.maximum(total['clients'], 1),
            state.shared['rates'], total['rates'],
        )
        own = ('rates', 'clients')
        state = base.server_update(state, {k: v for k, v in total.items() if k not in own})
        return state._replace(shared={**state.shared, 'rates': rates})

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        if labelled is not None:
            return base.personalize(shared, private, unlabelled, labelled, key, m_E)
        index_B = draw_indices(local.task, unlabelled, stream(key, 'adapt'), IMAGES, None)
        x_Bx = inputs_of(unlabelled, index_B)
        new = moved(shared['rates'], shared, slope(local, shared, x_Bx))
        statistics = new.get('statistics', shared.get('statistics'))
        return finish(local, new['theta'], unlabelled, None, key, statistics)

    return base._replace(
        init=init, client_update=Update(begin), server_update=server_update,
        personalize=personalize, title='ATP', sizes={'base': 'theta', 'rates': 'rates'},
        unseen='entropy of its images', features=True,
    )


def moving(local: Local, shared: Tree) -> Tree:
    """What of `shared` has rates."""
    names = ('theta', 'statistics') if local.statistics == 'running' else ('theta',)
    return {k: shared[k] for k in names}


def predicted(local: Local, new: Tree, shared: Tree, x_Bx: jax.Array) -> jax.Array:
    """Outputs of the model that a center of these images would have, were its weights `new`."""
    statistics = new.get('statistics', shared.get('statistics'))
    found = statistics_under(local, new['theta'], x_Bx, statistics)
    variables = {'params': new['theta'], 'batch_stats': found}
    outputs: jax.Array = local.model.apply(variables, x_Bx, train=False)  # type: ignore
    return outputs


def slope(local: Local, shared: Tree, x_Bx: jax.Array) -> Tree:
    """h, of each tensor that has a rate: no label is in it."""
    probability = local.task.probability
    assert probability is not None

    def doubt(theta):
        new = {**moving(local, shared), 'theta': hold(theta, frozen_of(local.model))}
        return entropy(probability(predicted(local, new, shared, x_Bx))).mean()

    found = {'theta': jax.grad(doubt)(shared['theta'])}
    if local.statistics == 'running':
        _, own = apply_model(local, shared['theta'], x_Bx)
        found['statistics'] = jax.tree.map(jnp.subtract, shared['statistics'], own)
    return found


def moved(rates: Tree, shared: Tree, slope: Tree) -> Tree:
    """w', of each tensor that has a rate; no variance is below 0."""

    def of(path, a, x, h):
        new = x - a * h
        return jnp.maximum(new, 0) if path[0].key == 'statistics' and path[-1].key == 'var' else new

    return jax.tree_util.tree_map_with_path(of, rates, {k: shared[k] for k in rates}, slope)


def gain(local: Local, shared: Tree, rates: Tree, batch: Batch) -> Tree:
    """How fast the loss falls as each rate grows, over the root of the numbers that it moves."""
    h = slope(local, shared, batch.image)

    def loss(rates):
        outputs = predicted(local, moved(rates, shared, h), shared, batch.image)
        return local.task.loss(outputs, batch.target, batch.weight)

    return jax.tree.map(lambda g, x: -g / math.sqrt(x.size), jax.grad(loss)(rates), h)
