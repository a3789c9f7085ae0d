"""ResNet (He et al. 2016, arXiv:1512.03385), with a choice of normalization."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from fedgen_jax.models.layers import Input, conv, head, last_norm, max_pool_2x2, max_pool_3x3, norm
from fedgen_jax.registry import choose

LAYOUTS = ('same', 'torchvision')


class Block(nn.Module):
    """Convolutions around a shortcut, which is projected by a stride or a new width.

    Two of 3x3; or, with `bottleneck`, 1x1, 3x3 and 1x1 to four times the width, with the stride in
    the second, as torchvision has it (not in the first, as He et al.).
    """

    width: int
    stride: int
    norm: str
    bottleneck: bool = False
    layout: str = 'same'

    @nn.compact
    def __call__(self, x_BxHxWxI: jax.Array, train: bool) -> jax.Array:
        def convolved(x, features, window, stride, name):
            padding = padding_of(self.layout, window)
            x = conv(features, window, stride, f'conv_{name}', x.dtype, padding=padding)(x)
            return norm(self.norm, train, f'norm_{name}', x.dtype)(x)

        layers = [(self.width, 3, self.stride), (self.width, 3, 1)]
        if self.bottleneck:
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        y = x_BxHxWxI
        for i, layer in enumerate(layers):
            y = convolved(nn.relu(y) if i else y, *layer, str(i))
        shortcut = x_BxHxWxI
        if shortcut.shape != y.shape:
            shortcut = convolved(shortcut, y.shape[-1], 1, self.stride, 'shortcut')
        return nn.relu(y + shortcut)


class ResNet(nn.Module):
    """The default is ResNet-18: four stages of two blocks, 11.2 M weights for 5 outputs.

    depth: blocks of every stage, or of each.  ResNet-50: (3, 4, 6, 3), with `bottleneck`.
    layout: 'same', or 'torchvision', which pads strided convolutions on both sides and pools 3x3 in
        the stem: for its weights (`models.pretrained`; norm='batch', standardize='none').
    """

    num_outputs: int
    widths: Sequence[int] = (64, 128, 256, 512)
    depth: int | Sequence[int] = 2
    norm: str = 'group'
    standardize: str = 'image'
    dtype: str = 'float32'
    bottleneck: bool = False
    layout: str = 'same'
    last: str = 'none'

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, num_outputs]."""
        layout = choose('model.layout', self.layout, LAYOUTS)
        x = Input(self.standardize, dtype=self.dtype, name='input')(x_BxHxWx3)
        x = conv(self.widths[0], 7, 2, 'conv_stem', x.dtype, padding=padding_of(layout, 7))(x)
        x = nn.relu(norm(self.norm, train, 'norm_stem', x.dtype)(x))
        x = max_pool_2x2(x) if layout == 'same' else max_pool_3x3(x)
        for i, (width, depth) in enumerate(zip(self.widths, depths(self))):
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                block = Block(width, stride, self.norm, self.bottleneck, layout,
                              name=f'block_{i}_{j}')
                x = block(x, train)
        return head(self.num_outputs, last_norm(self.last, train, x.mean((1, 2))))


def depths(net: ResNet) -> Sequence[int]:
    """Blocks of each stage."""
    if isinstance(net.depth, int):
        return [net.depth] * len(net.widths)
    if len(net.depth) != len(net.widths):
        raise ValueError(
            f'model.depth={tuple(net.depth)}: has not as many stages as model.widths='
            f'{tuple(net.widths)}'
        )
    return net.depth


def padding_of(layout: str, window: int):
    return 'SAME' if layout == 'same' else [(window // 2, window // 2)] * 2
