"""The work that this project and its peers are timed on: random images, plain FedAvg.

W1, cross-silo:   20 clients x 320 images of 32x32x3, three convolutions and a dense layer, batch
                  32, as many steps of SGD as an epoch has (drawn anew each here, in turn there).
W2, cross-device: 1,000 clients x 16 images of 28x28x1, LeNet, batch 16, 5 steps a round.
W3, the method:   W1's clients, the project's own CNN with group normalization and acquisition
                  shifts: a round of FedGen against one of FedAvg.
W4, usual sizes:  5 clients x 8 images, batch 8, one step of FedAvg: ResNet-18 as torchvision has it
                  at 224, a U-Net of 4 levels at 256, EfficientNet-Lite0 at 96 and 224 (its head
                  here reads several maps, there the last); batch normalization.
C10:              a cohort of pfl-research's own CIFAR-10 benchmark: 50 clients x 50 images, two
                  convolutions, batch 10, one epoch.
"""

import math
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from fedgen_jax.models import MODELS
from fedgen_jax.models.layers import max_pool_2x2
from fedgen_jax.ops.convolution import convolution
from fedgen_jax.registry import look_up

NUM_CLASSES = 10


class Workload(NamedTuple):
    """Arrays' sizes and the length of a round; model as `model.name` takes it, with its fields.

    task: 'classification' or 'segmentation', of labels or masks.
    """

    clients: int
    examples: int
    image: tuple[int, int, int]
    batch: int
    steps: int
    model: str
    options: dict = {}
    task: str = 'classification'


WORKLOADS = {
    'W1': Workload(20, 320, (32, 32, 3), 32, 10, 'benchmarks.workloads:SmallCNN'),
    'W2': Workload(1000, 16, (28, 28, 1), 16, 5, 'benchmarks.workloads:LeNet'),
    'W3': Workload(20, 320, (32, 32, 3), 32, 10, 'cnn'),
    'W4-resnet18': Workload(
        5, 8, (224, 224, 3), 8, 1, 'resnet', {'norm': 'batch', 'layout': 'torchvision'}
    ),
    'W4-unet': Workload(
        5, 8, (256, 256, 3), 8, 1, 'unet', {'norm': 'batch', 'widths': (32, 64, 128, 256)},
        'segmentation',
    ),
    'W4-lite0-96': Workload(5, 8, (96, 96, 3), 8, 1, 'efficientnet_lite0'),
    'W4-lite0-224': Workload(5, 8, (224, 224, 3), 8, 1, 'efficientnet_lite0'),
    'C10': Workload(50, 50, (32, 32, 3), 10, 5, 'benchmarks.workloads:TwoLayerCNN'),
}
RATE = 0.01  # of SGD


def arrays(w: Workload) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [C, N, H, W, I], labels int32 [C, N] or masks uint8 [C, N, H, W])."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (w.clients, w.examples, *w.image), dtype=np.uint8)
    if w.task == 'segmentation':
        return image, rng.integers(0, NUM_CLASSES, image.shape[:-1], dtype=np.uint8)
    label = rng.integers(0, NUM_CLASSES, (w.clients, w.examples)).astype(np.int32)
    return image, label


class SmallCNN(nn.Module):
    """3-32-64-64: 3x3 convolutions, ReLU and 2x2 max pooling, then a dense layer; no biases."""

    num_outputs: int
    channels: tuple = (32, 64, 64)

    @nn.compact
    def __call__(self, x_BxHxWxI: jax.Array, train: bool = False) -> jax.Array:
        x = x_BxHxWxI
        for i, width in enumerate(self.channels):
            conv = nn.Conv(
                width, (3, 3), use_bias=False, conv_general_dilated=convolution, name=f'conv_{i}'
            )
            x = max_pool_2x2(nn.relu(conv(x)))
        return nn.Dense(self.num_outputs, use_bias=False, name='head')(x.reshape(len(x), -1))


class TwoLayerCNN(SmallCNN):
    """The same with two convolutions."""

    channels: tuple = (32, 64)


class LeNet(nn.Module):
    """5x5x6, 5x5x16, 120, 84, 10, with ReLU and 2x2 max pooling; reads the first channel."""

    num_outputs: int

    @nn.compact
    def __call__(self, x_BxHxWxI: jax.Array, train: bool = False) -> jax.Array:
        x = x_BxHxWxI[..., :1]
        for i, (width, padding) in enumerate(((6, 'SAME'), (16, 'VALID'))):
            conv = nn.Conv(
                width, (5, 5), padding=padding, conv_general_dilated=convolution, name=f'conv_{i}'
            )
            x = max_pool_2x2(nn.relu(conv(x)))
        x = x.reshape(len(x), -1)
        for i, width in enumerate((120, 84)):
            x = nn.relu(nn.Dense(width, name=f'dense_{i}')(x))
        return nn.Dense(self.num_outputs, name='head')(x)


def three_channels(image: np.ndarray) -> np.ndarray:
    """Gray images as the project keeps all images."""
    return np.broadcast_to(image, (*image.shape[:-1], 3)) if image.shape[-1] == 1 else image


def gemm_rate(size: int, dtype=jnp.float32) -> float:
    """FLOPs a second of products of two random [size, size], at the default precision."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float('inf')
    for _ in range(10):
        started = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def round_flops(w: Workload) -> float:
    """A round's multiplications and additions, each done once; backward takes two of forward's."""
    model = look_up('model.name', w.model, MODELS)(NUM_CLASSES, **w.options)
    size = w.image[0]
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))['params']
    return w.clients * w.steps * w.batch * 3 * flops_of(model, params, size)


def flops_of(model: nn.Module, params: dict, size: int) -> int:
    """Of one image: multiplications and additions of its convolutions and dense layers.

    Counted from shapes: on a CPU they are lowered to other products (`models.convolution`).
    """

    def forward(params, x):
        products = (nn.Conv, nn.Dense)
        return model.apply(
            {'params': params}, x, train=True, mutable=['intermediates', 'batch_stats'],
            capture_intermediates=lambda module, _: isinstance(module, products),
        )[1]['intermediates']

    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    output = flatten_dict(jax.eval_shape(forward, params, image))
    kernel = flatten_dict(params)
    return sum(
        2 * math.prod(y.shape[:-1]) * kernel[*path[:-1], 'kernel'].size
        for path, (y,) in output.items()
    )
