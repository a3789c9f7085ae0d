"""Networks whose outputs lie in the image: a U-Net (Ronneberger et al. 2015), and a detector.

Both go down by strided convolutions and up by resizing and convolving (no transposed convolution,
so no checkerboard), joined by the map of the same size on the way down.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.models.layers import Input, conv_norm_relu, last_norm
from fedgen_jax.ops.convolution import convolution

HEAT_PRIOR = 0.05  # share of cells that hold a center, at the start (Lin et al. 2017, section 3.3)
NUM_SHAPES = 4  # outputs after the heat: log height, log width, offset down, offset right
FIRST_SHAPE = (1.0, 1.0, 0.5, 0.5)  # at the start: boxes of e cells, amid theirs


class UNet(nn.Module):
    """A level a width, `depth` 3x3 convolutions on each; outputs at the image's resolution."""

    num_outputs: int
    widths: Sequence[int] = (16, 32, 64)
    depth: int = 2
    norm: str = 'group'
    standardize: str = 'image'
    dtype: str = 'float32'
    last: str = 'none'

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, H, W, num_outputs]."""
        check_size(x_BxHxWx3, 2 ** (len(self.widths) - 1))
        x = Input(self.standardize, False, self.dtype, name='input')(x_BxHxWx3)
        maps = down(self, x, train, first_stride=1)
        x = up(maps, self.widths, self.depth, self.norm, train, to=0)
        return head(self.num_outputs, last_norm(self.last, train, x), nn.initializers.zeros)


class Detector(nn.Module):
    """The same at half the resolution, ending at a quarter of it: what `tasks.detection` reads."""

    num_outputs: int
    widths: Sequence[int] = (16, 32, 64, 128)
    depth: int = 2
    norm: str = 'group'
    standardize: str = 'image'
    dtype: str = 'float32'
    last: str = 'none'

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """float32 [B, H, W, 3] in [0, 1] -> [B, H / 4, W / 4, num_outputs]."""
        if len(self.widths) < 2:
            raise ValueError(f'model.widths={tuple(self.widths)}: a detector has at least 2 levels')
        check_size(x_BxHxWx3, 2 ** len(self.widths))
        x = Input(self.standardize, False, self.dtype, name='input')(x_BxHxWx3)
        maps = down(self, x, train, first_stride=2)
        x = up(maps, self.widths, self.depth, self.norm, train, to=1)
        x = conv_norm_relu(x, self.widths[1], self.norm, train, 'last')
        return detector_head(self.num_outputs, last_norm(self.last, train, x))


def down(net: UNet | Detector, x: jax.Array, train: bool, first_stride: int) -> list[jax.Array]:
    """The maps of all levels, each half the size of the one before."""
    maps = []
    for i, width in enumerate(net.widths):
        for j in range(net.depth):
            stride = 1 if j else 2 if i else first_stride
            x = conv_norm_relu(x, width, net.norm, train, f'down_{i}_{j}', stride)
        maps.append(x)
    return maps


def up(
    maps: Sequence[jax.Array],
    widths: Sequence[int],
    depth: int,
    norm_kind: str,
    train: bool,
    to: int,
) -> jax.Array:
    """From the smallest map to that of level `to`, by `depth` convolutions on each level."""
    x = maps[-1]
    for i in reversed(range(to, len(maps) - 1)):
        x = jnp.concatenate([jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), maps[i]], -1)
        for j in range(depth):
            x = conv_norm_relu(x, widths[i], norm_kind, train, f'up_{i}_{j}')
    return x


def detector_head(num_outputs: int, x: jax.Array) -> jax.Array:
    """The last layer of a detector, which begins with little heat and boxes of `FIRST_SHAPE`."""

    def bias(key, shape, dtype=jnp.float32):
        heat = jnp.full(shape[0] - NUM_SHAPES, jnp.log(HEAT_PRIOR / (1 - HEAT_PRIOR)))
        return jnp.concatenate([heat, jnp.array(FIRST_SHAPE)]).astype(dtype)

    return head(num_outputs, x, bias, nn.initializers.normal(0.01))


def head(
    num_outputs: int, x: jax.Array, bias_init, kernel_init=nn.linear.default_kernel_init
) -> jax.Array:
    """The last layer, 1x1: any type -> float32.

    In float32 itself, for its bias's gradient is a sum over all pixels.
    """
    layer = nn.Conv(
        num_outputs,
        (1, 1),
        kernel_init=kernel_init,
        bias_init=bias_init,
        conv_general_dilated=convolution,
        name='head',
    )
    return layer(x.astype(jnp.float32))


def check_size(x_BxHxWx3: jax.Array, multiple: int) -> None:
    height, width = x_BxHxWx3.shape[1:3]
    if height % multiple or width % multiple:
        raise ValueError(
            f'data.image_size={height}: model.widths has levels that need a multiple of {multiple}'
        )
