"""The linear head of a classifier: what it reads, and others in its place."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.local import Local, Tree, init_model
from fedgen_jax.models.representation import with_representation
from fedgen_jax.models.roles import roles_of

AT_ONCE = 128  # images of a pass


class Head(NamedTuple):
    """Where a model's head is.

    module:  the path of its layer.
    inputs:  I, features that it reads; outputs: K, classes.
    """

    module: tuple[str, ...]
    inputs: int
    outputs: int

    def weights(self, params: Tree) -> tuple[jax.Array, jax.Array]:
        """(kernel [I, K], bias [K])."""
        for name in self.module:
            params = params[name]
        return params['kernel'], params.get('bias', jnp.zeros(self.outputs))

    def put(self, params: Tree, kernel_IxK: jax.Array, bias_K: jax.Array) -> Tree:
        """The weights, with these in the head's place."""

        def of(tree, module):
            if not module:
                return {'kernel': kernel_IxK, 'bias': bias_K}
            return {**tree, module[0]: of(tree[module[0]], module[1:])}

        return of(params, self.module)


def head_of(name: str, local: Local) -> Head:
    """The head of a classifier of one class an image.

    Raises ValueError, which begins with the algorithm's `name`, where there is none of a kernel
    [I, K] with a bias.
    """
    if local.task.target != 'label':
        raise ValueError(f'algorithm={name!r}: task={local.task.name!r}: it is of one class an '
                         'image: classification')
    shapes = jax.eval_shape(lambda key: init_model(local, key), jax.random.key(0))
    role_of = roles_of(local.model)
    leaves = [
        (tuple(k.key for k in path), x)  # type: ignore
        for path, x in jax.tree_util.tree_flatten_with_path(shapes)[0]
    ]
    found = {path: x for path, x in leaves if role_of(path) == 'head'}
    kernels = [path for path, x in found.items() if path[-1] == 'kernel' and x.ndim == 2]
    if len(kernels) != 1 or set(found) != {kernels[0], (*kernels[0][:-1], 'bias')}:
        raise ValueError(f'algorithm={name!r}: model.name: its weights of role head are no one '
                         'kernel [I, K] with a bias: another model')
    return Head(kernels[0][:-1], *found[kernels[0]].shape)


def read_by(model: nn.Module, variables: Tree, x_BxHxWx3: jax.Array) -> jax.Array:
    """What the head reads of images, as a finished model has it: float32 [B, I]."""

    def apply():
        return model.apply(variables, x_BxHxWx3, train=False)

    return with_representation(model, variables['params'], apply)[1].astype(jnp.float32)


def features_of(model: nn.Module, variables: Tree, image_NxHxWx3: jax.Array) -> jax.Array:
    """`read_by` of any number of uint8 images, some at once: [N, I]."""

    def one(image_HxWx3):
        return read_by(model, variables, images_of(image_HxWx3)[None])[0]

    return jax.lax.map(one, jnp.asarray(image_NxHxWx3), batch_size=AT_ONCE)
