"""ResNet-18 (He et al. 2016, arXiv:1512.03385), with a choice of normalization."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from fedgen_jax.models.layers import Input, conv, conv_norm_relu, head, max_pool_2x2, norm


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; a stride or a new width projects the shortcut."""

    width: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x_BxHxWxI: jax.Array, train: bool) -> jax.Array:
        y = conv_norm_relu(x_BxHxWxI, self.width, self.norm, train, '0', self.stride)
        y = norm(self.norm, train, 'norm_1', y.dtype)(conv(self.width, 3, 1, 'conv_1', y.dtype)(y))
        shortcut = x_BxHxWxI
        if shortcut.shape != y.shape:
            shortcut = conv(self.width, 1, self.stride, 'conv_shortcut', y.dtype)(shortcut)
            shortcut = norm(self.norm, train, 'norm_shortcut', y.dtype)(shortcut)
        return nn.relu(y + shortcut)


class ResNet(nn.Module):
    """The default is ResNet-18: four stages of two blocks, 11.2 M weights for 5 outputs."""

    num_outputs: int
    widths: Sequence[int] = (64, 128, 256, 512)
    depth: int = 2
    norm: str = 'group'
    standardize: str = 'image'
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, num_outputs]."""
        x = Input(self.standardize, dtype=self.dtype, name='input')(x_BxHxWx3)
        x = conv(self.widths[0], 7, 2, 'conv_stem', x.dtype)(x)
        x = max_pool_2x2(nn.relu(norm(self.norm, train, 'norm_stem', x.dtype)(x)))
        for i, width in enumerate(self.widths):
            for j in range(self.depth):
                stride = 2 if i > 0 and j == 0 else 1
                x = Block(width, stride, self.norm, name=f'block_{i}_{j}')(x, train)
        return head(self.num_outputs, x.mean((1, 2)))
