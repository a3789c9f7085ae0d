"""EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946), and what can stand on its trunk.

"Lite" has ReLU6 and no squeeze-and-excitation.  Weights: `models.pretrained.efficientnet_lite0`.
Stochastic depth is left out.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.models.layers import Input, conv, conv_norm_relu, head, last_norm, norm
from fedgen_jax.models.roles import by_name
from fedgen_jax.models.unet import check_size, detector_head, up
from fedgen_jax.models.unet import head as head_1x1
from fedgen_jax.registry import choose

EPSILON = 1e-3  # of its batch normalizations
STEM, LAST = 32, 1280
# Of each stage: window and stride of its first block, and by how much its blocks widen.
STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
DENSE = (0, 1, 2, 4, 6)  # the last stages at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image

# `trained`: of the trunk and the input layer, what is frozen.
FROZEN = {
    'all': (),
    'pointwise': ('depthwise',),
    'adapters': ('depthwise', 'kernel'),
    'head': ('depthwise', 'kernel', 'norm', 'input'),
}
PRETRAINED = ('input', 'trunk', 'conv_end', 'norm_end')


def conv_norm(x, features: int, window: int, kind: str, train: bool, name: str, **options):
    """A convolution `conv_NAME` and its normalization `norm_NAME`."""
    x = conv(features, window, name=f'conv_{name}', dtype=x.dtype, **options)(x)
    return norm(kind, train, f'norm_{name}', x.dtype, EPSILON)(x)


class Block(nn.Module):
    """Widens, convolves each channel by itself, narrows; a shortcut where the shape stays."""

    width: int
    window: int
    stride: int
    expand: int
    norm: str

    @nn.compact
    def __call__(self, x_BxHxWxI: jax.Array, train: bool) -> jax.Array:
        x, wide = x_BxHxWxI, self.expand * x_BxHxWxI.shape[-1]
        if self.expand > 1:
            x = nn.relu6(conv_norm(x, wide, 1, self.norm, train, 'expand'))
        own = {'stride': self.stride, 'groups': wide}
        x = nn.relu6(conv_norm(x, wide, self.window, self.norm, train, 'depthwise', **own))
        x = conv_norm(x, self.width, 1, self.norm, train, 'project')
        return x + x_BxHxWxI if x.shape == x_BxHxWxI.shape else x


class Trunk(nn.Module):
    """[B, H, W, 3] -> the map that each stage ends with."""

    widths: Sequence[int]
    repeats: Sequence[int]
    norm: str

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool) -> list[jax.Array]:
        x = nn.relu6(conv_norm(x_BxHxWx3, STEM, 3, self.norm, train, 'stem', stride=2))
        maps, number = [], 0
        for width, repeat, (window, stride, expand) in zip(self.widths, self.repeats, STAGES):
            for j in range(repeat):
                block = Block(width, window, 1 if j else stride, expand, self.norm,
                              name=f'block_{number}')
                x, number = block(x, train), number + 1
            maps.append(x)
        return maps


class OnTrunk(nn.Module):
    """What stands on a trunk.

    trained: 'all'; 'pointwise' (all but depthwise kernels, whose gradients are slow on a CPU);
        'adapters' (normalizations, input layer and what stands on the trunk); 'head' (what stands
        on the trunk).  The other weights are frozen (`models.roles.frozen_of`).
    source_norms: whether the trunk's batch norms keep the statistics that they start with.
    """

    num_outputs: int
    trained: str = 'all'
    widths: Sequence[int] = (16, 24, 40, 80, 112, 192, 320)
    repeats: Sequence[int] = (1, 2, 2, 3, 3, 4, 1)
    norm: str = 'batch'
    standardize: str = 'none'
    dtype: str = 'float32'
    last: str = 'none'
    source_norms: bool = False

    def roles(self, path: tuple[str, ...]) -> str | None:
        """By the names of our layers; None for depthwise kernels, which have no rank to lower."""
        return None if 'conv_depthwise' in path else by_name(path)

    def frozen(self, path: tuple[str, ...]) -> bool:
        """By `trained`."""
        frozen = choose('model.trained', self.trained, FROZEN)
        kind = 'depthwise' if 'conv_depthwise' in path else by_name(path)
        return path[0] in PRETRAINED and kind in frozen


class EfficientNetLite0(OnTrunk):
    """A classifier whose head reads the means of several maps.

    These are the maps of blocks 2, 4, 7, 10 and 14, where a stage ends, and the last one, of 1280
    features, which alone the original's head reads: early maps know of color and texture.  The
    five first are normalized (`norm_means`), for their squares sum to thousands.
    """

    @property
    def takes_features(self) -> bool:
        """Whether nothing below the means of maps learns, or depends on the batch."""
        return self.trained == 'head' and self.source_norms

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, below: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1], or features [B, F] -> [B, num_outputs].

        below: whether to return the features of the images, [B, F], in place of it.
        """
        features = x if x.ndim == 2 else means_of_maps(self, x, train)
        if below:
            return features
        kept = train and not self.source_norms
        means, last = features[:, :-LAST], features[:, -LAST:]
        means = norm(self.norm, kept, 'norm_means', means.dtype)(means)
        features = jnp.concatenate([means, last], -1)
        # Zero: of so many features, few examples move a part, and the rest would stay as drawn.
        features = last_norm(self.last, train, features)
        return head(self.num_outputs, features, nn.initializers.zeros)


