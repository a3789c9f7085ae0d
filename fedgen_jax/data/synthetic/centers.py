"""Synthetic centers: drawn blood smears, seen through each center's own microscope.

A center is a pure function of `(key, client id)`: its acquisition, its class prevalence and its
images are computed where they are needed and stored nowhere.  One image serves classification,
segmentation and detection.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.data import examples as ex
from fedgen_jax.data import split
from fedgen_jax.data.synthetic import smear

VERSION = 1  # of what is drawn; raising it makes stores anew

CLASSES = smear.CLASSES
MAX_BOXES = smear.MAX_BOXES
CLASSES_OF = {'label': CLASSES, 'mask': smear.MASK_CLASSES, 'box': smear.BOX_CLASSES}
ACQUISITION, PREVALENCE, IMAGES = range(3)  # streams of a client's key

# Optical density in red, green and blue of one unit of azure, eosin and hemoglobin.
STAINS: Any = np.array([[1.8, 2.8, 0.9], [0.2, 1.1, 0.8], [0.35, 0.75, 0.55]], np.float32)

ILLUMINANT: Any = np.array([0.9, 0.82, 0.7], np.float32)  # white light through bare glass

BATCH_PIXELS = 2**17  # drawn at once


class Acquisition(NamedTuple):
    """A center's stain, microscope and camera; all float32.

    stain_3x3:     optical density of each dye (azure, eosin, hemoglobin) in R, G, B.
    magnification: 1 shows `smear.FIELD` um across the image.
    defocus:       standard deviation of the blur, um.
    illuminant_3:  the light that bare glass passes, with the camera's white balance.
    tilt_2:        relative change of the light from the middle to the edge, down and right.
    vignette:      part of the light lost in the corners.
    glare:         part of the light that the dyes never met.
    gamma:         exponent of the tone curve (the inverse of display gamma).
    noise:         standard deviation of the noise of bare glass, linear light; it goes with the
                   square root of the light.
    compression:   quantization step of the lowest spatial frequency of 8x8 blocks, of 255.
    """

    stain_3x3: jax.Array
    magnification: jax.Array
    defocus: jax.Array
    illuminant_3: jax.Array
    tilt_2: jax.Array
    vignette: jax.Array
    glare: jax.Array
    gamma: jax.Array
    noise: jax.Array
    compression: jax.Array


def sample_acquisition(key, spread=1.0) -> Acquisition:
    """Draws a center's acquisition; at `spread` 0 every center has the same reference one."""
    normal_25 = spread * jax.random.truncated_normal(key, -2.0, 2.0, (25,))
    strength_3x1, hue_3x3 = normal_25[8:11, None], normal_25[11:20].reshape(3, 3)
    balance_3, tilt_2 = normal_25[20:23], normal_25[23:25]
    return Acquisition(
        stain_3x3=STAINS * jnp.exp(0.18 * strength_3x1 + 0.12 * hue_3x3),
        magnification=jnp.exp(0.16 * normal_25[0]),
        defocus=0.2 * jnp.exp(0.6 * normal_25[1]),
        illuminant_3=ILLUMINANT * jnp.exp(0.06 * normal_25[2] + 0.08 * balance_3),
        tilt_2=0.08 * tilt_2,
        vignette=0.1 * jnp.exp(0.5 * normal_25[3]),
        glare=0.05 * jnp.exp(0.6 * normal_25[4]),
        gamma=0.45 * jnp.exp(0.1 * normal_25[5]),
        noise=0.015 * jnp.exp(0.5 * normal_25[6]),
        compression=3.0 * jnp.exp(0.6 * normal_25[7]),
    )


def draw(key, acquisition, label, image_size):
    """One image uint8 [H, W, 3] with its target (leaves as in `Examples`, less `N`).

    The cells come from `key`, `label` and the magnification alone: another acquisition of the same
    magnification gives the same mask and boxes.
    """
    key_smear, key_camera = jax.random.split(key)
    pixel = smear.FIELD / (image_size * acquisition.magnification)
    dye_HxWx3, target = smear.draw_smear(key_smear, label, image_size, pixel)
    return photograph(key_camera, acquisition, dye_HxWx3, pixel), target


def photograph(key, acquisition, dye_HxWx3, pixel):
    """The camera's uint8 image of a smear; `pixel` is the size of one on the glass, um."""
    a, size = acquisition, dye_HxWx3.shape[0]
    normal = jax.random.normal(key, (5 + 3 * size**2,))
    slide_5, noise_HxWx3 = normal[:5], normal[5:].reshape(size, size, 3)
    # No two slides of a center are stained, focused and lit quite alike.
    stain_3x3 = a.stain_3x3 * jnp.exp(0.12 * slide_5[:3, None])
    defocus = a.defocus * jnp.exp(0.3 * slide_5[3])
    exposure = jnp.exp(0.04 * slide_5[4])

    density_HxWx3 = jnp.einsum('hwd,dc->hwc', dye_HxWx3, stain_3x3, precision='highest')
    light_HxWx3 = a.glare + (1.0 - a.glare) * jnp.exp(-density_HxWx3)  # Beer-Lambert
    light_HxWx3 = _separable(_gaussian(size, defocus / pixel), light_HxWx3)
    y_HxW, x_HxW = jnp.meshgrid(*[jnp.linspace(-1.0, 1.0, size)] * 2, indexing='ij')
    field_HxW = 1.0 + a.tilt_2[0] * y_HxW + a.tilt_2[1] * x_HxW
    field_HxW *= exposure * (1.0 - a.vignette * 0.5 * (y_HxW**2 + x_HxW**2))
    light_HxWx3 *= field_HxW[:, :, None] * a.illuminant_3[None, None]

    light_HxWx3 += a.noise * noise_HxWx3 * jnp.sqrt(light_HxWx3)
    image_HxWx3 = 255.0 * jnp.clip(light_HxWx3, 1e-4, 1.0) ** a.gamma
    image_HxWx3 = _compress(image_HxWx3, a.compression)
    return jnp.round(jnp.clip(image_HxWx3, 0.0, 255.0)).astype(jnp.uint8)


