"""ODPFL-HN: an encoder of a client's unlabelled images, and a hypernetwork that makes its model.

References:
    Amosy et al. 2024, Late to the party? On-demand unlabeled personalized federated learning, WACV.

    v_c = standardized mean over x of e_psi(x),    theta_c = theta + H_phi(v_c)

with H and its step as in `baselines.hypernetworks`.  The encoder learns through both:

    g_c = (d theta_c / d v_c)^T Delta theta_c
    Delta psi = sum_c w_c (d v_c / d psi)^T g_c / sum_c w_c

A client's images never leave it.  On the wire go psi down and v_c up; theta_c down and its change
up; g_c down and the encoder's change up.  A simulated client computes g_c itself, which is the same
(the test of this method), and sends v_c and both changes in one message.  The server meets each by
itself (`sum_only=False`), so that no secure sum can serve it.

Chosen here: the encoder is a small network of two convolutions, as the size of a model asks for; a
round's vector is of `images` images, drawn anew, a finished model's of all.  Vectors are
standardized, for an average over images differs little between clients.  Noise on v_c, the paper's
form of differential privacy, is left out.

An unseen center: the vector of its own unlabelled images.  Its labels, where it has some, fine-tune
the weights that come of it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.draws import draw_indices
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import Local, client_weight, weigh, weighed
from fedgen_jax.baselines import hypernetworks
from fedgen_jax.baselines.hypernetworks import (
    Encoder,
    Hypernetwork,
    by_entry,
    encoded,
    first_weights,
    hypernetwork_of,
    hypernetwork_step,
    image_alone,
    model_from,
    pulled_back,
    sent_down,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = hypernetworks.defaults()
    c.code = 32  # numbers of a client's vector
    c.images = 64  # that a client's vector is of, in a round
    c.encoder_rate = 1.0  # of the encoder at the server, as a multiple of server.lr
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    own = c.odpfl
    net = hypernetwork_of('odpfl', own, local)
    return by_encoder(local, server_of(c, own), net, own, 'ODPFL-HN', image_alone)


def server_of(c: ConfigDict, own: ConfigDict) -> optax.GradientTransformation:
    """The server's optimizer, given a method's own fields."""
    return by_entry(c.server, {'theta': 1.0, 'phi': own.rate, 'psi': own.encoder_rate})


def by_encoder(
    local: Local,
    server: optax.GradientTransformation,
    net: Hypernetwork,
    own: ConfigDict,
    title: str,
    see: Callable,
    planes: int = 0,
) -> Algorithm:
    """The algorithm whose vectors are an encoder's.

    own:    the method's fields.
    see:    (image, target) -> what the encoder sees of an example, [H, W, 3 + planes].
    planes: of labels; a center without labels then takes the mean vector of the last round.
    """
    if local.private:
        raise ValueError(
            f"privacy.unit: {title}'s encoder has no private steps: take another algorithm"
        )
    encoder = Encoder(own.code)

    def init(key):
        shared = first_weights(net, local, key, own.code)
        blank = jnp.zeros((1, local.image_size, local.image_size, 3 + planes))
        shared['psi'] = encoder.init(stream(key, 'psi'), blank)['params']
        if planes:
            shared['pooled'] = jnp.zeros(own.code)
        return State(shared, server.init({k: shared[k] for k in ('theta', 'phi', 'psi')}))

    def begin(shared, private, data, key):
        some = sample(local, data, stream(key, 'code'), own.images)
        code, to_psi = jax.vjp(
            lambda psi: encoded(encoder, psi, see, some, some.weight), shared['psi']
        )
        params, to_code = jax.vjp(lambda v_E: model_from(net, shared, v_E), code)

        def end(done):
            change = jax.tree.map(jnp.subtract, done.params, params)
            (psi,) = to_psi(*to_code(change))
            delta = {'theta': change, 'psi': psi}
            contribution = weighed(local, data, delta, done.aux_T)
            contribution['code'] = weigh(client_weight(local, data), code)
            return contribution, private, metrics_of(loss=done.loss)

        return Learning(local, params, local.schedule(shared['round'])), end

    def server_update(state, total_C):
        weight_C = total_C['weight']
        v_CxE = total_C['code'] / jnp.maximum(weight_C, 1e-9)[:, None]
        phi, _ = pulled_back(net, state.shared, v_CxE, total_C['delta']['theta'])
        sent_C = {k: v for k, v in total_C.items() if k != 'code'}
        state = hypernetwork_step(server, state, sent_C, {'phi': phi}, own.decay)
        if not planes:
            return state
        mean_E = total_C['code'].sum(0) / jnp.maximum(weight_C.sum(), 1e-9)
        pooled = jnp.where(weight_C.sum() > 0, mean_E, state.shared['pooled'])
        return state._replace(shared={**state.shared, 'pooled': pooled})

    def code_of(shared, private, unlabelled, labelled):
        seen = unlabelled  # a seen center's are its training examples, and their labels its own
        if planes and private is None:
            if labelled is None:
                return shared['pooled']
            seen = labelled
        return encoded(encoder, shared['psi'], see, seen, seen.weight)

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        params = model_from(net, shared, code_of(shared, private, unlabelled, labelled))
        spent = planes and private is None  # the labels made the vector
        learn_from = None if spent else labelled
        return finish(local, params, unlabelled, learn_from, key, shared.get('statistics'))

    return Algorithm(
        init, lambda state, client_id: {'id': client_id}, Update(begin), server_update, None,
        personalize, title=title, keeps=False, server_model=True,
        sizes={'base': 'theta', 'hypernetwork': 'phi', 'encoder': 'psi'},
        sum_only=False, down=sent_down, unseen='' if planes else 'embedding of its images',
    )


def sample(local: Local, data: Examples, key: jax.Array, size: int) -> Examples:
    """Some of a client's examples, as they are, which all count."""
    index = draw_indices(local.task, data, key, size, None)
    target = {k: v[index] for k, v in data.target.items()}
    return Examples(data.image[index], target, jnp.ones(size))
