"""Images from gradients: an attack on the run's network, and one that always works.

By matching: an image is moved until its gradient points as the one that was sent (cosine, with a
prior of smooth images).  Beside it stand what the prior makes alone, and the flat mean color: an
attack below these has found nothing, which is no proof that nothing can be found.

In closed form: where images enter a dense layer, x = sum_i (dW_i db_i) / sum_i db_i^2.  A server
that sends such a layer before the network reads the image from one gradient.  Clipping changes
nothing of a ratio; noise does.

References:
    Geiping et al. 2020, Inverting gradients (equation 4); Fowl et al. 2022, Robbing the Fed
    (layers that a server puts in front); Wang et al. 2004, Image quality assessment (SSIM).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.ndimage import uniform_filter

from fedgen_jax.algorithms.optimizers import annealed

RATE, SMOOTH = 0.01, 0.02
UNITS = 64  # of the dense layer
SEED = 5


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise of images in [0, 1], dB; at most 150."""
    return float(min(150.0, -10 * np.log10(np.mean((a - b) ** 2) + 1e-15)))


def ssim(a_HxWx3: np.ndarray, b_HxWx3: np.ndarray, window: int = 7) -> float:
    """Structural similarity of images in [0, 1], the mean over windows and channels."""
    def mean(x):
        edge = window // 2
        found = uniform_filter(x, (window, window, 1))
        return found[edge : x.shape[0] - edge, edge : x.shape[1] - edge]

    a, b = np.asarray(a_HxWx3, np.float64), np.asarray(b_HxWx3, np.float64)
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    each = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(each.mean())


def variation(x_HxWx3: jax.Array) -> jax.Array:
    """How far neighboring pixels differ, the mean."""
    return jnp.abs(jnp.diff(x_HxWx3, axis=0)).mean() + jnp.abs(jnp.diff(x_HxWx3, axis=1)).mean()


def cosine_gap(a, b) -> jax.Array:
    """1 - the cosine of two gradients."""
    dot = sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    return 1 - dot / (optax.tree.norm(a) * optax.tree.norm(b) + 1e-12)


def matched(
    gradient: Callable, sent, shape: tuple[int, ...], steps: int, match: float = 1.0
) -> jax.Array:
    """The image whose gradient is like the one that was `sent`, by descent on the gap's sign.

    match: weight of the gradient; 0: the prior alone.
    """
    def gap(x):
        found = SMOOTH * variation(x)
        return found + match * cosine_gap(gradient(x), sent) if match else found

    optimizer = optax.sgd(annealed(RATE, steps), momentum=0.9)
    first = jax.random.uniform(jax.random.key(SEED), shape)

    def step(carry, _):
        x, opt = carry
        updates, opt = optimizer.update(jnp.sign(jax.grad(gap)(x)), opt, x)
        return (jnp.clip(optax.apply_updates(x, updates), 0, 1), opt), None

    return jax.lax.scan(step, (first, optimizer.init(first)), None, steps)[0][0]


def closed_form(kernel_IxF: np.ndarray, bias_F: np.ndarray) -> np.ndarray:
    """What a dense layer was given [I], from its gradient of one example."""
    return kernel_IxF @ bias_F / max(float(bias_F @ bias_F), 1e-30)


def dense_gradient(image_HxWx3: np.ndarray, label: int, classes: int) -> dict[str, np.ndarray]:
    """The gradient of a dense layer of `UNITS` before a classifier, of one image: float64."""
    keys = jax.random.split(jax.random.key(SEED))
    size = image_HxWx3.size
    layer = {
        'kernel': jax.random.normal(keys[0], (size, UNITS)) / size**0.5, 'bias': jnp.zeros(UNITS)
    }
    out = jax.random.normal(keys[1], (UNITS, classes)) / UNITS**0.5

    def loss(layer):
        hidden = jax.nn.relu(jnp.ravel(image_HxWx3) @ layer['kernel'] + layer['bias'])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ out, jnp.int32(label))

    return {k: np.asarray(v, np.float64) for k, v in jax.grad(loss)(layer).items()}


def protected(gradient: dict, clip: float, sigma: float, seed: int = 0) -> dict:
    """A gradient clipped to a norm, with noise of `sigma` times it, as private steps have it."""
    norm = np.sqrt(sum(np.sum(v**2) for v in gradient.values()))
    rng, factor = np.random.default_rng(seed), min(1.0, clip / norm)
    return {
        k: factor * v + sigma * clip * rng.standard_normal(v.shape) for k, v in gradient.items()
    }
