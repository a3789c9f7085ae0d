"""The pieces that every model shares: convolution, normalization and pooling.

The convolution's lowering is chosen here and nowhere else (`convolution`).  A federation runs
clients under `vmap` or `lax.map` and their steps under `lax.scan`: there XLA:CPU leaves its fast
convolution for a naive loop (30 times slower), and `vmap` over a kernel becomes a grouped
convolution.  Shifted slices and one matrix product stay fast under all of them.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.shifts.resample import resample_matrix

NORMS = ('group', 'batch', 'instance')


def conv_as_matmul(x_BxHxWxI, kernel, strides: Sequence[int], padding, **unused) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC, HWIO and no dilation or groups, as one matrix product.

    The window's shifted slices stand side by side along the channels, [B, H', W', kh * kw * I],
    times the kernel as a [kh * kw * I, O] matrix.  Of few features, several columns are computed at
    once, from a window so much wider: fewer, longer patches, and a matrix as wide as the CPU likes.
    """
    kh, kw, in_features, features = kernel.shape
    if x_BxHxWxI.shape[-1] != in_features:
        raise ValueError('grouped convolutions are not supported by conv_as_matmul')
    if any(d != 1 for k in ('lhs_dilation', 'rhs_dilation') for d in unused.get(k) or ()):
        raise ValueError('dilated convolutions are not supported by conv_as_matmul')
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x_BxHxWxI.shape[1:3], (kh, kw), strides, padding)
    x = jnp.pad(x_BxHxWxI, ((0, 0), *padding, (0, 0)))
    width = (x.shape[2] - kw) // strides[1] + 1
    at_once = columns_at_once(width, features) if kw > 1 and strides[1] == 1 else 1
    # Columns first: the second step then copies runs of many numbers.
    x = side_by_side(x, 2, kw + at_once - 1, strides[1] * at_once)
    x = side_by_side(x, 1, kh, strides[0])
    shifted = [
        jnp.pad(kernel, ((0, 0), (i, at_once - 1 - i), (0, 0), (0, 0))) for i in range(at_once)
    ]
    y = rows_times_matrix(x, jnp.stack(shifted, 3).reshape(-1, at_once * features))
    return y.reshape(*y.shape[:2], width, features)


def columns_at_once(width: int, features: int) -> int:
    """4, 2 or 1 columns of an output that is `width` wide: at most 32 numbers together."""
    return next(n for n in (4, 2, 1) if n == 1 or width % n == 0 and n * features <= 32)


def side_by_side(x_BxHxWxI: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    """A window's slices along rows (axis 1) or columns (2), side by side along the channels."""
    if (window, stride) == (1, 1):
        return x_BxHxWxI
    last = x_BxHxWxI.shape[axis] - window
    slices = [
        jax.lax.slice_in_dim(x_BxHxWxI, i, last + i + 1, stride, axis) for i in range(window)
    ]
    return jnp.concatenate(slices, axis=-1)


@jax.custom_vjp
def rows_times_matrix(x: jax.Array, matrix_KxO: jax.Array) -> jax.Array:
    """x [..., K] @ [K, O], with a gradient that XLA:CPU runs twice as fast.

    Left alone, XLA computes the cotangent a second time, transposed, for the matrix's gradient, and
    that product at half the speed.  The barriers keep it from both.
    """
    return x @ matrix_KxO


def _forward(x, matrix_KxO):
    return x @ matrix_KxO, (x, matrix_KxO)


def _backward(kept, g):
    x, matrix_KxO = kept
    g = jax.lax.optimization_barrier(g)
    x_NxK, g_NxO = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    # The product whose rows are the fewer is the faster of the two.
    if x_NxK.shape[1] < g_NxO.shape[1]:
        gradient_KxO = _over_rows(x_NxK, g_NxO)
    else:
        gradient_KxO = jax.lax.optimization_barrier(_over_rows(g_NxO, x_NxK)).T
    return g @ matrix_KxO.T, gradient_KxO


def _over_rows(a, b):
    return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))


rows_times_matrix.defvjp(_forward, _backward)


def convolution(x, kernel, strides, padding, *args, **kwargs) -> jax.Array:
    """What every layer calls: `nn.Conv(..., conv_general_dilated=convolution)`."""
    if jax.default_backend() == 'cpu':
        return conv_as_matmul(x, kernel, strides, padding, *args, **kwargs)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, *args, **kwargs)


