"""Ditto: FedAvg, and at each client a model of its own that is held near FedAvg's.

References:
    Li et al. 2021, Ditto: Fair and robust federated learning through personalization, ICML
    (algorithm 1).
"""

from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Update, learn
from fedgen_jax.algorithms.local import Local, mean_of_steps
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.fedprox import proximal
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.mu = 0.1  # weight of the squared distance of a client's own model to the one that was sent
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    base = fedavg(local, optimizer('server', c.server))
    near = proximal(local, c.ditto.mu, 'ditto')

    def init_private(state, client_id):
        own = {k: state.shared[k] for k in ('theta', 'statistics') if k in state.shared}
        return {'id': client_id, **own}

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)
        own_learning = learning._replace(params=private['theta'], gradient=near(shared))

        def end(done):
            contribution, _, metrics = base_end(done)
            alone = learn(own_learning, data, stream(key, 'own'))
            own = {'theta': alone.params}
            if local.keeps_statistics:
                own['statistics'] = mean_of_steps(alone.aux_T)
            return contribution, {**private, **own}, {**metrics, 'own_loss': alone.loss}

        return learning, end

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        own = shared if private is None else private
        return finish(local, own['theta'], unlabelled, labelled, key, own.get('statistics'))

    return base._replace(
        features=True,
        init_private=init_private, client_update=Update(begin), personalize=personalize,
        title='Ditto', keeps=True, own='theta',
    )
