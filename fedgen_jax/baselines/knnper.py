"""kNN-Per: FedAvg's model, and beside it the nearest of a center's own labelled images.

References:
    Marfoq et al. 2022, Personalized federated learning through local memorization, ICML (eq. 6-9).

    p(k | x) = weight * p_near(k | x) + (1 - weight) * p_FedAvg(k | x)
    p_near(k | x) = sum over the nearest i with y_i = k of s_i / sum over the nearest of s_i,
    s_i = exp(-|z(x) - z(x_i)|^2 / (I * scale)),   z in R^I: what the head reads

The kernel is that of the authors' code, of the squared distance over the number of features.  They
choose `weight` at each client on its validation images; here it is one number for all centers, as
every field is, to be chosen as these are.  The datastore holds all labelled images of a center.

A seen center's datastore is of its training images under the finished weights; it stays in the
center's model, and no round sends it.  An unseen center without labels has FedAvg's model, to the
bit.  With labels it has a datastore of these, and its weights are not fine-tuned besides.

Of classification of an image into one class alone, as in the paper.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, Tree
from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.models.representation import with_representation

CHUNK = 64  # images whose features are taken at once


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.weight = 0.5  # of the nearest, from 0 (FedAvg) to 1
    c.nearest = 10  # how many
    c.scale = 1.0  # of the kernel's squared distances
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    own = c.knnper
    if local.task.target != 'label':
        raise ValueError(
            f"algorithm='knnper': votes for one class an image, and task={local.task.name!r} has "
            'another answer: take fedavg'
        )
    if not 0 <= own.weight <= 1:
        raise ValueError(f'knnper.weight={own.weight}: from 0 to 1')
    if own.nearest < 1 or not own.scale > 0:
        raise ValueError(f'knnper.nearest={own.nearest}, knnper.scale={own.scale}: above 0')
    return knnper(local, fedavg(local, optimizer('server', c.server)), own)


def knnper(local: Local, base: Algorithm, own: ConfigDict) -> Algorithm:
    """See the module's text.  own: the method's fields."""

    def seen(variables, x_BxHxWx3) -> tuple[Any, jax.Array]:
        """(outputs, features [B, I]) of FedAvg's model."""
        return with_representation(
            local.model, variables['params'],
            lambda: local.model.apply(variables, x_BxHxWx3, train=False),
        )

    def datastore(variables, examples) -> Tree:
        def one(image):
            return seen(variables, images_of(image)[None])[1][0]

        z_NxI = jax.lax.map(one, jnp.asarray(examples.image), batch_size=CHUNK)
        label_N = examples.target['label']
        known_N = (examples.weight > 0) & (label_N >= 0)
        return {'z': z_NxI.astype(jnp.float32), 'label': jnp.where(known_N, label_N, -1)}

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        statistics = shared.get('statistics')
        tuned = None if private is None else labelled
        finished = finish(local, shared['theta'], unlabelled, tuned, key, statistics)
        memory = labelled if private is None else unlabelled  # a seen center's training examples
        if memory is None:
            return finished
        return {**finished, 'datastore': datastore(finished, memory)}

    def apply(variables, x_BxHxWx3):
        model = {k: v for k, v in variables.items() if k != 'datastore'}
        logits_BxK, z_BxI = seen(model, x_BxHxWx3)
        if 'datastore' not in variables:
            return logits_BxK
        near_BxK = votes(variables['datastore'], z_BxI, own, logits_BxK.shape[-1])
        mixed_BxK = own.weight * near_BxK + (1 - own.weight) * jax.nn.softmax(logits_BxK)
        known = (variables['datastore']['label'] >= 0).any()
        return jnp.where(known, jnp.log(jnp.maximum(mixed_BxK, 1e-30)), logits_BxK)

    return base._replace(
        personalize=personalize, apply=apply, title='kNN-Per', features=True
    )


def votes(store: Tree, z_BxI: jax.Array, own: ConfigDict, classes: int) -> jax.Array:
    """p_near [B, K]."""
    z_BxI, store_NxI = z_BxI.astype(jnp.float32), store['z']
    squares = jnp.sum(z_BxI**2, -1)[:, None] + jnp.sum(store_NxI**2, -1)[None]
    far_BxN = jnp.maximum(squares - 2 * z_BxI @ store_NxI.T, 0)
    far_BxN = jnp.where((store['label'] >= 0)[None], far_BxN, jnp.inf)
    near_BxM, index_BxM = jax.lax.top_k(-far_BxN, min(own.nearest, far_BxN.shape[1]))
    # A softmax: the kernel's values over their sum, none of which is lost where all are far.
    share_BxM = jax.nn.softmax(near_BxM / (z_BxI.shape[1] * own.scale))
    one_BxMxK = jax.nn.one_hot(store['label'][index_BxM], classes)
    return (share_BxM[..., None] * one_BxMxK).sum(1)
