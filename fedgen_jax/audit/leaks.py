"""What a contribution, a sum and a pool tell of a center's descriptor.

The generator's first layer, `embed`, is dense and has a bias, so a step's gradient of its kernel is
that of its bias times what went in: the center's normalized descriptor z.  Of T steps the ratio is
a mean of their inputs.  A sum over centers has each center's in the span of its rows.

    dL/dK = sum_t z_t g_t^T,    dL/db = sum_t g_t    (z_t [E], g_t [2 code])

References:
    Phong et al. 2018, Privacy-preserving deep learning via additively homomorphic encryption
    (section 3: the input of a dense layer from its gradients).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.data.examples import SPLITS, pad
from fedgen_jax.feed import training_examples
from fedgen_jax.hypernet.generator import Normal
from fedgen_jax.privacy.dpsgd import Own, Private
from fedgen_jax.program import make_algorithm, seen_size
from fedgen_jax.random import address
from fedgen_jax.registry import look_up
from fedgen_jax.run import Run, Trained

CLIP = 5  # of what the generator's first layer takes in (`hypernet.generator`)


class Leak(NamedTuple):
    """What a center sends: the change of the first layer, kernel [E, F] and bias [F].

    support: the mean descriptor [E] of its steps' supports.  read: its descriptor, which it sends
        for the pool.  None of a private center, which sends neither.
    """

    kernel: np.ndarray
    bias: np.ndarray
    support: np.ndarray | None = None
    read: np.ndarray | None = None


def z_of(m_E: np.ndarray, normal: Normal) -> np.ndarray:
    """A descriptor as the generator's first layer takes it in."""
    z_E = (m_E - np.asarray(normal.mean)) / np.sqrt(np.asarray(normal.var) + 1e-4)
    return np.clip(z_E, -CLIP, CLIP).astype(np.float64)


def ratio(leak: Leak) -> np.ndarray:
    """z [E], of one step exactly: the kernel's change over the bias', most of all where it is big.

    0 where nothing was sent.
    """
    size = float(leak.bias @ leak.bias)
    return leak.kernel @ leak.bias / size if size else 0 * leak.kernel[:, 0]


def span_share(kernel_ExF: np.ndarray, z_E: np.ndarray, rank: int) -> float:
    """The share of |z|^2 that lies in the span of the `rank` strongest directions of a change."""
    u_ExF, strength, _ = np.linalg.svd(kernel_ExF, full_matrices=False)
    rank = min(rank, int((strength > 1e-6 * strength[:1]).sum()))
    return float(np.sum((u_ExF[:, :rank].T @ z_E) ** 2) / np.sum(z_E**2))


def error(found_E: np.ndarray, true_E: np.ndarray) -> float:
    """The relative error of a vector."""
    return float(np.linalg.norm(found_E - true_E) / np.linalg.norm(true_E))


def nearest(found_E: np.ndarray, known: Sequence[np.ndarray]) -> int:
    """Which of the known descriptors points the same way most."""
    return int(np.argmax([found_E @ x / (np.linalg.norm(x) + 1e-12) for x in known]))


def contributions(
    run: Run, trained: Trained, changes: dict[str, Any], own_C: Sequence[Own] | None = None,
    private: Private | None = None,
) -> list[Leak]:
    """What each seen center would send, were there another round at the rate of the middle one.

    changes: of the run's configuration.
    own_C: what private steps need, of a private run.  private: how they are private; None: as the
        configuration says.
    """
    c = ConfigDict(run.config.to_dict())
    c.update_from_flattened_dict(changes)
    count = len(run.seen)
    algorithm, local = make_algorithm(c, seen_size(c), run.classes, count)
    if private:
        local = local._replace(private=private)
        algorithm = look_up('algorithm', c.algorithm, ALGORITHMS).build(c, local, count)
    shared = {**trained.shared, 'round': np.int32(c.rounds // 2)}

    @jax.jit
    def update(state, data, key):
        """Only what the attack reads: the rest of the message is not computed."""
        sent = algorithm.client_update(shared, state, data, key)[0]
        sent = sent.get('generator', sent)
        means = ()
        if 'statistic' in sent:
            s = sent['statistic']
            means = sent['episodes']['first'] / sent['weight'], s['total'] / s['count']
        return sent['delta']['phi']['embed'], means

    def leak(i):
        data = pad(training_examples(run, i), length)
        data = data._replace(own=own_C[i]) if own_C else data
        state = jax.tree.map(lambda x: x[i], trained.private_C)
        key = address(run.key, 'client', shared['round'], np.int32(i))
        embed, means = jax.device_get(update(state, data, key))
        return Leak(*(np.asarray(embed[k], np.float64) for k in ('kernel', 'bias')), *means)

    length = max(int((c.split == SPLITS.index('train')).sum()) for c in run.seen)
    return [leak(i) for i in range(count)]