def conv(features: int, window: int, stride: int = 1, name: str | None = None) -> nn.Conv:
    """A convolution without bias: a normalization follows each one."""
    return nn.Conv(
        features,
        (window, window),
        (stride, stride),
        use_bias=False,
        conv_general_dilated=convolution,
        name=name,
    )


def norm(kind: str, train: bool, name: str) -> nn.Module:
    """A normalization with scale and bias: what `film` generates.

    'group' (Wu & He 2018, 8 channels a group) and 'instance' see one image at a time.  'batch' with
    `train` uses the batch's statistics and leaves them in the `batch_stats` collection, without
    memory of earlier batches; else it uses those given in `batch_stats`.
    """
    if kind == 'group':
        return nn.GroupNorm(num_groups=None, group_size=8, name=name)
    if kind == 'instance':
        return nn.InstanceNorm(name=name)
    if kind == 'batch':
        return nn.BatchNorm(use_running_average=not train, momentum=0.0, name=name)
    raise ValueError(f'model.norm={kind!r}: one of {NORMS}')


def conv_norm_relu(x, features: int, norm_kind: str, train: bool, name: str, stride: int = 1):
    """A 3x3 convolution `conv_NAME`, its normalization `norm_NAME`, and a ReLU."""
    x = conv(features, 3, stride, name=f'conv_{name}')(x)
    return nn.relu(norm(norm_kind, train, f'norm_{name}')(x))


@jax.custom_vjp
def max_pool_2x2(x_BxHxWxI: jax.Array) -> jax.Array:
    """2x2 max pooling, with the gradient of pairwise maxima: 5 times faster than a reduction's.

    The columns' maxima are a reduction all the same: XLA:CPU computes that once, and pairwise ones
    again for each slice that a convolution then takes of them.
    """
    x = _pairs(x_BxHxWxI, 1)
    x = x[:, :, : x.shape[2] // 2 * 2]
    return x.reshape(*x.shape[:2], -1, 2, x.shape[3]).max(3)


def _pairs(x, axis):
    last = x.shape[axis] // 2 * 2
    even, odd = (jax.lax.slice_in_dim(x, i, last, 2, axis) for i in range(2))
    return jnp.maximum(even, odd)


def _pool_backward(x, g):
    return jax.vjp(lambda x: _pairs(_pairs(x, 1), 2), x)[1](g)


max_pool_2x2.defvjp(lambda x: (max_pool_2x2(x), x), _pool_backward)


class Input(nn.Module):
    """Standardization, then a magnification, a colour matrix and a bias: the `input` layer.

    It starts as the identity.  The generator's `input` mode changes it, so that a center's images
    meet the first convolution in the base's colours and at the base's scale.

    standardize: 'none'; 'image' (zero mean and unit variance over an image's pixels and
        channels); 'channel' (over the pixels of each channel).
    magnified: False where outputs belong to places in the image: its scale stays as it is.
    """

    standardize: str = 'image'
    magnified: bool = True

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array) -> jax.Array:
        axes_of = {'none': None, 'image': (1, 2, 3), 'channel': (1, 2)}
        if self.standardize not in axes_of:
            raise ValueError(f'model.standardize={self.standardize!r}: one of {tuple(axes_of)}')
        axes = axes_of[self.standardize]
        x = x_BxHxWx3 - 0.5
        if axes:
            x = nn.standardize(x, axis=axes, epsilon=1e-4)
        matrix_3x3 = self.param('kernel', lambda key: jnp.eye(3))
        bias_3 = self.param('bias', nn.initializers.zeros, (3,))
        if self.magnified:
            x = magnify(x, jnp.exp(self.param('log_zoom', nn.initializers.zeros, ())))
        return x @ matrix_3x3 + bias_3[None, None, None]


def magnify(x_BxHxWx3: jax.Array, zoom: jax.Array) -> jax.Array:
    """Magnifies around the center, differentiably in `zoom`; the identity at 1."""
    rows, cols = (resample_matrix(n, zoom, 'nearest') for n in x_BxHxWx3.shape[1:3])
    return jnp.einsum('hi,biwc->bhwc', rows, jnp.einsum('wj,bhjc->bhwc', cols, x_BxHxWx3))
