"""A client's local learning: the same for every algorithm of a comparison."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fedgen_jax.algorithms.draws import class_mix, class_shares, draw_indices, images_of, inputs_of
from fedgen_jax.data.examples import Examples
from fedgen_jax.models.layers import LAST_NORM, last_features, statistics_of
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.privacy import dpsgd
from fedgen_jax.random import stream
from fedgen_jax.shifts.base import Shift
from fedgen_jax.tasks.base import Task

Tree = Any

SAMPLE = 128  # images whose last features tell a client's statistics, once a round


class Steps(NamedTuple):
    """A center's own labelled learning, outside the rounds.

    optimizer: of `count` steps; its learning rate falls to zero over them.
    """

    count: int  # type: ignore[assignment]  # a tuple's own method has the name
    optimizer: optax.GradientTransformation


class Local(NamedTuple):
    """How a client learns: the same values for every algorithm of a comparison.

    plain:      augmentation, drawn anew for each image.
    shift:      acquisition shift, drawn once a step: its images play one virtual center.
    optimizer:  starts afresh each round.
    schedule:   round -> factor of the optimizer's steps, in that round.
    steps:      T, local steps a round.
    batch:      B, images a step.
    prevalence: class mix of a batch: 'natural', 'balanced', or 'mixed' (a random mix a step).
    weighting:  a client's weight in the sum: its 'examples', or 'uniform'.
    finetune:   the labelled fine-tuning of a finished model.
    alone:      learning from first weights, as without a federation.
    oracle:     the fitting of a part of the weights to an unseen center's labels, as a bound.
    statistics: whose batch statistics a finished model has: 'own' (those of the center's own
                unlabelled images), 'running' (the last round's mean over steps and clients, in
                `shared`; of local-only learning the client's), 'last' (own ones of the last
                features, `models.layers.last_norm`; of all others running ones), 'frozen'
                (`start`'s, which training uses too) or 'frozen+own' (the same in training; then own
                ones of the last features).
    mix:        class mix of the images that own statistics are of: 'natural', or 'balanced', as
                the model predicts it.
    prior:      whether the loss adds the log shares of the client's classes to the logits, so that
                what is learned is free of them (Menon et al. 2021, eq. 10).
    start:      variables to begin with, such as a pretrained network's; None: drawn.
    decay:      of weights: this times a kernel is added to its gradient, of all that learn.
    private:    how steps are private to a center's patients or images; None: they are not.
    """

    model: nn.Module
    task: Task
    image_size: int
    plain: Shift
    shift: Shift
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    steps: int
    batch: int
    prevalence: str
    weighting: str
    finetune: Steps
    alone: Steps
    oracle: Steps
    statistics: str = 'own'
    start: Tree = None
    mix: str = 'natural'
    prior: bool = False
    decay: float = 0.0
    private: dpsgd.Private | None = None

    @property
    def keeps_statistics(self) -> bool:
        """Whether `shared` holds those of training."""
        return self.statistics in ('running', 'last')

    @property
    def of_center(self) -> bool:
        """Whether the center's statistics normalize the last features in training too."""
        return getattr(self.model, 'last', 'none') == 'center' and not self.constant

    @property
    def constant(self) -> bool:
        """Whether training normalizes by `start`'s statistics."""
        return self.statistics in ('frozen', 'frozen+own')


# (params, batch, tau, key) -> ((loss, aux), gradient), of one step.
Gradient = Callable[[Tree, 'Batch', Tree, jax.Array], tuple[tuple[jax.Array, Tree], Tree]]

# (params, batch, tau, key) -> loss, of one patient's images in a private step.
Loss = Callable[[Tree, 'Batch', Tree, jax.Array], jax.Array]


class Batch(NamedTuple):
    """float32 images [B, H, W, 3] in [0, 1], their target and weights [B].

    last: the center's statistics of the last features, where these are what normalizes them.
    features: [B, F], what the model's frozen layers make of the images, where that is known.
    """

    image: jax.Array
    target: dict
    weight: jax.Array
    last: Tree = ()
    features: jax.Array | None = None

    @property
    def inputs(self) -> jax.Array:
        """What a model takes of it."""
        return self.image if self.features is None else self.features


def batch_at(local: Local, data: Examples, index_B: jax.Array, key: jax.Array, tau) -> Batch:
    """The examples at `index_B`, augmented one by one and moved to the virtual center `tau`."""
    image, target = images_of(data.image[index_B]), {k: v[index_B] for k, v in data.target.items()}

    def change(key, image, target):
        plain, shift = jax.random.split(key)
        image, target = local.plain.apply(local.plain.sample(plain), plain, image, target)
        return local.shift.apply(tau, shift, image, target)

    image, target = jax.vmap(change)(jax.random.split(key, len(index_B)), image, target)
    if local.prior:
        log_K = jnp.log(class_shares(local.task, data))
        target = {**target, 'log_prior': jnp.tile(log_K[None], (len(index_B), 1))}
    return Batch(image, target, data.weight[index_B])


def query_batch(local: Local, data: Examples, key: jax.Array) -> tuple[Batch, Tree]:
    """A step's batch and the shift it plays; every algorithm draws it from the same streams."""
    tau = local.shift.sample(stream(key, 'shift'))
    mix_K = class_mix(stream(key, 'prevalence'), local.prevalence, local.task.num_strata)
    index_B = draw_indices(local.task, data, stream(key, 'query'), local.batch, mix_K)
    return batch_at(local, data, index_B, stream(key, 'query_images'), tau), tau


