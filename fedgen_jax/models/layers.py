"""The pieces that every model shares: convolution, normalization and pooling."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedgen_jax.ops.convolution import convolution
from fedgen_jax.ops.resample import MIN_SCALE, resample_matrix

NORMS = ('group', 'batch', 'instance')


DTYPES = ('float32', 'bfloat16')


def conv(
    features: int,
    window: int,
    stride: int = 1,
    name: str | None = None,
    dtype=jnp.float32,
    groups: int = 1,
    padding='SAME',
) -> nn.Conv:
    """A convolution without bias: a normalization follows each one.

    dtype:  of its products; its weights are float32.
    groups: 1, or `features`, of as many channels: a depthwise one.
    """
    return nn.Conv(
        features,
        (window, window),
        (stride, stride),
        padding,
        feature_group_count=groups,
        use_bias=False,
        dtype=dtype,
        conv_general_dilated=convolution,
        name=name,
    )


def norm(
    kind: str, train: bool, name: str, dtype=jnp.float32, epsilon: float = 1e-5
) -> nn.Module:
    """A normalization with scale and bias: what `film` generates.

    'group' (Wu & He 2018, 8 channels a group) and 'instance' see one image at a time.  'batch' with
    `train` uses the batch's statistics and leaves them in the `batch_stats` collection, without
    memory of earlier batches; else it uses those given in `batch_stats`.  Statistics are float32,
    whatever the `dtype` of outputs.

    epsilon: what 'batch' adds to the variance.
    """
    if kind == 'group':
        return nn.GroupNorm(num_groups=None, group_size=8, dtype=dtype, name=name)
    if kind == 'instance':
        return nn.InstanceNorm(dtype=dtype, name=name)
    if kind == 'batch':
        return nn.BatchNorm(
            use_running_average=not train, momentum=0.0, epsilon=epsilon, dtype=dtype, name=name
        )
    raise ValueError(f'model.norm={kind!r}: one of {NORMS}')


def conv_norm_relu(x, features: int, norm_kind: str, train: bool, name: str, stride: int = 1):
    """A 3x3 convolution `conv_NAME`, its normalization `norm_NAME`, and a ReLU, in x's type."""
    x = conv(features, 3, stride, f'conv_{name}', x.dtype)(x)
    return nn.relu(norm(norm_kind, train, f'norm_{name}', x.dtype)(x))


@jax.custom_vjp
def max_pool_2x2(x_BxHxWxI: jax.Array) -> jax.Array:
    """2x2 max pooling; equal maxima share the gradient.

    Its gradient is written out: XLA:CPU is 5 times slower at that of a reduction.
    """
    return _tiles(x_BxHxWxI).max((2, 4))


def _tiles(x):
    """[B, H/2, 2, W/2, 2, I]"""
    batch, height, width, features = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, features)


def _pool_backward(kept, g):
    x, y = kept
    x_tiles = _tiles(x)
    quarters = (x_tiles[:, :, a, :, b] for a in range(2) for b in range(2))
    share = g / sum(jnp.where(q == y, 1.0, 0.0) for q in quarters)
    tiles = jnp.where(x_tiles == y[:, :, None, :, None], share[:, :, None, :, None], 0)
    whole = tiles.reshape(x.shape[0], 2 * y.shape[1], 2 * y.shape[2], -1)
    return (jnp.pad(whole, [(0, n - m) for n, m in zip(x.shape, whole.shape)]),)


def _pool_forward(x):
    y = max_pool_2x2(x)
    return y, (x, y)


max_pool_2x2.defvjp(_pool_forward, _pool_backward)


def max_pool_3x3(x_BxHxWxI: jax.Array) -> jax.Array:
    """3x3 max pooling by stride 2, one pixel of padding on all sides: torch's `MaxPool2d(3, 2, 1)`.

    Rows, then columns, as the maximum of three maps; equal maxima share the gradient.
    """
    for axis in (1, 2):
        size = x_BxHxWxI.shape[axis]
        pad = [(0, 0)] * axis + [(0, size % 2)] + [(0, 0)] * (3 - axis)
        x = jnp.pad(x_BxHxWxI, pad, constant_values=-jnp.inf)
        x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (jax.lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in (0, 1))
        pad[axis] = (1, 0)
        before = jnp.pad(odd, pad, constant_values=-jnp.inf)
        before = jax.lax.slice_in_dim(before, 0, odd.shape[axis], axis=axis)
        x_BxHxWxI = jnp.maximum(before, jnp.maximum(even, odd))
    return x_BxHxWxI


