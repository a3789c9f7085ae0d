"""APFL: FedAvg, and at each client a model that mixes FedAvg's with one of its own.

References:
    Deng, Kamani, Mahdavi 2020, Adaptive personalized federated learning, arXiv:2003.13461
    (algorithm 1; eq. 10 moves alpha).

A client's model is v_bar = alpha v + (1 - alpha) w.  In each step, on the same batch,

    w <- w - eta grad f(w),    v <- v - eta alpha grad f(v_bar),

and w is averaged: it is FedAvg's to the bit.  Once a round, with the gradient of the first step,
alpha <- alpha - alpha_lr <v - w, grad f(v_bar)>, held in [0, 1].  The paper leaves open how often;
its authors' code does it once a round.  Steps are the client's optimizer's, for v and w apart.

A seen center gets v_bar with the w that the server has at the end; an unseen one gets w.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learned, Update
from fedgen_jax.algorithms.local import Local, if_real, mean_of_steps, task_gradient
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.models.roles import frozen_of


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.alpha = 0.5  # share of a client's own model in what it uses, at the start
    c.alpha_lr = 0.1  # of alpha, once a round; 0: it stays
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if not 0 <= c.apfl.alpha <= 1 or c.apfl.alpha_lr < 0:
        raise ValueError(f'apfl.alpha={c.apfl.alpha}, apfl.alpha_lr={c.apfl.alpha_lr}: a share '
                         'from 0 to 1, and a rate of at least 0')
    return apfl(local, optimizer('server', c.server), c.apfl.alpha, c.apfl.alpha_lr)


def mixed(alpha, own, shared):
    """alpha own + (1 - alpha) shared, where these differ: others, as frozen ones, are not rounded.
    """
    return jax.tree.map(lambda v, w: jnp.where(v == w, w, alpha * v + (1 - alpha) * w), own, shared)


def apfl(
    local: Local, server: optax.GradientTransformation, alpha: float, alpha_lr: float
) -> Algorithm:
    base = fedavg(local, server)
    frozen = frozen_of(local.model)
    apart = {'theta': local.optimizer, 'own': local.optimizer}
    both = local._replace(optimizer=optax.partition(apart, lambda tree: {k: k for k in tree}))

    def init_private(state, client_id):
        first = {k: state.shared[k] for k in ('statistics',) if k in state.shared}
        return {
            'id': client_id, 'own': state.shared['theta'], 'alpha': jnp.float32(alpha), **first
        }

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)

        def gradient(params, batch, tau, key):
            (loss, aux), grads = task_gradient(local)(params['theta'], batch, tau, key)
            between = mixed(private['alpha'], params['own'], params['theta'])
            (own_loss, own_aux), slope = task_gradient(local)(between, batch, tau, key)
            apart = jax.tree.map(jnp.subtract, params['own'], params['theta'])
            told = {'base': aux, 'own': own_aux, 'loss': own_loss,
                    'alpha': optax.tree.vdot(apart, slope)}
            own_grads = jax.tree.map(lambda g: private['alpha'] * g, slope)
            return (loss, told), {'theta': grads, 'own': own_grads}

        def end(done):
            told_T = done.aux_T
            contribution, _, metrics = base_end(
                Learned(done.params['theta'], done.loss, told_T['base'])
            )
            moved = jnp.clip(private['alpha'] - alpha_lr * told_T['alpha'][0], 0, 1)
            own = {'own': done.params['own'], 'alpha': moved}
            if local.keeps_statistics:
                own['statistics'] = mean_of_steps(told_T['own'])
            private_new = {**private, **if_real(data, own, private)}
            return contribution, private_new, {**metrics, 'own_loss': told_T['loss'].mean()}

        return learning._replace(
            local=both, params={'theta': learning.params, 'own': private['own']},
            gradient=gradient, stays=lambda path: frozen(path[1:]), model=learning.params,
        ), end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        theta, kept = shared['theta'], shared
        if private is not None:
            theta, kept = mixed(private['alpha'], private['own'], theta), private
        return finish(local, theta, unlabelled, labelled, key, kept.get('statistics'))

    return base._replace(
        init_private=init_private, client_update=Update(begin), personalize=personalize,
        title='APFL', keeps=True, own='own', features=True,
    )