def client_prevalence(key, client_id, concentration=2.0):
    """A client's class probabilities [K]: Dirichlet with `concentration` for each class."""
    key = jax.random.fold_in(jax.random.fold_in(key, client_id), PREVALENCE)
    return jax.random.dirichlet(key, jnp.full(len(CLASSES), concentration, jnp.float32))


def client_acquisition(key, client_id, spread=1.0, scanner=0) -> Acquisition:
    """A client's acquisition; each number of `scanner` is another one."""
    key = jax.random.fold_in(jax.random.fold_in(key, client_id), ACQUISITION)
    return sample_acquisition(jax.random.fold_in(key, scanner), spread)


@functools.partial(jax.jit, static_argnames=('num_examples', 'image_size'))
def draw_client(
    key, client_id, num_examples, image_size, *, spread=1.0, prevalence_concentration=2.0, scanner=0
) -> ex.Examples:
    """A client's examples (JAX arrays), from `(key, client_id)` alone.

    Fewer examples are the first of more.  Another `scanner` shows the same cells, in the same
    order, after the center changed its acquisition.
    """
    acquired = client_acquisition(key, client_id, spread, scanner)
    share_K = client_prevalence(key, client_id, prevalence_concentration)
    key = jax.random.fold_in(jax.random.fold_in(key, client_id), IMAGES)

    def one(index):
        key_label, key_image = jax.random.split(jax.random.fold_in(key, index))
        label = jax.random.categorical(key_label, jnp.log(share_K))
        return draw(key_image, acquired, label, image_size)

    # Batches bound the memory, for each of an image's cells has an array of its own.  They are all
    # of one size, a few images over, because a last batch of another size compiles once more.
    batches = -(-num_examples * image_size**2 // BATCH_PIXELS)
    batch_size = -(-num_examples // batches)
    image, target = jax.lax.map(one, jnp.arange(batches * batch_size), batch_size=batch_size)
    image, target = jax.tree.map(lambda x: x[:num_examples], (image, target))
    return ex.Examples(image, target, jnp.ones(num_examples, jnp.float32))


def centers(
    num_centers, num_examples, image_size, seed, spread=1.0, *,
    prevalence_concentration=2.0, scanner=0,
) -> tuple[ex.Center, ...]:
    """Clients 0, 1, ... on the host, as centers 'synthetic-0', ..., split 60/20/20 by label.

    Another `scanner` gives the same cells, splits and paths after every center has changed its
    acquisition.
    """
    made = []
    for client_id in range(num_centers):
        examples = jax.device_get(draw_client(
            jax.random.key(seed), client_id, num_examples, image_size, spread=spread,
            prevalence_concentration=prevalence_concentration, scanner=scanner,
        ))
        name = f'synthetic-{client_id}'
        path = tuple(f'{name}/{i:05d}' for i in range(num_examples))
        unknown = [''] * num_examples
        split_N = split.assign_splits(
            name, path, unknown, examples.target['label'].tolist(), unknown, seed
        )
        made.append(ex.Center(name, examples, split_N, path, path))
    return tuple(made)


def _separable(matrix_SxS, image_SxSx3):
    """Applies one matrix along the rows and along the columns of an image."""
    return jnp.einsum('yh,hwc,xw->yxc', matrix_SxS, image_SxSx3, matrix_SxS, precision='highest')


def _gaussian(size, sigma):
    """A blur of `sigma` pixels as a matrix [S, S] whose rows sum to 1."""
    index = jnp.arange(size, dtype=jnp.float32)
    return jax.nn.softmax(-0.5 * ((index[:, None] - index[None]) / sigma) ** 2, axis=1)


def _compress(image_HxWx3, step):
    """Quantizes the cosine transform of 8x8 blocks, the fine frequencies more coarsely, as JPEG."""
    size = image_HxWx3.shape[0]
    blocks = -(-size // 8)
    u, x = np.arange(8)[:, None], np.arange(8)[None]
    cosine_8x8 = np.where(u == 0, np.sqrt(1 / 8), 0.5 * np.cos(np.pi * (2 * x + 1) * u / 16))
    cosine = jnp.asarray(np.kron(np.eye(blocks), cosine_8x8), jnp.float32)
    step_HxW = step * jnp.asarray(np.tile(1.0 + 0.5 * (u + x), (blocks, blocks)), jnp.float32)
    margin = (0, 8 * blocks - size)
    image_HxWx3 = jnp.pad(image_HxWx3, (margin, margin, (0, 0)), mode='edge')
    wave_HxWx3 = jnp.round(_separable(cosine, image_HxWx3) / step_HxW[:, :, None])
    return _separable(cosine.T, wave_HxWx3 * step_HxW[:, :, None])[:size, :size]
