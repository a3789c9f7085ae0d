"""FedSAM: FedAvg whose clients step along the gradient a little uphill, towards flat minima.

References:
    Qu et al. 2022, Generalized federated learning via sharpness aware minimization, ICML
    (algorithm 1); Foret et al. 2021, Sharpness-aware minimization for efficiently improving
    generalization, ICLR (eq. 2).

A step's gradient is that at theta + rho g / |g|, with g the gradient at theta, on the same batch.
An unseen center gets the shared model.
"""

import jax
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.local import Gradient, Local, task_gradient
from fedgen_jax.algorithms.optimizers import optimizer


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.rho = 0.05  # how far uphill
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if c.fedsam.rho < 0:
        raise ValueError(f'fedsam.rho={c.fedsam.rho}: at least 0')
    uphill = sharpness_aware(task_gradient(local), c.fedsam.rho)
    return fedavg(local, optimizer('server', c.server), lambda shared: uphill)._replace(
        title='FedSAM', features=True
    )


def sharpness_aware(of: Gradient, rho: float) -> Gradient:
    """The gradient `rho` uphill; loss and aux are those at the weights themselves."""

    def gradient(params, batch, tau, key):
        told, grads = of(params, batch, tau, key)
        far = rho / (optax.tree.norm(grads) + 1e-12)
        above = jax.tree.map(lambda p, g: p + far * g, params, grads)
        return told, of(above, batch, tau, key)[1]

    return gradient
