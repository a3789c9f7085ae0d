"""FedProx: FedAvg whose clients are held near the model that they were sent.

References:
    Li et al. 2020, Federated optimization in heterogeneous networks, MLSys (eq. 2).
"""

import jax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.local import Gradient, Local, task_gradient
from fedgen_jax.algorithms.optimizers import optimizer


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.mu = 0.01  # weight of the squared distance to the model that was sent
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    near = proximal(local, c.fedprox.mu, 'fedprox')
    algorithm = fedavg(local, optimizer('server', c.server), near)
    return algorithm._replace(title='FedProx', features=True)


def proximal(local: Local, mu: float, name: str):
    """The gradient of the task's loss + mu / 2 |theta - theta_sent|^2, as `gradient_at`.

    name: of the algorithm, whose field `mu` is.
    """
    if mu < 0:
        raise ValueError(f'{name}.mu={mu}: at least 0')

    def gradient_at(shared) -> Gradient:
        def gradient(params, batch, tau, key):
            value, grads = task_gradient(local)(params, batch, tau, key)
            pull = jax.tree.map(lambda g, p, sent: g + mu * (p - sent), grads, params,
                                shared['theta'])
            return value, pull

        return gradient

    return gradient_at
