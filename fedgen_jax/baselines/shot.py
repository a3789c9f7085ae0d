"""SHOT-IM: FedAvg's model, whose features move to where its head tells most of a center's images.

References:
    Liang et al. 2020, Do we really need to access the source data? Source hypothesis transfer for
    unsupervised domain adaptation, ICML (eq. 3: information maximization; SHOT-IM is the variant
    of its ablation without pseudo-labels).  The head, its "hypothesis", stays; all else moves by
    SGD with Nesterov's momentum, 15 epochs in batches of 64, at a rate of 0.01 (1 + 10 p)^-0.75
    after the share p of the steps, with weights decayed by 0.001.

Training is FedAvg's to the bit (the paper's source model has smoothed labels and weight-normalized
heads, which no other method of a comparison has).  At any center, seen or unseen: its unlabelled
images; an unseen one's model is scored on the half that it was not adapted on.

What was chosen: epochs are those of the center's own number of images, of which each batch is drawn
anew, not augmented.
Statistics are as `statistics` says, of each batch in each step.  Weights that training freezes
stay.  The paper's rate is ten times smaller below the last layers of a pretrained network: with
`start.weights`, pass shot.lr=0.001.  A model that is fine-tuned with labels is not adapted.
"""

import math

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import minimized, uncertainty
from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.tent import check_moves, check_steps, test_time
from fedgen_jax.models.roles import ROLES, frozen_of, roles_of


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.epochs = 15.0  # of a center's unlabelled images; 0: none
    c.batch = 64  # images of each
    c.lr = 0.01  # of the first of them
    c.decay = 1e-3  # of weights: this times a weight is added to its gradient
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h = c.shot
    check_steps('shot', h, local, 'epochs')
    if local.task.target != 'label':
        raise ValueError(f"algorithm='shot': task={local.task.name!r}: its objective is that of "
                         'one class an image: classification')
    role_of, frozen = roles_of(local.model), frozen_of(local.model)

    def moves(path):
        return role_of(path) != 'head' and not frozen(path)

    check_moves('shot', local, moves, [role for role in ROLES if role != 'head'])

    def adapt(params, unlabelled, key, statistics):
        images = jnp.sum(unlabelled.weight > 0, dtype=jnp.float32)
        own = h.epochs * jnp.ceil(images / h.batch)  # the last batch of an epoch is a step too
        most = h.epochs * math.ceil(unlabelled.weight.size / h.batch)

        def rate(step):  # 0 after the center's own steps: others' have more images
            t = step.astype(jnp.float32)  # strict promotion
            return jnp.where(t < own, h.lr * (1 + 10 * t / jnp.maximum(own, 1)) ** -0.75, 0.0)

        steps = optax.chain(
            optax.add_decayed_weights(h.decay), optax.sgd(rate, 0.9, nesterov=True)
        )
        return minimized(
            local, params, moves, uncertainty, steps, most, h.batch, unlabelled, key,
            statistics,
        )

    base = fedavg(local, optimizer('server', c.server))
    return test_time(base, local, adapt)._replace(title='SHOT-IM', unseen='entropy of its images')
