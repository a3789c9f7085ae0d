"""Quality measures have known values, and the attack that works does so until there is noise."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.audit.inversion import audit
from fedgen_jax.audit.pixels import closed_form, dense_gradient, matched, protected, psnr, ssim

RNG = np.random.default_rng(0)
IMAGE = RNG.random((16, 16, 3)).astype(np.float32)


def test_psnr_and_ssim():
    assert psnr(IMAGE, IMAGE + 0.1) == pytest.approx(20, abs=1e-3)
    assert ssim(IMAGE, IMAGE) == pytest.approx(1)
    assert abs(ssim(IMAGE, RNG.random((16, 16, 3)))) < 0.2


def test_a_dense_layer_gives_its_image_away_until_there_is_noise():
    gradient = dense_gradient(IMAGE, 1, 5)

    def quality(g):
        return psnr(closed_form(g['kernel'], g['bias']).reshape(IMAGE.shape), IMAGE)

    assert quality(gradient) > 60
    assert quality(protected(gradient, 0.01, 0.0)) > 60
    assert quality(protected(gradient, 0.01, 1.0)) < 10


def test_matching_finds_an_image_whose_gradient_tells_it():
    def gradient(x):
        return {'all': x - 0.5}

    sent = gradient(jnp.asarray(IMAGE))
    found, prior = (matched(gradient, sent, IMAGE.shape, 100, match) for match in (1.0, 0.0))
    cosine = np.corrcoef(np.ravel(found), np.ravel(IMAGE))[0, 1]
    assert cosine > 0.9 > 0.3 > abs(np.corrcoef(np.ravel(prior), np.ravel(IMAGE))[0, 1])


@pytest.mark.extended
def test_of_a_run(subject):
    found = audit(subject, steps=3, count=1)
    assert found.holds and len(found.pictures) == 8
    assert found.numbers['features_error'] < 1e-3
