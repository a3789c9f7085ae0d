"""What leaves before noise: neighbors lie no farther apart than the ledger is told.

A neighbor has one patient's images replaced by nothing, and the same randomness.  Each release is
measured on 20 random neighbors, and on one that is crafted to be as far as may be, which must come
near the declared bound: else the bound is too loose or the measure does not see the release.
Without the clip the crafted one is beyond it.

References:
    Cebere et al. 2026, arXiv:2602.17454 (recording a mechanism's inputs to its noise).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import centers
from families import KEY, configured

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.local import init_model
from fedgen_jax.budget import moments_size
from fedgen_jax.canonical.base import moments
from fedgen_jax.canonical.brightfield import brightfield
from fedgen_jax.data import synthetic
from fedgen_jax.privacy.base import Message
from fedgen_jax.privacy.clients import (
    begin,
    client_level,
    deviation_of_share,
    sigma_beside_share,
)
from fedgen_jax.privacy.dpsgd import Own, Private, clipped_sum, trainable_of
from fedgen_jax.privacy.release import exact_total, sensitivity_of
from fedgen_jax.privacy.units import patient_table
from fedgen_jax.program import make_algorithm

pytest.importorskip('jax_privacy', reason='the extra `privacy`')

RNG = np.random.default_rng(0)
UNIT = [f'{i // 3}' for i in range(30)] + ['many'] * 7  # ten patients of three, one of seven
INDEX, REAL = patient_table(UNIT, 8)
MANY = len(REAL) - 1


def without(patient):
    """The table with a patient's images replaced by nothing; his row stays."""
    real = REAL.copy()
    real[patient] = 0
    return INDEX, real


def distances(release):
    """To 20 random neighbors, then to the one without the patient of seven images."""
    whole = release((INDEX, REAL))
    patients = [*RNG.integers(0, len(REAL), 20), MANY]
    return [float(np.linalg.norm(whole - release(without(p)))) for p in patients]


def check(release, declared, unbounded):
    found = distances(release)
    assert max(found) <= declared * (1 + 1e-6)
    assert found[-1] >= 0.9 * declared
    assert max(distances(unbounded)) > 1.5 * declared


def test_a_descriptor():
    """Of the patient of seven, all images lie far off in one direction."""
    size, radius = 111, 0.1
    center = RNG.normal(size=size) * 0.03
    vectors = center + RNG.normal(size=(len(UNIT), size)) * 0.005
    vectors[30:] += 0.5 * np.eye(size)[3]

    def release(table, radius=radius):
        return exact_total(vectors, table, center, radius).astype(np.float64)

    check(release, sensitivity_of(radius, size), lambda table: release(table, 1.9))


@pytest.mark.extended
def test_the_moments_of_canonical_input():
    """Of real drawn cells, and of a patient whose seven images are white."""
    drawn = next(iter(centers(1, len(UNIT), 16))).examples
    image, radius = np.array(drawn.image), 0.2
    image[30:] = 255
    canonical = brightfield(0.25)
    vectors = np.asarray(moments(canonical, jnp.asarray(image)))
    mu = vectors[:30].mean(0)

    def release(table, radius=radius):
        return exact_total(vectors, table, mu, radius).astype(np.float64)

    c = configured({'input.canonical': 'brightfield', 'input.area': 0.25})
    assert vectors.shape[1] == moments_size(c)
    check(release, sensitivity_of(radius, vectors.shape[1]), lambda table: release(table, 1.9))


def test_a_clients_contribution_and_whether_it_lay_within_the_clip():
    """Both are one release, which costs as the contributions alone at the stated noise."""
    sigma, expected, clip = 1.3, 30.0, 0.5
    part = client_level(clip, adaptive=True)
    state = begin(part.init(), sigma, expected, bytes(32))

    def release(clients, limit=clip):
        """In standard deviations of the noise that each number gets."""
        sum_, within = np.zeros(5), 0.0
        for x in clients:
            message = Message({'delta': jnp.asarray(x, jnp.float32), 'weight': jnp.float32(1)}, {})
            own = part.client({**state, 'clip': jnp.float32(limit)}, message, KEY, 0, None)
            sum_ += np.asarray(own.contribution['sent']['delta'], np.float64)
            within += float(own.contribution['within'])
        noise = float(sigma_beside_share(sigma, expected)) * clip
        return np.append(sum_ / noise, within / deviation_of_share(expected))

    clients = [*RNG.normal(size=(20, 5)) * RNG.uniform(0.01, 1, (20, 1)), 9 * np.ones(5)]
    whole, loose = release(clients), release(clients, 100.0)
    found, unbounded = [], []
    for i in range(len(clients)):  # without one of them
        rest = clients[:i] + clients[i + 1:]
        found.append(np.linalg.norm(whole - release(rest)))
        unbounded.append(np.linalg.norm(loose - release(rest, 100.0)))
    declared = 1 / sigma
    assert max(found) <= declared * (1 + 1e-5)
    assert found[-1] >= 0.9 * declared and max(unbounded) > 1.5 * declared


@pytest.fixture(scope='module')
def steps():
    """A private step's sum before noise, on drawn cells, of a table, with or without the clip."""
    c = configured({})
    local = make_algorithm(c, 16, synthetic.CLASSES, 1)[1]
    params = init_model(local, KEY)
    drawn = next(iter(centers(1, len(UNIT), 16))).examples
    image = jnp.asarray(drawn.image)
    label = jnp.asarray(drawn.target['label'])

    def loss(params, index_G, real_G, key):
        logits = local.model.apply({'params': params}, images_of(image[index_G]), train=True)
        return local.task.loss(logits, {'label': label[index_G]}, real_G)

    @jax.jit
    def run(index, real, key, bounded):
        own = Own(index, real, jnp.float32(len(REAL)), jnp.zeros(2, jnp.uint32), jnp.float32(1))

        def of(clip):
            private = Private(clip, 0.9, trainable_of(local.model, 'all'))
            total = clipped_sum(private, loss, params, own, key, key)
            return jnp.concatenate([total[k].ravel() for k in sorted(total)])

        return jax.lax.cond(bounded, lambda: of(0.05), lambda: of(math.inf))

    def release(table, bounded=True, draw=1):
        return np.asarray(run(*table, jax.random.key(draw), bounded), np.float64)

    return release


def test_a_private_step(steps):
    """A patient of seven images moves the sum by the clip, whoever else was sampled."""
    check(steps, 0.05, lambda table: steps(table, bounded=False))


def test_who_is_sampled_does_not_depend_on_others_images(steps):
    """Where the patient is not in the sample, leaving changes nothing at all."""
    moved = []
    for draw in range(12):
        gap = steps((INDEX, REAL), draw=draw) - steps(without(MANY), draw=draw)
        moved.append(float(np.linalg.norm(gap)))
    # At rate .9: exact zeros where he is not sampled, and the whole clip where he is.
    assert {round(x / 0.05, 1) for x in moved} <= {0.0, 1.0}
