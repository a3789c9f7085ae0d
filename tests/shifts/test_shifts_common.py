"""What holds for every shift: range, dtype, determinism, neutrality, real images."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fedgen_jax import shifts

SIZE = 24
REFERENCE = shifts.amplitude(jnp.full((SIZE, SIZE, 3), 0.3))[None]

SHIFTS = {
    'gamma': shifts.gamma(),
    'brightness': shifts.brightness(),
    'contrast': shifts.contrast(),
    'color_matrix': shifts.color_matrix(),
    'hed_stain': shifts.hed_stain(),
    'bias_field': shifts.bias_field(),
    'low_frequency': shifts.low_frequency(),
    'amplitude_mix': shifts.amplitude_mix(REFERENCE),
    'magnification': shifts.magnification(),
    'magnification_nearest': shifts.magnification(edge='nearest'),
    'blur': shifts.blur(),
    'resolution': shifts.resolution(),
    'lens': shifts.lens(),
    'gaussian': shifts.gaussian(),
    'poisson': shifts.poisson(),
    'rician': shifts.rician(),
    'sensor': shifts.sensor(),
    'flip': shifts.flip(),
    'quarter_turns': shifts.quarter_turns(),
    'rotation': shifts.rotation(),
    'sometimes': shifts.sometimes(shifts.gamma(), 0.9),
    'plain': shifts.plain(),
    'speckle': shifts.speckle(),
    'collimation': shifts.collimation(),
    **{name: preset() for name, preset in shifts.PRESETS.items()},
}

NEUTRAL = {
    'gamma': shifts.gamma(1, 1),
    'brightness': shifts.brightness(0, 0),
    'contrast': shifts.contrast(1, 1),
    'color_matrix': shifts.color_matrix(0, 0, 0),
    'hed_stain': shifts.hed_stain(0, 0),
    'bias_field': shifts.bias_field(0),
    'low_frequency': shifts.low_frequency(0),
    'amplitude_mix': shifts.amplitude_mix(REFERENCE, high=0),
    'magnification': shifts.magnification(1, 1),
    'blur': shifts.blur(0, 0),
    'resolution': shifts.resolution(1, 1),
    'gaussian': shifts.gaussian(0, 0),
    'poisson': shifts.poisson(1e12, 1e12),
    'rician': shifts.rician(0, 0),
    'sensor': shifts.sensor(0, 0),
    'rotation': shifts.rotation(0, 0),
    'sometimes': shifts.sometimes(shifts.gamma(), 0.0),
    'lens_never': shifts.lens(probability=0.0),
    'speckle': shifts.speckle(0, 0),
    'collimation': shifts.collimation(0),
    'brightfield': shifts.PRESETS['brightfield'](0.0),
    'photo': shifts.PRESETS['photo'](0.0),
}


def batch(size=SIZE, count=4):
    """Random images from black to white, with a mask and two boxes (one of them padding)."""
    images = jax.random.uniform(jax.random.key(9), (count, size, size, 3), minval=-0.1, maxval=1.1)
    mask = jax.random.randint(jax.random.key(8), (count, size, size), 0, 3)
    box = jnp.array([[3.0, 5.0, 11.0, 17.0], [0.0, 0.0, 0.0, 0.0]])
    target = {
        'label': jnp.arange(count),
        'mask': mask.astype(jnp.uint8),
        'box': jnp.broadcast_to(box[None], (count, 2, 4)),
        'box_class': jnp.broadcast_to(jnp.array([[1, -1]]), (count, 2)),
    }
    return jnp.clip(images, 0, 1), target


def runner(shift):
    """(seed, images, target) -> a batch of one virtual center, compiled once."""

    # Each is compiled for one or two calls: half the time of these tests is LLVM's.
    @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
    def call(key, images, target):
        k1, k2 = jax.random.split(key)
        return shifts.apply_batch(shift, shift.sample(k1), k2, images, target)

    return lambda seed, images, target: call(jax.random.key(seed), images, target)


@pytest.mark.parametrize('name', SHIFTS)
def test_changes_the_image_and_keeps_range_dtype_and_shape(name):
    images, target = batch()
    run = runner(SHIFTS[name])
    out, new = run(0, images, target)
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
        lambda x: (x.shape, x.dtype), target
    )
    assert out.min() >= 0 and out.max() <= 1
    assert jnp.abs(out - images).max() > 0.01
    np.testing.assert_array_equal(new['label'], target['label'])
    np.testing.assert_array_equal(new['box_class'][:, 1], -1)
    same, _ = run(0, images, target)
    np.testing.assert_array_equal(out, same)
    other, _ = run(1, images, target)
    assert jnp.abs(out - other).max() > 1e-3


@pytest.mark.parametrize('name', NEUTRAL)
def test_neutral_ranges_change_nothing(name):
    images, target = batch()
    out, new = runner(NEUTRAL[name])(0, images, target)
    np.testing.assert_allclose(out, images, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new, target)


@pytest.mark.parametrize('name', ['gamma', 'hed_stain', 'lens', 'bias_field', 'low_frequency'])
def test_a_virtual_center_treats_equal_images_alike(name):
    images = jnp.broadcast_to(batch()[0][:1], (3, SIZE, SIZE, 3))
    out, _ = runner(SHIFTS[name])(0, images, {})
    np.testing.assert_array_equal(out[0], out[1])
    np.testing.assert_allclose(out[0], out[2], atol=1e-6)


@pytest.mark.parametrize('name', ['gaussian', 'poisson', 'rician', 'hed_stain', 'gamma', 'lens'])
def test_params_and_image_have_gradients_that_are_finite(name):
    shift = SHIFTS[name]
    images, _ = batch(count=1)
    image = images[0].at[:2].set(0.0).at[2:4].set(1.0)
    params = shift.sample(jax.random.key(3))

    def total(params, image):
        return shift.apply(params, jax.random.key(4), image, {})[0].sum()

    to_params, to_image = jax.jit(jax.grad(total, argnums=(0, 1)))(params, image)
    for grads in (jax.tree.leaves(to_params), [to_image]):
        assert all(jnp.isfinite(g).all() for g in grads)
        assert max(jnp.abs(g).max() for g in grads) > 0


def test_maps_over_centers_as_one_by_one():
    shift = shifts.chain(shifts.lens(), shifts.sometimes(shifts.sensor()), shifts.plain())
    images, target = batch()
    keys = jax.random.split(jax.random.key(0), 3)

    def center(key):
        return shifts.apply_batch(shift, shift.sample(key), key, images, target)

    together, apart = jax.jit(lambda k: (jax.vmap(center)(k), jax.lax.map(center, k)))(keys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), together, apart)


def test_sometimes_is_all_or_nothing_at_its_rate():
    shift = shifts.sometimes(shifts.brightness(0.2, 0.2), 0.3)
    image = jnp.full((2, 2, 3), 0.5)
    keys = jax.random.split(jax.random.key(0), 500)
    outs = jax.vmap(lambda k: shift.apply(shift.sample(k), k, image, {})[0].mean())(keys)
    on = np.isclose(outs, 0.7)
    assert np.all(on | np.isclose(outs, 0.5))
    assert 0.22 < on.mean() < 0.38


@pytest.mark.parametrize('name', shifts.PRESETS)
def test_strength_moves_every_parameter_between_neutral_and_full(name):
    for seed in range(3):
        none, half, full = (
            jax.tree.leaves(shifts.PRESETS[name](s).sample(jax.random.key(seed)))
            for s in (0.0, 0.5, 1.0)
        )
        for a, b, c in zip(none, half, full):
            if a.dtype == jnp.float32:
                assert ((jnp.abs(b - a) < jnp.abs(c - a)) | (c == a)).all()
                assert (jnp.sign(b - a) == jnp.sign(c - a)).all()
            else:
                assert a == b == c


RECOGNIZABLE = (
    'gamma', 'contrast', 'color_matrix', 'hed_stain', 'bias_field', 'blur', 'resolution', 'sensor',
    'brightfield', 'photo',
)


@pytest.mark.real
@pytest.mark.extended
def test_real_images_stay_finite_and_recognizable(data_root):
    root = data_root / 'wbc_cls'
    if not root.is_dir():
        pytest.skip(f'no {root}')
    with open(root / 'manifest.csv') as f:
        first = {row['center']: row['image'] for row in csv.DictReader(f)}
    images = []
    for path in first.values():
        with Image.open(root / path) as image:
            images.append(np.asarray(image.convert('RGB').resize((SIZE, SIZE)), np.float32) / 255)
    images = jnp.asarray(np.stack(images))
    assert len(images) == 5
    for name, shift in SHIFTS.items():
        out, _ = runner(shift)(0, images, {})
        assert jnp.isfinite(out).all(), name
        assert out.min() >= 0 and out.max() <= 1, name
        if name in RECOGNIZABLE:
            for before, after in zip(images, out):
                assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.6, name


@pytest.mark.parametrize('name', ['xray', 'mri', 'ct', 'ultrasound'])
def test_gray_images_stay_gray_and_a_strength_of_0_leaves_them(name):
    images, target = batch()
    gray = jnp.broadcast_to(images[..., :1], images.shape)
    out, _ = runner(SHIFTS[name])(0, gray, target)
    np.testing.assert_array_equal(out, jnp.broadcast_to(out[..., :1], out.shape))
    same, new = runner(shifts.PRESETS[name](0.0))(0, gray, target)
    np.testing.assert_allclose(same, gray, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new, target)
