"""What becomes of a model after the rounds, at one center: statistics, and its own learning."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.draws import draw_indices, inputs_of
from fedgen_jax.algorithms.learning import Learning, learn
from fedgen_jax.algorithms.local import (
    Local,
    Steps,
    Tree,
    init_model,
    mean_of_steps,
    start_statistics,
    training_variables,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.models.layers import LAST_NORM, last_features, statistics_of
from fedgen_jax.models.roles import roles_of
from fedgen_jax.random import stream
from fedgen_jax.shifts.base import chain


def finish(
    local: Local,
    params: Tree,
    unlabelled: Examples,
    labelled: Examples | None,
    key: jax.Array,
    statistics: Tree = None,
) -> Tree:
    """Variables of a finished model: fine-tuned, given labels, and with its statistics.

    statistics: those that training kept, where `Local.statistics` is 'running'; fine-tuning keeps
        its own.

    By default, batch normalization's statistics are those of the client's own unlabelled images
    under the finished weights (AdaBN, Li et al. 2018): they never leave the client, and an unseen
    client has them as a seen one does.
    """
    if labelled is not None:
        params, statistics = learn_alone(
            local, params, labelled, stream(key, 'finetune'), local.finetune
        )
    found = own_statistics(local, params, unlabelled, key, statistics)
    return {'params': params, 'batch_stats': found}


def own_statistics(local: Local, params, unlabelled: Examples, key, statistics: Tree) -> Tree:
    """A finished model's batch statistics, by a draw of a center's unlabelled images.

    With `Local.mix` 'balanced' they are taken twice: the second time of images drawn so that the
    classes that the first ones answer are equally likely.  Of fewer than 256 images some count once
    more than others.
    """
    index_B = draw_indices(local.task, unlabelled, stream(key, 'stats'), 256, None)

    def of(index_B):
        x = inputs_of(unlabelled, index_B)
        return x, statistics_under(local, params, x, statistics)

    x, found = of(index_B)
    of_images = local.statistics not in ('running', 'frozen')
    if local.mix == 'natural' or not (of_images and jax.tree.leaves(found)):
        return found
    variables = {'params': params, 'batch_stats': found}
    outputs: Any = local.model.apply(variables, x, train=False)
    probability_BxK = local.task.predict(outputs).get('probability')
    if probability_BxK is None:
        return found
    answer_B = probability_BxK.argmax(-1)
    weight_B = 1 / jnp.bincount(answer_B, length=probability_BxK.shape[-1])[answer_B]
    again = jax.random.categorical(stream(key, 'mix'), jnp.log(weight_B), shape=weight_B.shape)
    return of(index_B[again])[1]


def statistics_under(
    local: Local, params: Tree, x_BxHxWx3: jax.Array, statistics: Tree = None
) -> Tree:
    """The batch statistics that a finished model would have, were these a center's images.

    statistics: as in `finish`.
    """
    if local.statistics == 'running':
        return statistics
    if local.statistics == 'frozen':
        return start_statistics(local)
    if local.statistics == 'frozen+own':
        statistics = start_statistics(local)
    if local.statistics in ('last', 'frozen+own'):
        return last_statistics(local, params, x_BxHxWx3, statistics)
    variables = training_variables(local, params)
    new, features = last_features(local.model, variables, x_BxHxWx3, True)
    if not local.of_center:
        return new
    assert features is not None
    return {**new, LAST_NORM: statistics_of(features)}


def last_statistics(local: Local, params: Tree, x_BxHxWx3: jax.Array, statistics: Tree) -> Tree:
    """`statistics`, with those of the last features taken from a batch of images."""
    variables = {'params': params, 'batch_stats': statistics}
    _, features = last_features(local.model, variables, x_BxHxWx3, False)
    if features is None:
        raise ValueError(
            "statistics='last': the model has no statistics of its last features: pass "
            "--config.model.last=batch"
        )
    return {**statistics, LAST_NORM: statistics_of(features)}


def learn_alone(
    local: Local,
    params: Tree,
    labelled: Examples,
    key: jax.Array,
    steps: Steps,
    roles: Collection[str] | None = None,
) -> tuple[Tree, Tree]:
    """A center's own labelled learning, on unshifted images: (weights, the last steps' statistics).

    roles: of the weights that learn, be they frozen otherwise (`models.roles`); None: all that
        training moves.
    """
    own = local._replace(shift=chain(), optimizer=steps.optimizer, steps=steps.count)
    role_of = roles_of(local.model)
    stays = None if roles is None else lambda path: role_of(path) not in roles
    done = learn(Learning(own, params, 1.0, stays=stays), labelled, key)
    return done.params, mean_of_steps(jax.tree.map(lambda x_T: x_T[-10:], done.aux_T))


def fitted(
    local: Local,
    params: Tree,
    unlabelled: Examples,
    labelled: Examples,
    key: jax.Array,
    roles: Collection[str],
) -> Tree:
    """Variables of a model whose weights of some roles are fitted to labelled examples."""
    key_fit = stream(key, 'oracle')
    params, statistics = learn_alone(local, params, labelled, key_fit, local.oracle, roles)
    return finish(local, params, unlabelled, None, key, statistics)


def alone(local: Local, unlabelled: Examples, labelled: Examples, key: jax.Array) -> Tree:
    """Variables of the model that a center learns without the others, from first weights."""
    first = init_model(local, key)
    params, statistics = learn_alone(local, first, labelled, stream(key, 'alone'), local.alone)
    return finish(local, params, unlabelled, None, key, statistics)
