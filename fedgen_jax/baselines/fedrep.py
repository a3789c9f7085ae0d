"""FedRep: a shared representation, and at each client a head of its own.

References:
    Collins et al. 2021, Exploiting shared representations for personalized federated learning, ICML
    (algorithm 1).

In a round a client first steps its head on the representation that it was sent, then the
representation under its new head, and sends the representation.  The steps of the representation
are `local_steps`, as every method's; those of the head come before them.

The paper gives a new client a head that it learns from labels.  An unseen center has none here:
with `stranger='mean'` it gets the mean of the clients' heads, which are then sent for this alone;
with 'first' no head is ever sent, and it gets the one that all began with, which has learned
nothing.
"""

from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.keeping import keeping, of_roles
from fedgen_jax.algorithms.learning import learn
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.head_steps = 0  # of the head, before the representation's; 0: as many as these, local_steps
    c.stranger = 'mean'  # head of an unseen center: the clients' mean | first (none is sent)
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if c.fedrep.head_steps < 0:
        raise ValueError(f'fedrep.head_steps={c.fedrep.head_steps}: at least 0')
    is_head = of_roles(local, 'fedrep', c.fedrep.stranger, 'head')
    frozen = frozen_of(local.model)
    of_head = local._replace(steps=c.fedrep.head_steps or local.steps)

    def head_first(learning, data, key):
        head = learning._replace(
            local=of_head, stays=lambda path: frozen(path) or not is_head(path)
        )
        learned = learn(head, data, stream(key, 'head')).params
        return learning._replace(
            params=learned, stays=lambda path: frozen(path) or is_head(path)
        )

    kept = keeping(
        local, optimizer('server', c.server), is_head, c.fedrep.stranger, before=head_first
    )
    return kept._replace(title='FedRep')
