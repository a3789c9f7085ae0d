"""A few steps on the code of a new center, without a label.

The generator maps a descriptor to a code, a few dozen numbers, and the code to all weights that it
changes.  A new center's code may be moved a little where its model is surer of the center's own
images.  Everything that the centers share is held still.  On two seeds of drawn cells 20 steps
raised unseen centers' balanced accuracy by 0.7 and 2.7 points; nothing else has been measured.
"""

import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.base import Tree
from fedgen_jax.algorithms.episodes import Parts, generated, own_descriptor
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import draw_indices, images_of
from fedgen_jax.data.examples import Examples
from fedgen_jax.random import stream

IMAGES = 256  # that the objective is of, at most, as batch statistics are
REACH = 0.1  # of the first step, a length in the code, whose coordinates lie in [-1, 1]


def uncertainty(probability: jax.Array) -> jax.Array:
    """How unsure predictions [B, ..., K] are, in nats: less is better.

    Of one class an image, [B, K], it is minus the information between image and prediction (Krause
    et al. 2010; Liang et al. 2020, SHOT, eq. 3),

        mean over x of H(p(.|x)) - H(mean over x of p(.|x)),

    which is high where all images have one answer.  Of pixels it is their mean entropy alone: one
    image shows its classes in any shares.
    """

    def entropy(p):
        return -jnp.sum(p * jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny)), -1)

    mean = entropy(probability).mean()
    return mean - entropy(probability.mean(0)) if probability.ndim == 2 else mean


def adapted(
    parts: Parts,
    shared: Tree,
    unlabelled: Examples,
    key: jax.Array,
    m_E: jax.Array | None,
    steps: int,
) -> tuple[Tree, jax.Array]:
    """`Algorithm.adapt`: descent on an offset of the code, from 0, against `uncertainty`.

    A step goes along the gradient's direction, at first REACH far, at last hardly.
    Batch statistics follow the weights in every step.  The images that it is scored on must be
    others: else the score is transductive.
    """
    local = parts.local
    assert local.task.probability is not None
    m_E = own_descriptor(parts, shared, None, unlabelled, m_E)
    index_B = draw_indices(local.task, unlabelled, stream(key, 'adapt'), IMAGES, None)
    x_BxHxWx3 = images_of(jnp.asarray(unlabelled.image)[index_B])

    def model(offset_F):
        on = parts.hypernet.stranger_change
        params = generated(parts, shared, shared['normal'], m_E, on, offset_F)
        return finish(local, params, unlabelled, None, key, shared.get('statistics'))

    def objective(offset_F):
        outputs = local.model.apply(model(offset_F), x_BxHxWx3, train=False)
        return uncertainty(local.task.probability(outputs))

    def step(offset_F, reach):
        value, gradient_F = jax.value_and_grad(objective)(offset_F)
        norm = jnp.sqrt(jnp.sum(gradient_F**2) + 1e-24)
        return offset_F - reach * gradient_F / norm, value

    reach_T = REACH * (1 - jnp.arange(steps, dtype=jnp.float32) / max(steps, 1))
    offset_F, value_T = jax.lax.scan(step, jnp.zeros(parts.generator.code), reach_T)
    return model(offset_F), jnp.append(value_T, objective(offset_F))
