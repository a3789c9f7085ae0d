"""Start weights are taken whole, or refused by the name of the first that is not explained."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.models import CNN
from fedgen_jax.models.start import read_weights, start_of

MODEL = CNN(3, widths=(8,), norm='batch')


def variables(seed=1):
    return jax.jit(MODEL.init)(jax.random.key(seed), jnp.zeros((1, 16, 16, 3)))


def flat(tree):
    return {k: np.asarray(x) for k, x in flax.traverse_util.flatten_dict(tree, sep='/').items()}


def start(tmp_path, weights, keep=()):
    np.savez(tmp_path / 'weights.npz', **weights)
    found = read_weights(str(tmp_path / 'weights.npz'))
    return flat(start_of(MODEL, found, keep, 0, 16))


def test_found_weights_replace_all(tmp_path):
    found = flat(variables())
    got = start(tmp_path, found)
    assert got.keys() == found.keys()
    for name, x in found.items():
        np.testing.assert_array_equal(got[name], x)


def test_kept_ones_are_drawn(tmp_path):
    found = flat(variables())
    of_other_classes = {**found, 'params/head/kernel': np.zeros((8, 9), np.float32)}
    del of_other_classes['params/head/bias']
    got = start(tmp_path, of_other_classes, keep=('params/head',))
    drawn = flat(variables(0))
    np.testing.assert_array_equal(got['params/head/kernel'], drawn['params/head/kernel'])
    name = 'params/conv_0_0/kernel'
    np.testing.assert_array_equal(got[name], found[name])
    assert np.abs(found[name] - drawn[name]).max() > 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('params/head/bias'), "has no 'params/head/bias': start.keep"),
        (lambda w: w.update({'params/fc': np.zeros(1)}), "the model has no 'params/fc'"),
        (lambda w: w.update({'params/head/bias': np.zeros(4)}), r"head/bias' has shape \(4,\)"),
    ],
)
def test_what_is_not_explained_is_one_line(tmp_path, change, message):
    weights = flat(variables())
    change(weights)
    with pytest.raises(ValueError, match=message) as error:
        start(tmp_path, weights)
    assert '\n' not in str(error.value)


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match='start.weights=.*cannot be read'):
        read_weights(str(tmp_path / 'none.npz'))
