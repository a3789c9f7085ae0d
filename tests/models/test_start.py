"""Start weights are taken whole, or refused by the name of the first that is not explained."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from fedgen_jax.config import base
from fedgen_jax.models import CNN, ResNet
from fedgen_jax.models.start import read_weights, start_of
from fedgen_jax.named import norm_of
from fedgen_jax.program import build
from fedgen_jax.settings import check_numbers
from fedgen_jax.start import PUBLISHED, _check_reads_as, check_content, hold_content

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


@pytest.mark.parametrize('damage', [
    lambda raw: raw[:len(raw) // 2],
    lambda raw: raw[:200] + bytes([raw[200] ^ 255]) + raw[201:],
    lambda raw: b'',
])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    file = tmp_path / 'weights.npz'
    np.savez(file, **flat(variables()))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match='start.weights=.*cannot be read') as error:
        read_weights(str(file))
    assert '\n' not in str(error.value)
    np.save(tmp_path / 'one.npy', np.zeros(3))
    with pytest.raises(ValueError, match='start.weights=.*cannot be read'):
        read_weights(str(tmp_path / 'one.npy'))


def test_a_beginning_that_no_weight_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no weight whose name begins with 'head'.*'params/"):
        start(tmp_path, flat(variables()), keep=('head',))
    start(tmp_path, flat(variables()), keep=('batch_stats',))


def run_with(tmp_path, **changes):
    """A small run's configuration, that starts from a file of all ones."""
    c = base()
    c.model = ConfigDict({'name': 'cnn', 'widths': (8,), 'norm': 'batch'})
    c.start.weights, c.statistics = str(tmp_path / 'weights.npz'), 'frozen'
    c.update_from_flattened_dict(changes)
    return c


def test_other_weights_in_the_same_file_are_another_program(tmp_path):
    found = flat(variables())
    for fill in (1.0, 2.0):
        ones = {k: np.full_like(x, fill) for k, x in found.items()}
        np.savez(tmp_path / 'weights.npz', **ones)
        algorithm = build(run_with(tmp_path), ('a', 'b', 'c'), 2).algorithm
        theta = jax.jit(algorithm.init)(jax.random.key(0)).shared['theta']
        assert np.all(theta['head']['bias'] == fill)


def test_a_run_holds_to_what_it_started_from(tmp_path):
    c, run = run_with(tmp_path), tmp_path / 'run'
    run.mkdir()
    np.savez(tmp_path / 'weights.npz', **flat(variables()))
    for _ in range(2):
        hold_content(c, run)
    np.savez(tmp_path / 'weights.npz', **flat(variables(2)))
    with pytest.raises(ValueError, match='holds other weights than as this run began') as error:
        check_content(c, run)
    assert '\n' not in str(error.value)
    check_content(c, tmp_path)  # of before this was kept


def test_a_published_network_is_fed_as_it_was_trained():
    net, wrong = ResNet(4, layout='torchvision', standardize='none'), 'model.layout'
    _check_reads_as('x.safetensors', net)
    _check_reads_as('x.npz', ResNet(4))
    for other, name in ((ResNet(4), wrong), (net.clone(standardize='image'), 'standardize')):
        with pytest.raises(ValueError, match=name):
            _check_reads_as('x.safetensors', other)
    with pytest.raises(ValueError, match='model.standardize'):
        _check_reads_as(f'{PUBLISHED}efficientnet_lite0', net.clone(standardize='image'))


def test_a_network_s_own_norm_counts():
    c = base()
    c.model = ConfigDict({'name': 'efficientnet_lite0'})
    assert norm_of(c) == 'batch'
    c.model.norm = 'group'
    assert norm_of(c) == 'group'
    c.model = ConfigDict({'name': 'resnet', 'depth': (3, 4, 6, 3)})
    check_numbers(c)
    c.model.depth = (3, 0, 6, 3)
    with pytest.raises(ValueError, match='model.depth'):
        check_numbers(c)
