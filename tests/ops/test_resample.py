"""Resizing by a matrix is the resizing of `jax.image`."""

import jax
import numpy as np
import pytest

from fedgen_jax.ops.resample import resize_matrix


@pytest.mark.parametrize('size, to', [(48, 12), (50, 7), (12, 12), (5, 9)])
def test_a_resize_matrix_says_what_jax_does(size, to):
    signal_SxN = np.random.default_rng(0).uniform(size=(size, 3)).astype(np.float32)
    want = jax.image.resize(signal_SxN, (to, 3), 'linear')
    np.testing.assert_allclose(resize_matrix(size, to) @ signal_SxN, want, atol=1e-6)
