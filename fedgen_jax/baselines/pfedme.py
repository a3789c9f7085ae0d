"""pFedMe: each client's model is the proximal point of its loss, near the shared one.

References:
    Dinh, Tran, Nguyen 2020, Personalized federated learning with Moreau envelopes, NeurIPS
    (algorithm 1).

With F the Moreau envelope of a client's loss f (eq. 3),

    F(w) = min_theta f(theta) + lambda / 2 |theta - w|^2,    grad F(w) = lambda (w - theta(w)),

a client steps w along grad F, and theta(w) is found by K gradient steps from w on one batch.  The
paper's beta is `server.lr`.  Steps of w are the client's optimizer's, as in every method here (its
momentum and clip too), where the paper has plain ones of rate eta.  A client's own model is
theta(w) after its last step, on one more batch.

An unseen center gets the shared w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Update
from fedgen_jax.algorithms.local import (
    Gradient,
    Local,
    Tree,
    center_statistics,
    if_real,
    query_batch,
    task_gradient,
)
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.lam = 15.0  # weight of half the squared distance of a client's own model to the shared one
    c.steps = 5  # K, to a client's own model, on one batch
    c.lr = 0.05  # of these; times lam below 2
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    p = c.pfedme
    if not (p.steps >= 1 and p.lam > 0 and 0 < p.lr * p.lam < 2):
        raise ValueError(
            f'pfedme: lam={p.lam}, steps={p.steps}, lr={p.lr}: above 0, and lr * lam below 2, for '
            'the steps to end near a point'
        )
    near = proximal_point(task_gradient(local), p.lam, p.steps, p.lr)
    return pfedme(local, optimizer('server', c.server), near, p.lam)


def proximal_point(gradient: Gradient, lam: float, steps: int, lr: float) -> Callable:
    """(w, batch, tau, key) -> (theta(w) - w, ((losses [K], aux's, leaves [K, ...]) of its steps).

    The way from w is what is carried: as a difference of weights it would lose its last digits.
    """

    def of(w, batch, tau, key):
        def step(way, _):
            told, grads = gradient(moved(w, way), batch, tau, key)
            way = jax.tree.map(lambda u, g: u - lr * (g + lam * u), way, grads)
            return way, told

        return jax.lax.scan(step, jax.tree.map(jnp.zeros_like, w), None, length=steps)

    return of


def moved(w: Tree, way: Tree) -> Tree:
    """The weights at the end of a way from w."""
    return jax.tree.map(jnp.add, w, way)


def pfedme(local: Local, server, near: Callable, lam: float) -> Algorithm:
    """near: `proximal_point` of the client's loss."""

    def envelope(w, batch, tau, key):
        way, told_K = near(w, batch, tau, key)
        return jax.tree.map(lambda x: x[0], told_K), jax.tree.map(lambda u: -lam * u, way)

    base = fedavg(local, server, lambda shared: envelope)

    def init_private(state, client_id):
        own = {k: state.shared[k] for k in ('theta', 'statistics') if k in state.shared}
        return {'id': client_id, **own}

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)

        def end(done):
            contribution, _, metrics = base_end(done)
            key_own = stream(key, 'own')
            batch, tau = query_batch(local, data, key_own)
            batch = batch._replace(last=center_statistics(local, done.params, data, key_own))
            way, (_, aux_K) = near(done.params, batch, tau, key_own)
            own = {'theta': moved(done.params, way)}
            if local.keeps_statistics:
                own['statistics'] = jax.tree.map(lambda x: x[-1], aux_K)
            return contribution, {**private, **if_real(data, own, private)}, metrics

        return learning, end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        own = shared if private is None else private
        return finish(local, own['theta'], unlabelled, labelled, key, own.get('statistics'))

    return base._replace(
        init_private=init_private, client_update=Update(begin), personalize=personalize,
        title='pFedMe', keeps=True, own='theta', features=True,
    )
