"""Steps at a new center, without a label: to where its model is surer of the center's images.

What moves is small: the code of a generator, a few dozen numbers from which all that it changes
follows; or scale and bias of normalizations, as in Tent (Wang et al. 2021) and SHOT (Liang et al.
2020), which any algorithm has.  Everything else that the centers share is held still.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedgen_jax.algorithms.base import Algorithm, Tree
from fedgen_jax.algorithms.draws import draw_indices, images_of, inputs_of
from fedgen_jax.algorithms.episodes import Hypernet, Parts, generated, own_descriptor
from fedgen_jax.algorithms.finish import finish, statistics_under
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
    mean = entropy(probability).mean()
    return mean - entropy(probability.mean(0)) if probability.ndim == 2 else mean


def entropy(probability: jax.Array) -> jax.Array:
    """Of probabilities [..., K], in nats, [...]."""
    tiny = jnp.finfo(probability.dtype).tiny
    return -jnp.sum(probability * jnp.log(jnp.maximum(probability, tiny)), -1)


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
    x = inputs_of(unlabelled, index_B)

    def objective(offset):
        return uncertainty(probability(local.model.apply(make(offset), x, train=False)))

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
    end: Callable[..., Tree],
    shared: Tree,
    unlabelled: Examples,
    key: jax.Array,
    m_E: jax.Array | None,
    steps: int,
    reach: float,
) -> tuple[Tree, jax.Array]:
    """`Algorithm.adapt`: `descent` on an offset of the code.  end: as of `fedgen.personalize`."""
    check_code(parts.hypernet)
    m_E = own_descriptor(parts, shared, None, unlabelled, m_E)

    def model(offset_F):
        on = parts.hypernet.stranger_change
        params = generated(parts, shared, shared['normal'], m_E, on, offset_F)
        return end(shared, None, params, unlabelled, None, key)

    begin = jnp.zeros(parts.generator.code)
    return descent(parts.local, model, begin, unlabelled, key, steps, reach)


def check_code(hypernet: Hypernet) -> None:
    """Raises ValueError where the code changes nothing at a stranger."""
    if not hypernet.stranger_change:
        raise ValueError(
            'adapt.what=code: a new center takes no generated change (fedgen.stranger_change=0): '
            'pass --config.adapt.what=norms'
        )


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
    variables = algorithm.personalize(shared, None, unlabelled, None, key, m_E)
    if set(variables) - {'params', 'batch_stats'}:
        raise ValueError(f"adapt.steps: what {algorithm.title}'s models have beside weights would "
                         'be lost: 0')
    params, statistics = variables['params'], variables.get('batch_stats')
    role_of = roles_of(local.model)
    moving, whole = parted(params, lambda path: role_of(path) in roles)
    if not moving:
        raise ValueError(
            f"adapt.what: the model has no weight of role {' or '.join(roles)}: another of "
            f'{", ".join(WHAT)}'
        )

    def model(offset):
        new = whole({k: x + offset[k] for k, x in moving.items()})
        return finish(local, new, unlabelled, None, key, statistics)

    begin = {k: jnp.zeros_like(x) for k, x in moving.items()}
    return descent(local, model, begin, unlabelled, key, steps, reach)


def parted(
    params: Tree, moves: Callable[[tuple[str, ...]], bool]
) -> tuple[dict[str, jax.Array], Callable[[dict[str, jax.Array]], Tree]]:
    """(the weights at paths that move, by name; from such as these, all weights)."""
    leaves, form = jax.tree_util.tree_flatten_with_path(params)
    moving = {str(path): x for path, x in leaves if moves(tuple(k.key for k in path))}

    def whole(moved):
        return jax.tree_util.tree_unflatten(form, [moved.get(str(path), x) for path, x in leaves])

    return moving, whole


def minimized(
    local: Local,
    params: Tree,
    moves: Callable[[tuple[str, ...]], bool],
    objective: Callable[[jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    unlabelled: Examples,
    key: jax.Array,
    statistics: Tree = None,
) -> Tree:
    """The weights after steps on unlabelled images, each on a batch of them that is drawn anew.

    objective: of the batch's probabilities.  The images are as they are, not augmented, and in each
    step the model has the batch statistics that it would have were its batch all images
    (`finish.statistics_under`), through which the gradient goes.
    """
    probability = local.task.probability
    assert probability is not None
    moving, whole = parted(params, moves)

    def loss(moving, x_BxHxWx3):
        new = whole(moving)
        found = statistics_under(local, new, x_BxHxWx3, statistics)
        variables = {'params': new, 'batch_stats': found}
        return objective(probability(local.model.apply(variables, x_BxHxWx3, train=False)))

    def step(carry, t):
        moving, state = carry
        key_t = jax.random.fold_in(stream(key, 'minimized'), t)
        index_B = draw_indices(local.task, unlabelled, key_t, batch, None)
        grads = jax.grad(loss)(moving, images_of(jnp.asarray(unlabelled.image)[index_B]))
        with jax.numpy_dtype_promotion('standard'):  # Adam raises floats to whole powers
            updates, state = optimizer.update(grads, state, moving)
        return (optax.apply_updates(moving, updates), state), None

    (moving, _), _ = jax.lax.scan(step, (moving, optimizer.init(moving)), jnp.arange(steps))
    return whole(moving)
