"""Tent: FedAvg's model, whose normalizations move to where it is surer of a center's images.

References:
    Wang et al. 2021, Tent: Fully test-time adaptation by entropy minimization, ICLR (section 3:
    the mean entropy of predictions, eq. 1, of which scale and bias of all normalizations take
    Adam's steps, one a batch; nothing rewards predictions for being various).

Training is FedAvg's to the bit.  At any center, seen or unseen: its unlabelled images.

What was chosen: the paper adapts online, on the images that it scores; here a model is adapted on
one half of an unseen center's images, keeps still, and is scored on the other.  The default of 10
steps of 64 is as many as the paper's one pass over 640 images; here each batch is drawn anew, so
that some images come again and others never.  Statistics are as `statistics` says: the paper's are
those of each batch, 'own' here, under which the finished model has those of all its images.
Weights that training freezes move too where they are scale or bias of a normalization.  A model
that is fine-tuned with labels is not adapted.
"""

from collections.abc import Callable, Collection

import jax
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import entropy, minimized
from fedgen_jax.algorithms.base import Algorithm, Tree
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import Local, init_model
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.data.examples import Examples
from fedgen_jax.models.roles import roles_of

ROLES = ('norm', 'features')  # of scales and biases


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.steps = 10  # on a center's unlabelled images; 0: none
    c.batch = 64  # images of each
    c.lr = 1e-3  # of Adam
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    check_steps('tent', c.tent, local)
    role_of = roles_of(local.model)

    def moves(path):
        return role_of(path) in ROLES

    check_moves('tent', local, moves, ROLES)

    def adapt(params, unlabelled, key, statistics):
        return minimized(
            local, params, moves, lambda p: entropy(p).mean(), optax.adam(c.tent.lr),
            c.tent.steps, c.tent.batch, unlabelled, key, statistics,
        )

    base = fedavg(local, optimizer('server', c.server))
    return test_time(base, local, adapt)._replace(title='Tent', unseen='entropy of its images')


def test_time(
    base: Algorithm, local: Local, adapt: Callable[[Tree, Examples, jax.Array, Tree], Tree]
) -> Algorithm:
    """FedAvg (`base`), whose finished model goes through `adapt` at each center.

    adapt: (weights, unlabelled, key, statistics that training kept or None) -> weights.
    """

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        if labelled is not None:
            return base.personalize(shared, private, unlabelled, labelled, key, m_E)
        statistics = shared.get('statistics')
        params = adapt(shared['theta'], unlabelled, key, statistics)
        return finish(local, params, unlabelled, None, key, statistics)

    return base._replace(personalize=personalize, features=True)


def check_steps(name: str, c: ConfigDict, local: Local, length: str = 'steps') -> None:
    """Raises ValueError where steps without labels cannot be taken as `c` says."""
    if local.task.probability is None:
        raise ValueError(
            f'algorithm={name!r}: task={local.task.name!r} gives no probabilities of one class to '
            'be sure of: classification or segmentation'
        )
    for field, least in ((length, 0), ('batch', 1)):
        if c[field] < least:
            raise ValueError(f'{name}.{field}={c[field]}: at least {least}')


def check_moves(
    name: str, local: Local, moves: Callable[[tuple[str, ...]], bool], roles: Collection[str]
) -> None:
    """Raises ValueError where nothing of the model would move."""
    shapes = jax.eval_shape(lambda key: init_model(local, key), jax.random.key(0))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]
    if not any(moves(tuple(k.key for k in path)) for path in paths):  # type: ignore
        raise ValueError(
            f'algorithm={name!r}: model.name: no weight of role {" or ".join(roles)} to move: '
            'another model'
        )
