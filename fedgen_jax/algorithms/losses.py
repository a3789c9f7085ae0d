"""A model's loss on a sample of a client's images, where a method compares models by it."""

import jax

from fedgen_jax.algorithms.draws import draw_indices
from fedgen_jax.algorithms.local import (
    SAMPLE,
    Batch,
    Local,
    Tree,
    batch_at,
    batch_loss,
    center_statistics,
)
from fedgen_jax.data.examples import Examples
from fedgen_jax.random import stream
from fedgen_jax.shifts.base import chain


def sample_of(local: Local, data: Examples, key: jax.Array) -> Batch:
    """At most 128 different images of a client as they are, without augmentation."""
    bare = local._replace(plain=chain(), shift=chain())
    index_B = draw_indices(local.task, data, stream(key, 'sample'), SAMPLE, None)
    batch = batch_at(bare, data, index_B, key, bare.shift.sample(key))
    return batch._replace(features=None if data.features is None else data.features[index_B])


def loss_on(
    local: Local, params: Tree, sample: Batch, data: Examples, key: jax.Array
) -> jax.Array:
    """The task's loss on it, with batch statistics of the sample, as in training."""
    last = center_statistics(local, params, data, key)
    return batch_loss(local, params, sample._replace(last=last))[0]
