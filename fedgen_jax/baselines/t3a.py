"""T3A: FedAvg's model, whose head becomes prototypes of a center's own images.

References:
    Iwasawa, Matsuo 2021, Test-time classifier adjustment module for model-agnostic domain
    generalization, NeurIPS (section 3.2, algorithm 1).

With z the features that the head reads, w_k its column of class k, and y the head's own answer,

    S_k = {w_k} and {z : y(z) = k}, of which the M with the least entropy of y stay,
    c_k = sum of s / |s| over S_k;  the new logit of class k is z . c_k / |c_k|.

So a center without images has the head's columns at length 1, without its bias.  No gradient is
taken.  Training is FedAvg's to the bit.  At any center, seen or unseen: its unlabelled images.

What was chosen: the paper goes through the images that it scores, each scored by those before it;
here the prototypes are those of one half of an unseen center's images, and the other half is
scored.  The lengths are those of the authors' code.  w_k stands for class k as in the text,
whatever the head says of it, and is dropped where M images are surer.  The logits are cosines times
|z|, so probabilities are softer than the head's.  A model that is fine-tuned with labels keeps its
head.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.adaptation import entropy
from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.heads import features_of, head_of


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.filter = 20  # M, the most supports of a class; 0: all
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if c.t3a.filter < 0:
        raise ValueError(f't3a.filter={c.t3a.filter}: at least 0')
    head = head_of('t3a', local)
    base = fedavg(local, optimizer('server', c.server))

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        variables = base.personalize(shared, private, unlabelled, labelled, key, m_E)
        if labelled is not None:
            return variables
        z_NxI = features_of(local.model, variables, unlabelled.image)
        kernel_IxK, bias_K = head.weights(variables['params'])
        kernel_IxK = prototypes(z_NxI, unlabelled.weight > 0, kernel_IxK, bias_K, c.t3a.filter)
        params = head.put(variables['params'], kernel_IxK, jnp.zeros_like(bias_K))
        return {**variables, 'params': params}

    return base._replace(
        personalize=personalize, title='T3A', unseen='prototypes of its images', features=True
    )


def prototypes(
    z_NxI: jax.Array, real_N: jax.Array, kernel_IxK: jax.Array, bias_K: jax.Array, most: int
) -> jax.Array:
    """The new head's kernel [I, K], its columns of length 1.

    real_N: which features count.  most: M; 0: all.
    """
    s_SxI = jnp.concatenate([kernel_IxK.T, z_NxI])
    logits_SxK = s_SxI @ kernel_IxK + bias_K[None]
    num = len(bias_K)
    class_S = jnp.concatenate([jnp.arange(num), logits_SxK[num:].argmax(-1)])
    real_S = jnp.concatenate([jnp.ones(num, bool), real_N])
    mine_KxS = (class_S[None] == jnp.arange(num)[:, None]) & real_S[None]
    doubt_KxS = jnp.where(mine_KxS, entropy(jax.nn.softmax(logits_SxK))[None], jnp.inf)
    place_KxS = jnp.argsort(jnp.argsort(doubt_KxS, -1), -1)  # stable: of equals, the first
    use_KxS = mine_KxS & (place_KxS < (most or len(class_S)))
    center_KxI = use_KxS.astype(jnp.float32) @ _unit(s_SxI)
    return _unit(center_KxI).T


def _unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
