"""pFedHN: a hypernetwork at the server, with a trainable embedding of each client.

References:
    Shamsian et al. 2021, Personalized federated learning using hypernetworks, ICML (algorithm 1,
    eq. 3; section 5.4 on clients that are new).

    theta_c = theta + H_phi(v_c),    v_c <- v_c + rate * (d theta_c / d v_c)^T Delta theta_c

with H and its step as in `baselines.hypernetworks`.  Many clients take part in a round, where
algorithm 1 draws one: phi takes their weighted mean, and each embedding its own client's change.
The size of embeddings and of H are those of the authors' code; its spectral norm is an option
there, and left out.

Wire: down one model a client, up its change.  The server meets each by itself (`sum_only=False`),
so that no secure sum can serve it.

An unseen center: zero-shot it has the model of the mean of the seen clients' embeddings, which is
chosen here, for the paper has none.  With labels its own embedding is fitted, from that mean, with
H frozen; its weights are not fine-tuned besides.  A seen center is fine-tuned as any other.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, learn, metrics_of
from fedgen_jax.algorithms.local import (
    Local,
    Steps,
    batch_loss,
    client_weight,
    contribution_of,
    weigh,
)
from fedgen_jax.algorithms.optimizers import own_steps
from fedgen_jax.baselines import hypernetworks
from fedgen_jax.baselines.hypernetworks import (
    Hypernetwork,
    by_entry,
    first_weights,
    hypernetwork_of,
    hypernetwork_step,
    model_from,
    pulled_back,
    sent_down,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.random import stream
from fedgen_jax.shifts.base import chain


def defaults() -> ConfigDict:
    c = hypernetworks.defaults()
    c.embedding = 0  # numbers of an embedding; 0: 1 + a quarter of the clients' number
    c.embedding_rate = 1.0  # of embeddings at the server, as a multiple of server.lr
    c.fit_steps = 50  # labelled steps on the embedding of a center that is new
    c.fit_lr = 0.1  # of the first of them; it falls to zero
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    own = c.pfedhn
    rates = {'theta': 1.0, 'phi': own.rate, 'embedding': own.embedding_rate}
    fit = own_steps(c, own.fit_steps, own.fit_lr)
    net, size = hypernetwork_of('pfedhn', own, local), own.embedding or 1 + num_clients // 4
    return pfedhn(local, by_entry(c.server, rates), net, size, num_clients, fit, own.decay)


def pfedhn(
    local: Local,
    server: optax.GradientTransformation,
    net: Hypernetwork,
    size: int,
    num_clients: int,
    fit: Steps,
    decay: float,
) -> Algorithm:
    """See the module's text.  size: of an embedding; decay: of the hypernetwork, a round."""

    def init(key):
        shared = first_weights(net, local, key, size)
        shared['embedding'] = jax.random.normal(stream(key, 'embedding'), (num_clients, size))
        learned = {k: shared[k] for k in ('theta', 'phi', 'embedding')}
        return State(shared, server.init(learned))

    def begin(shared, private, data, key):
        params = model_from(net, shared, shared['embedding'][private['id']])
        row_C = jax.nn.one_hot(private['id'], num_clients)

        def end(done):
            new, old = {'theta': done.params}, {'theta': params}
            contribution = contribution_of(local, data, new, old, done.aux_T)
            # As a vector, which a clipped message shrinks with its weight, and not as a number.
            contribution['row'] = weigh(client_weight(local, data), row_C)
            return contribution, private, metrics_of(loss=done.loss)

        return Learning(local, params, local.schedule(shared['round'])), end

    def server_update(state, total_C):
        weight_Cx1 = jnp.maximum(total_C['weight'], 1e-9)[:, None]
        row_CxN = total_C['row'] / weight_Cx1
        v_CxE = row_CxN @ state.shared['embedding']
        phi, own_CxE = pulled_back(net, state.shared, v_CxE, total_C['delta']['theta'])
        # `server_step` divides by the round's weight, and a row is its own client's alone.
        rows_NxE = row_CxN.T @ (own_CxE / weight_Cx1) * total_C['weight'].sum()
        sent_C = {k: v for k, v in total_C.items() if k != 'row'}
        more = {'phi': phi, 'embedding': rows_NxE}
        return hypernetwork_step(server, state, sent_C, more, decay)

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        statistics = shared.get('statistics')
        if private is not None:
            params = model_from(net, shared, shared['embedding'][private['id']])
            return finish(local, params, unlabelled, labelled, key, statistics)
        v_E = shared['embedding'].mean(0)
        if labelled is not None:
            v_E = fitted_embedding(local, net, shared, v_E, labelled, key, fit)
        params = model_from(net, shared, v_E)
        return finish(local, params, unlabelled, None, key, statistics)

    return Algorithm(
        init, lambda state, client_id: {'id': client_id}, Update(begin), server_update, None,
        personalize, title='pFedHN', keeps=True, server_model=True,
        sizes={'base': 'theta', 'hypernetwork': 'phi', 'embeddings': 'embedding'},
        sum_only=False, down=sent_down,
    )


def fitted_embedding(
    local: Local,
    net: Hypernetwork,
    shared: Tree,
    v_E: jax.Array,
    labelled: Examples,
    key: jax.Array,
    fit: Steps,
) -> jax.Array:
    """The embedding [E] after labelled steps from `v_E`, with the hypernetwork frozen."""

    def loss(own, batch, tau, key):
        return batch_loss(local, model_from(net, shared, own['embedding']), batch)

    def private_loss(*step):
        return loss(*step)[0]

    alone = local._replace(shift=chain(), optimizer=fit.optimizer, steps=fit.count, decay=0.0)
    learning = Learning(
        alone, {'embedding': v_E}, 1.0, jax.value_and_grad(loss, has_aux=True),
        stays=lambda path: False, model=model_from(net, shared, v_E), loss=private_loss,
    )
    return learn(learning, labelled, stream(key, 'embedding')).params['embedding']