def apply_model(
    local: Local, params: Tree, x_BxHxWx3: jax.Array, last: Tree = ()
) -> tuple[Any, Tree]:
    """Outputs as in training, and the batch's statistics ({} without batch normalization)."""
    if local.constant:
        variables = {'params': params, 'batch_stats': start_statistics(local)}
        return local.model.apply(variables, x_BxHxWx3, train=False), {}
    variables = training_variables(local, params)
    if last:
        variables['batch_stats'] = {**variables['batch_stats'], LAST_NORM: last}
    outputs, new = local.model.apply(variables, x_BxHxWx3, train=True, mutable=['batch_stats'])
    return outputs, new.get('batch_stats', {})


def training_variables(local: Local, params: Tree) -> dict:
    """Weights, and the statistics to start with, which some norms may keep."""
    return {
        'params': params, 'batch_stats': {} if local.start is None else start_statistics(local)
    }


def center_statistics(local: Local, params: Tree, data: Examples, key: jax.Array) -> Tree:
    """Statistics of the last features over a sample of a client's images, as they are.

    () where the features are not normalized, or each batch by itself.
    """
    if not local.of_center:
        return ()
    index = draw_indices(local.task, data, stream(key, 'stats'), SAMPLE, None)
    variables = training_variables(local, params)
    features = last_features(local.model, variables, inputs_of(data, index), True)[1]
    assert features is not None  # `of_center`
    return statistics_of(features)


def hold(params: Tree, frozen: Callable[[tuple[str, ...]], bool]) -> Tree:
    """The weights, with no gradient to those at frozen paths."""

    def of(path, x):
        return jax.lax.stop_gradient(x) if frozen(tuple(k.key for k in path)) else x

    return jax.tree_util.tree_map_with_path(of, params)


def init_model(local: Local, key: jax.Array) -> Tree:
    """The model's first weights."""
    return _init_variables(local, key)['params']


def init_statistics(local: Local, key: jax.Array) -> Tree:
    """{'statistics': first ones} where they are kept from training, else {}: for `shared`."""
    if not local.keeps_statistics:
        return {}
    return {'statistics': _init_variables(local, key).get('batch_stats', {})}


def _init_variables(local, key):
    shape = (1, local.image_size, local.image_size, 3)
    variables = local.model.init(stream(key, 'theta'), jnp.zeros(shape))
    return variables if local.start is None else {**variables, **local.start}


def start_statistics(local: Local) -> Tree:
    """The batch statistics that `Local.start` brings."""
    if local.start is None:
        raise ValueError("statistics='frozen': needs those of start.weights")
    return local.start.get('batch_stats', {})


def batch_loss(local: Local, params: Tree, batch: Batch) -> tuple[jax.Array, Tree]:
    """The task's loss on a batch, and its statistics where they are kept from training, else ()."""
    outputs, statistics = apply_model(local, params, batch.inputs, batch.last)
    loss = local.task.loss(outputs, batch.target, batch.weight)
    return loss, statistics if local.keeps_statistics else ()


def task_gradient(
    local: Local, frozen: Callable[[tuple[str, ...]], bool] | None = None
) -> Gradient:
    """The gradient of the task's loss on the batch; aux: the statistics of `batch_loss`.

    frozen: of a weight's path, whether it stays; None: as the model says (`models.roles`).
    """
    stays = frozen or frozen_of(local.model)

    def gradient(params, batch, tau, key):
        def loss(p):
            return batch_loss(local, hold(p, stays), batch)

        value, grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, decayed(local, grads, params, stays)

    return gradient


def decayed(
    local: Local, grads: Tree, params: Tree, frozen: Callable[[tuple[str, ...]], bool]
) -> Tree:
    """The gradient with that of `decay / 2` times the squares of kernels that are not frozen."""
    if not local.decay:
        return grads

    def of(path, g, x):
        names = tuple(k.key for k in path)
        return g + local.decay * x if names[-1] == 'kernel' and not frozen(names) else g

    return jax.tree_util.tree_map_with_path(of, grads, params)


def contribution_of(
    local: Local, data: Examples, new: Tree, old: Tree, statistics_T: Tree = ()
) -> dict[str, Tree]:
    """What `server_step` sums: {'weight', 'delta'}, and 'statistics' where they are kept."""
    return weighed(local, data, jax.tree.map(jnp.subtract, new, old), statistics_T)


def weighed(local: Local, data: Examples, delta: Tree, statistics_T: Tree = ()) -> dict[str, Tree]:
    """`contribution_of`, given the change."""
    weight = client_weight(local, data)
    contribution = {'weight': weight, 'delta': weigh(weight, delta)}
    if local.keeps_statistics:
        contribution['statistics'] = weigh(weight, mean_of_steps(statistics_T))
    return contribution


def mean_of_steps(aux_T: Tree) -> Tree:
    """The mean over steps of `Learned.aux_T`."""
    return jax.tree.map(lambda x_T: x_T.mean(0), aux_T)


def client_weight(local: Local, data: Examples) -> jax.Array:
    """A client's weight in the sum; padding clients weigh 0."""
    n = data.weight.sum()
    if local.weighting == 'examples':
        return n
    if local.weighting == 'uniform':
        return (n > 0).astype(jnp.float32)
    raise ValueError(f'weighting={local.weighting!r}: one of examples, uniform')


def weigh(weight: jax.Array, tree: Tree) -> Tree:
    """weight * tree, and exact zeros where the weight is 0, whatever the tree holds."""
    return jax.tree.map(lambda x: jnp.where(weight > 0, weight * x, 0), tree)

def if_real(data: Examples, new: Tree, old: Tree) -> Tree:
    """`new`, and of a client without examples the entries of `old`."""
    real = data.weight.sum() > 0
    return jax.tree.map(lambda a, b: jnp.where(real, a, b), new, {k: old[k] for k in new})
