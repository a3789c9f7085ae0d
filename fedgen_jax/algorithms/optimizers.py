"""The optimizers of clients and server, from their part of a configuration."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def optimizer(field: str, c: ConfigDict) -> optax.GradientTransformation:
    """The optimizer of `client` or `server`."""
    if c.optimizer == 'sgd':
        step = optax.sgd(c.lr, momentum=c.momentum or None)
        return optax.chain(optax.clip_by_global_norm(c.clip), step) if c.get('clip') else step
    if c.optimizer == 'adam':
        return optax.adam(c.lr, b1=0.9, b2=0.99, eps=1e-8 if field == 'client' else 1e-3)
    raise ValueError(f'{field}.optimizer={c.optimizer!r}: one of sgd, adam')


def schedule(c: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """round -> factor of the clients' learning rate."""
    if c.client.schedule == 'constant':
        return lambda round_: jnp.float32(1)
    if c.client.schedule == 'cosine':
        decay = optax.cosine_decay_schedule(1.0, c.rounds)
        return lambda round_: decay(round_.astype(jnp.float32))  # strict promotion
    raise ValueError(f'client.schedule={c.client.schedule!r}: one of constant, cosine')
