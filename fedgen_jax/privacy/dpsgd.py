"""DP-SGD inside a center: a patient's gradient is clipped, and the sum of a sample gets noise.

A step on weights w, with q and n public, sigma and C of the ledger's charge:

    g = (sum over a Poisson sample of patients of clip_C(grad of the mean loss of his images)
         + N(0, sigma^2 C^2)) / (q n)

Only a part of the weights learns (`trainable_of`): noise grows with their number, and what starts
from public weights needs few of them.  The full noise is added at each center, in every step, so
that whatever leaves it afterwards is post-processing: no center relies on the others or the server.

The sample and the noise are drawn from the center's secret with JAX's threefry in float32, which
is no vetted generator for secrets (`privacy.noise` is used where noise is added on the host).

References:
    Abadi et al. 2016, Deep learning with differential privacy (algorithm 1); Levy et al. 2021,
    Learning with user-level privacy; De et al. 2022, Unlocking high-accuracy differentially
    private image classification through scale (averaging a gradient over augmentations).
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.models.roles import frozen_of, roles_of
from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.units import cap_of, poisson
from fedgen_jax.random import stream
from fedgen_jax.registry import choose

Tree = Any
ADAPTERS = ('input', 'norm', 'features', 'head')  # roles that learn with trainable='adapters'
OF_BASE = ('base', 'head')  # with which the generator stays as the public run left it


class Private(NamedTuple):
    """How a center's steps are private; all of it is public.

    clip:         C, the largest norm of a patient's gradient; infinity: no clip, and no noise.
    rate:         q, the chance of a patient to be in a step's sample.
    trainable:    of a weight's path, whether it learns; all others stay.
    multiplicity: augmentations of each image in a step, of which the mean gradient is taken.
    microbatch:   patients at once, at most: as many as divide the sample's room.  A few at a time
                  take up to twice as long (`benchmarks/private.py`).
    name:         of the mechanism: two that run in the same round draw apart.
    """

    clip: float
    rate: float
    trainable: Callable[[tuple[str, ...]], bool]
    multiplicity: int = 1
    microbatch: int = 64
    name: str = 'training'


class Own(NamedTuple):
    """What a center's steps need and no other has; leaves may lead with C.

    index, real: int32 and float32 [P, G], the patients' images (`units.patient_table`).
    units:       n, how many patients there are, which is public.
    secret:      uint32 [2], what sample and noise are drawn from.
    sigma:       the noise multiplier.
    m:           float32 [E], the center's released descriptor; () where none is used.
    """

    index: Any
    real: Any
    units: Any
    secret: Any
    sigma: Any
    m: Any = ()


def trainable_of(model: nn.Module, which: str) -> Callable[[tuple[str, ...]], bool]:
    """`Private.trainable` of 'all' weights; of 'adapters': input, norms and the last layer; of
    'base': the same, and no generator; or of the 'head', the last layer alone.

    Of a generator's groups ('theta', 'phi', 'psi') phi learns as a whole, and psi never: what it
    makes of images has been released; with 'base' and 'head', phi does not either.
    """
    choose('privacy.trainable', which, ('all', 'adapters', 'base', 'head'))
    role_of, frozen = roles_of(model), frozen_of(model)

    def learns(path):
        if path[0] in ('phi', 'psi'):
            return path[0] == 'phi' and which not in OF_BASE
        own = path[1:] if path[0] == 'theta' else path
        roles = ('head',) if which == 'head' else ADAPTERS
        return not frozen(own) and (which == 'all' or role_of(own) in roles)

    return learns


def gradient(
    private: Private,
    loss: Callable[[Tree, jax.Array, jax.Array, jax.Array], jax.Array],
    weights: Tree,
    own: Own,
    key: jax.Array,
) -> Tree:
    """The gradient of a step, with noise; exact zeros where nothing learns.

    loss: (weights, index int32 [G], real float32 [G], key) -> a patient's mean loss.
    key:  the step's, which may be known to all.
    """
    hidden = _hidden(own.secret, private.name, key)
    total = clipped_sum(private, loss, weights, own, stream(hidden, 'sample'), key)
    expected = jnp.maximum(private.rate * own.units, 1e-6)  # 0 units: a padding client
    noise = stream(hidden, 'noise')
    names = sorted(total)
    with_noise = {
        name: (
            total[name]
            + _scale(private, own.sigma) * jax.random.normal(
                jax.random.fold_in(noise, i), total[name].shape
            )
        ) / expected
        for i, name in enumerate(names)
    }

    def of(path, x):
        return with_noise.get(_name(path), jnp.zeros_like(x))

    return jax.tree_util.tree_map_with_path(of, weights)


def clipped_sum(
    private: Private, loss: Callable, weights: Tree, own: Own, sample: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    """{path: the sampled patients' sum of clipped gradients}, of the weights that learn.

    This is what noise is added to; its sensitivity is `Private.clip`.
    """
    clipped_grad = extra('jax_privacy', 'privacy.unit').clipped_grad
    num_units = own.real.shape[0]
    cap = cap_of(num_units, private.rate)
    # A patient without images is nowhere: the sample has no place for him.
    index, empty = poisson(sample, own.real.sum(1), private.rate, cap)
    named = {_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(weights)}
    learning = {k: x for k, x in named.items() if private.trainable(tuple(k.split('/')))}
    if not learning:
        raise ValueError('privacy.trainable: selects no weight')

    def of_patient(some, index_G, real_G, number):
        def of(path, x):
            return some.get(_name(path), x)

        every = jax.tree_util.tree_map_with_path(of, weights)
        # The draw is the patient's own, whoever else is in the sample.
        return loss(every, index_G, real_G, jax.random.fold_in(key, number))

    grad = clipped_grad(
        of_patient,
        l2_clip_norm=private.clip,
        batch_argnums=(1, 2, 3),
        keep_batch_dim=False,
        microbatch_size=max(n for n in range(1, private.microbatch + 1) if cap % n == 0),
    )
    sampled = own.index[index], own.real[index], index
    # The package counts on implicit promotion, and on a name that optax is to drop.
    with (
        jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings('ignore', 'optax.global_norm', DeprecationWarning)
        return grad(learning, *sampled, is_padding_example=empty)


def _scale(private, sigma):
    return jnp.float32(0) if math.isinf(private.clip) else sigma * private.clip


def _name(path):
    return '/'.join(k.key for k in path)


def _hidden(secret, name, key):
    """A key that only who has the secret can draw, of its own for each public key and name."""
    hidden = stream(jax.random.wrap_key_data(secret), name)
    for word in jax.random.key_data(key):
        hidden = jax.random.fold_in(hidden, word)
    return hidden
