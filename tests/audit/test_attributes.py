"""A regression finds what is in descriptors, and nothing in those of others."""

import numpy as np
import pytest

from fedgen_jax.audit.attributes import audit, r2

RNG = np.random.default_rng(0)


def test_r2_of_what_is_there_and_of_what_is_not():
    x = RNG.normal(size=(80, 30))
    y = x[:, :3] @ RNG.normal(size=(3, 2))
    assert r2(x, y).min() > 0.95
    assert r2(RNG.permutation(x), y).max() < 0.1


@pytest.mark.extended
def test_noise_hides_the_scanner_and_a_shuffle_all(subject):
    found = audit(subject, centers=25, sigmas=(8.0,))
    of = found.numbers['r2']
    assert of['exact']['scanner'] > 0.2 > of["others' (control)"]['scanner']
    assert of['exact']['scanner'] > of['noise 8']['scanner'] + 0.1