class EfficientNetLite0UNet(OnTrunk):
    """A U-Net whose way down is the trunk; outputs at the image's resolution.

    up: features of the way up, at 1/1, 1/2, 1/4, 1/8 and 1/16 of the image.
    """

    up: Sequence[int] = (16, 16, 32, 48, 64)

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, H, W, num_outputs]."""
        x = last_norm(self.last, train, climb(self, x_BxHxWx3, train, level=0))
        return head_1x1(self.num_outputs, x, nn.initializers.zeros)


class EfficientNetLite0Detector(OnTrunk):
    """The same up to a quarter of the resolution: what `tasks.detection` reads.

    up: features of the way up, at 1/4, 1/8 and 1/16 of the image.
    """

    up: Sequence[int] = (48, 64, 96)

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, H / 4, W / 4, num_outputs]."""
        x = climb(self, x_BxHxWx3, train, level=2)
        x = conv_norm_relu(x, self.up[0], self.norm, train, 'last')
        return detector_head(self.num_outputs, last_norm(self.last, train, x))


def means_of_maps(net: OnTrunk, x_BxHxWx3: jax.Array, train: bool) -> jax.Array:
    """The means that the head reads, [B, F], before any is normalized."""
    choose('model.norm', net.norm, ('batch', 'group'))  # 'instance' would take the means away
    x = Input(net.standardize, dtype=net.dtype, name='input')(x_BxHxWx3)
    maps = trunk(net, x, train)
    kept = train and not net.source_norms
    last = nn.relu6(conv_norm(maps[-1], LAST, 1, net.norm, kept, 'end'))
    return jnp.concatenate([x.mean((1, 2)) for x in (*maps[1:-1], last)], -1)


def trunk(net: OnTrunk, x: jax.Array, train: bool) -> list[jax.Array]:
    kept = train and not net.source_norms
    return Trunk(net.widths, net.repeats, net.norm, name='trunk')(x, kept)


def climb(net: OnTrunk, x_BxHxWx3: jax.Array, train: bool, level: int) -> jax.Array:
    """Down the trunk and up again to 1 / 2 ** level of the image."""
    check_size(x_BxHxWx3, 32)
    x = Input(net.standardize, False, net.dtype, name='input')(x_BxHxWx3)
    maps = trunk(net, x, train)
    maps = [x, *(maps[i] for i in DENSE)]
    return up(maps[level:], net.up, 1, net.norm, train, to=0)
