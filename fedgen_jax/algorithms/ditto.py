"""Ditto: FedAvg, and at each client a model of its own that is held near FedAvg's.

References:
    Li et al. 2021, Ditto: Fair and robust federated learning through personalization, ICML
    (algorithm 1).
"""

from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.fedprox import proximal
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import (
    Local,
    learn,
    mean_of_steps,
)
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.mu = 0.1  # weight of the squared distance of a client's own model to the one that was sent
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    base = fedavg(local, optimizer('server', c.server))
    near = proximal(local, c.ditto.mu)

    def init_private(state, client_id):
        own = {k: state.shared[k] for k in ('theta', 'statistics') if k in state.shared}
        return {'id': client_id, **own}

    def client_update(shared, private, data, key):
        contribution, _, metrics = base.client_update(shared, private, data, key)
        theta, own_loss, statistics_T = learn(
            local, private['theta'], data, stream(key, 'own'), local.schedule(shared['round']),
            near(shared),
        )
        own = {'theta': theta}
        if local.keeps_statistics:
            own['statistics'] = mean_of_steps(statistics_T)
        return contribution, {**private, **own}, {**metrics, 'own_loss': own_loss}

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        own = shared if private is None else private
        return finish(local, own['theta'], unlabelled, labelled, key, own.get('statistics'))

    return base._replace(
        init_private=init_private, client_update=client_update, personalize=personalize,
        title='Ditto', keeps=True,
    )