class Input(nn.Module):
    """Standardization, then a magnification, a color matrix and a bias: the `input` layer.

    It starts as the identity.  The generator's `input` mode changes it, so that a center's images
    meet the first convolution in the base's colors and at the base's scale.

    Where variables have a collection `context`, its `map` [H, W, 3] is added to every image: the
    part of a center's context in a linear map of image and context (`baselines/arm.py`).

    standardize: 'none'; 'image' (zero mean and unit variance over an image's pixels and
        channels); 'channel' (over the pixels of each channel).
    magnified: False where outputs belong to places in the image: its scale stays as it is.
    dtype: of what it gives, and so of the products of all layers behind it.
    """

    standardize: str = 'image'
    magnified: bool = True
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array) -> jax.Array:
        if self.dtype not in DTYPES:
            raise ValueError(f'model.dtype={self.dtype!r}: one of {DTYPES}')
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
            log_zoom = self.param('log_zoom', nn.initializers.zeros, ())
            x = magnify(x, jnp.maximum(jnp.exp(log_zoom), MIN_SCALE))
        x = x @ matrix_3x3 + bias_3[None, None, None]
        if self.has_variable('context', 'map'):
            x += self.get_variable('context', 'map')[None]
        return x.astype(self.dtype)


def magnify(x_BxHxWx3: jax.Array, zoom: jax.Array) -> jax.Array:
    """Magnifies around the center, differentiably in `zoom`; the identity at 1."""
    rows, cols = (resample_matrix(n, zoom, 'nearest') for n in x_BxHxWx3.shape[1:3])
    return jnp.einsum('hi,biwc->bhwc', rows, jnp.einsum('wj,bhjc->bhwc', cols, x_BxHxWx3))


LECUN = nn.initializers.lecun_normal()
LAST_NORM = 'last_features'
LASTS = ('none', 'batch', 'center')


def last_norm(kind: str, train: bool, x: jax.Array) -> jax.Array:
    """The features [B, ..., I] before the last layer: as they are ('none'), or in float32 and
    normalized ('batch', 'center').

    By the statistics of a batch in training, and then by those that a center takes from its own
    images ('batch'); or in training too by those of the center's images ('center'), so that a batch
    of few images, of another class mix, or of a virtual center is not normalized by itself.
    """
    if kind not in LASTS:
        raise ValueError(f'model.last={kind!r}: one of {LASTS}')
    if kind == 'none':
        return x
    given = kind == 'center' or not train
    own = nn.BatchNorm(use_running_average=given, momentum=0.0, epsilon=1e-3, name=LAST_NORM)
    # A feature that is almost constant in one center's images may be large in another's.
    return jnp.clip(own(x.astype(jnp.float32)), -5, 5)


def last_features(
    model: nn.Module, variables: Mapping, x_BxHxWx3: jax.Array, train: bool
) -> tuple[dict, jax.Array | None]:
    """(batch statistics after a pass, what `last_norm` normalizes in it; None: it does not)."""
    found = {}

    def watch(next_function, args, kwargs, context):
        if context.module.name == LAST_NORM:
            found['x'] = args[0]
        return next_function(*args, **kwargs)

    with nn.intercept_methods(watch):
        _, new = model.apply(variables, x_BxHxWx3, train=train, mutable=['batch_stats'])
    return new.get('batch_stats', {}), found.get('x')


def statistics_of(x: jax.Array) -> dict[str, jax.Array]:
    """Mean and variance [I] of features [..., I], as batch normalization keeps them."""
    axes = tuple(range(x.ndim - 1))
    return {'mean': x.mean(axes), 'var': x.var(axes)}


def head(num_outputs: int, x: jax.Array, init: Callable = LECUN) -> jax.Array:
    """The last layer of a classifier: [B, I] in any type -> float32 [B, num_outputs]."""
    return nn.Dense(num_outputs, name='head', kernel_init=init)(x.astype(jnp.float32))
