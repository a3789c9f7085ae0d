"""The descriptor network: bounded, blind to order and padding, and it sees the acquisition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.data import synthetic
from fedgen_jax.data.source import load
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.hypernet import descriptor as d
from fedgen_jax.shifts import PRESETS, apply_batch

SIZE = 24


@pytest.fixture(scope='module')
def psi():
    return jax.jit(d.Descriptor().init)(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))['params']


@pytest.fixture(scope='module')
def describe():
    """(psi, float images of any number) -> vectors, in chunks of one shape."""
    fn = jax.jit(lambda psi, x: d.Descriptor().apply({'params': psi}, x))
    return lambda psi, x: in_chunks(fn, psi, np.asarray(x, np.float32))


@pytest.fixture(scope='module', params=['drawn', pytest.param('real', marks=pytest.mark.real)])
def centers(request, tmp_path_factory):
    """100 images of each center, [100, H, W, 3] in [0, 1]."""
    rng = np.random.default_rng(0)
    if request.param == 'drawn':
        found = synthetic.centers(5, 100, SIZE, seed=0, spread=2.0)
    else:
        root = request.getfixturevalue('data_root') / 'wbc_cls'
        found = load(root, SIZE, 0, tmp_path_factory.getbasetemp() / 'store').centers
    return {
        c.name: c.examples.image[rng.permutation(len(c.split))[:100]].astype(np.float32) / 255
        for c in found
    }


def extreme_images():
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    noise = np.random.default_rng(1).integers(0, 2, (SIZE, SIZE, 3))
    flat = [np.full((SIZE, SIZE, 3), v) for v in (0.0, 0.5, 1.0)]
    gray = [np.repeat(g[..., None], 3, -1) for g in ((x + y) % 2, x % 2, x >= SIZE // 2)]
    red = [np.broadcast_to(np.eye(3)[i], (SIZE, SIZE, 3)) for i in range(3)]
    return np.stack([*flat, *gray, *red, noise]).astype(np.float32)


def test_norm_is_at_most_one_whatever_the_image_and_the_weights(psi, describe):
    x = extreme_images()
    for weights in (psi, jax.tree.map(lambda w: 1e3 * w, psi), jax.tree.map(lambda w: -w, psi)):
        norms = np.linalg.norm(describe(weights, x), axis=1)
        assert norms.max() <= 1 + 1e-6
    assert norms.min() > 0.1  # and it is not small either


def test_gradients_are_finite_on_extreme_images(psi):
    @jax.jit
    def gradient(psi, x):
        return jax.grad(lambda p: d.Descriptor().apply({'params': p}, x).sum())(psi)

    for g in jax.tree.leaves(gradient(psi, extreme_images())):
        assert np.isfinite(g).all()


def test_images_are_not_clipped(psi, describe, centers):
    for x in centers.values():
        vectors = describe(psi, x)
        color, spectrum, learned = vectors[:, :12], vectors[:, 12:-96], vectors[:, -96:]
        for part in (color, spectrum, learned):
            norm = np.linalg.norm(part, axis=1)
            assert norm.min() > 0 and norm.max() < 0.55 - 1e-4


def test_the_statistic_ignores_order_and_what_stands_beside(psi, describe, centers):
    x = next(iter(centers.values()))
    ones, order = np.ones(len(x)), np.random.default_rng(2).permutation(len(x))
    whole = d.statistic(describe(psi, x), ones, '')
    shuffled = d.statistic(describe(psi, x[order]), ones, '')
    padded = np.concatenate([x, extreme_images()])
    beside = d.statistic(describe(psi, padded), np.arange(len(padded)) < len(x), '')
    parts = d.pool(d.statistic(describe(psi, p), np.ones(len(p)), '') for p in (x[:37], x[37:]))
    for other in (shuffled, beside, parts):
        # The sums are exact; where an image stands in a batch may turn its last float32 bit.
        assert np.abs(other.total - whole.total).max() <= len(x)
        assert other.count == whole.count


def test_it_sees_the_acquisition_more_than_the_sample(psi, describe, centers):
    """A shift of the same images moves the descriptor further than other images of the center."""
    shift = PRESETS['brightfield']()
    play = jax.jit(
        lambda key, x: apply_batch(shift, shift.sample(key), jax.random.fold_in(key, 1), x, {})[0]
    )
    resampled, shifted = [], []
    for x in centers.values():
        a, b = describe(psi, x[:50]).mean(0), describe(psi, x[50:]).mean(0)
        resampled.append(np.linalg.norm(a - b))
        for i in range(6):
            moved = describe(psi, play(jax.random.key(i), x[:50])).mean(0)
            shifted.append(np.linalg.norm(moved - a))
    assert np.median(shifted) > 2 * np.median(resampled)


def test_it_tells_centers_apart(psi, describe, centers):
    """Each half of a center lies nearer to its other half than to any half of another center."""
    halves = np.array(
        [[describe(psi, h).mean(0) for h in (x[:50], x[50:])] for x in centers.values()]
    )
    distance = np.linalg.norm(halves[:, None, 0] - halves[None, :, 1], axis=-1)
    np.testing.assert_array_equal(distance.argmin(1), np.arange(len(centers)))
