"""Steps at a new center, without a label: to where its model is surer of the center's images.

What moves is small: the code of a generator, a few dozen numbers from which all that it changes
follows; or scale and bias of normalizations, as in Tent (Wang et al. 2021) and SHOT (Liang et al.
2020), which any algorithm has.  Everything else that the centers share is held still.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.base import Algorithm, Tree
from fedgen_jax.algorithms.draws import draw_indices, images_of
from fedgen_jax.algorithms.episodes import Parts, generated, own_descriptor
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import Local
from fedgen_jax.data.examples import Examples
from fedgen_jax.models.roles import roles_of
from fedgen_jax.random import stream

IMAGES = 256  # that the objective is of, at most, as batch statistics are
WHAT = ('code', 'norms', 'features')
ROLES = {'code': ('norm',), 'norms': ('norm',), 'features': ('features',)}  # without a generator


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


def descent(
    local: Local,
    make: Callable[[Tree], Tree],
    begin: Tree,
    unlabelled: Examples,
    key: jax.Array,
    steps: int,
    reach: float,
) -> tuple[Tree, jax.Array]:
    """Steps from `begin` against the `uncertainty` of the model `make(offset)`.

    A step goes along the gradient's direction, at first `reach` far, at last hardly.  Batch
    statistics follow the weights in every step, where `make` takes them.  Returns the model's
    variables, and the objective [steps + 1] before each step and after the last.

    The images that the model is scored on must be others: else the score is transductive.
    """
    probability = local.task.probability
    assert probability is not None
    index_B = draw_indices(local.task, unlabelled, stream(key, 'adapt'), IMAGES, None)
    x_BxHxWx3 = images_of(jnp.asarray(unlabelled.image)[index_B])

    def objective(offset):
        return uncertainty(probability(local.model.apply(make(offset), x_BxHxWx3, train=False)))

    def step(offset, reach):
        value, gradient = jax.value_and_grad(objective)(offset)
        squares = sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
        length = reach / jnp.sqrt(squares + 1e-24)
        return jax.tree.map(lambda z, g: z - length * g, offset, gradient), value

    reach_T = reach * (1 - jnp.arange(steps, dtype=jnp.float32) / max(steps, 1))
    offset, value_T = jax.lax.scan(step, begin, reach_T)
    return make(offset), jnp.append(value_T, objective(offset))


def code_adapted(
    parts: Parts,
    shared: Tree,
    unlabelled: Examples,
    key: jax.Array,
    m_E: jax.Array | None,
    steps: int,
    reach: float,
) -> tuple[Tree, jax.Array]:
    """`Algorithm.adapt`: `descent` on an offset of the code."""
    m_E = own_descriptor(parts, shared, None, unlabelled, m_E)

    def model(offset_F):
        on = parts.hypernet.stranger_change
        params = generated(parts, shared, shared['normal'], m_E, on, offset_F)
        return finish(parts.local, params, unlabelled, None, key, shared.get('statistics'))

    begin = jnp.zeros(parts.generator.code)
    return descent(parts.local, model, begin, unlabelled, key, steps, reach)


def weights_adapted(
    algorithm: Algorithm,
    local: Local,
    roles: tuple[str, ...],
    shared: Tree,
    unlabelled: Examples,
    key: jax.Array,
    m_E: jax.Array | None,
    steps: int,
    reach: float,
) -> tuple[Tree, jax.Array]:
    """`descent` on the weights of these roles (`models.roles`), from a stranger's model."""
    whole = algorithm.personalize(shared, None, unlabelled, None, key, m_E)
    params, statistics = whole['params'], whole.get('batch_stats')
    role_of = roles_of(local.model)
    leaves, form = jax.tree_util.tree_flatten_with_path(params)
    moves = {
        path for path, _ in leaves if role_of(tuple(k.key for k in path)) in roles  # type: ignore
    }
    if not moves:
        raise ValueError(
            f"adapt.what: the model has no weight of role {' or '.join(roles)}: another of "
            f'{", ".join(WHAT)}'
        )

    def model(offset):
        moved = [x + offset[str(path)] if path in moves else x for path, x in leaves]
        new = jax.tree_util.tree_unflatten(form, moved)
        return finish(local, new, unlabelled, None, key, statistics)

    begin = {str(path): jnp.zeros_like(x) for path, x in leaves if path in moves}
    return descent(local, model, begin, unlabelled, key, steps, reach)
