"""Image, mask and box move together, and `resample_matrix` is the zoom it says it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax import shifts

KEY = jax.random.key(1)
BOX = np.array([12.0, 18.0, 22.0, 30.0], np.float32)


def square(height=48, width=48, box=BOX):
    """A white rectangle on black, with its mask, its box and a padded box."""
    y0, x0, y1, x1 = box.astype(int)
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    image = jnp.asarray(np.repeat(mask[..., None], 3, -1), jnp.float32)
    boxes = jnp.stack([jnp.asarray(box), jnp.zeros(4)])
    target = {'mask': jnp.asarray(mask), 'box': boxes, 'box_class': jnp.array([2, -1])}
    return image, target


def lens_zoom(low, high, edge):
    return shifts.lens((low, high), blur=None, resolution=None, edge=edge)


def extent(inside):
    rows, cols = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return np.array([rows[0], cols[0], rows[-1] + 1, cols[-1] + 1])


def agree(image, target, tolerance):
    """The image's white, the mask's 1 and the box cover the same pixels."""
    white, mask = np.asarray(image[..., 0]) > 0.5, np.asarray(target['mask']) == 1
    assert (white & mask).sum() / (white | mask).sum() > 1 - 0.1 * tolerance
    np.testing.assert_allclose(extent(mask), target['box'][0], atol=tolerance)


@pytest.mark.parametrize('make', [shifts.magnification, lens_zoom])
@pytest.mark.parametrize('scale', [0.6, 0.8, 1.3, 2.0])
def test_magnification_moves_mask_and_box(make, scale):
    image, target = square()
    shift = make(scale, scale, edge='nearest')
    out, new = jax.jit(shift.apply)(shift.sample(KEY), KEY, image, target)
    agree(out, new, 1.0)
    center = np.full(4, 24)
    expected = np.clip((BOX - center) * scale + center, 0, 48)
    np.testing.assert_allclose(new['box'][0], expected, atol=1e-4)
    np.testing.assert_array_equal(new['box_class'], [2, -1])


def test_magnification_two_doubles_the_box_of_a_wide_image():
    image, target = square(40, 64, np.array([16.0, 26.0, 24.0, 36.0], np.float32))
    shift = shifts.magnification(2, 2)
    out, new = jax.jit(shift.apply)(shift.sample(KEY), KEY, image, target)
    agree(out, new, 1.0)
    sides = [np.asarray(b[0][2:] - b[0][:2]) for b in (target['box'], new['box'])]
    np.testing.assert_allclose(sides[1], 2 * sides[0])


def test_a_box_that_leaves_the_image_loses_its_class():
    image, target = square(box=np.array([0.0, 0.0, 6.0, 6.0], np.float32))
    shift = shifts.magnification(2, 2)
    _, new = jax.jit(shift.apply)(shift.sample(KEY), KEY, image, target)
    np.testing.assert_array_equal(new['box_class'], [-1, -1])
    assert new['box'].min() >= 0


def test_plain_shifts_are_exact_and_reach_every_orientation():
    image = jax.random.uniform(jax.random.key(0), (48, 48, 3))
    _, target = square()
    image = image.at[12:22, 18:30].set(1.0)
    seen = set()
    shift = shifts.plain()
    apply = jax.jit(lambda k: shift.apply(shift.sample(k), k, image, target))
    orientations = [np.rot90(m, k) for m in (image, image[:, ::-1]) for k in range(4)]
    for seed in range(40):
        out, new = apply(jax.random.key(seed))
        seen.add(next(i for i, o in enumerate(orientations) if np.array_equal(out, o)))
        y0, x0, y1, x1 = np.asarray(new['box'][0]).astype(int)
        assert (out[y0:y1, x0:x1] == 1).all()
        np.testing.assert_array_equal(extent(np.asarray(new['mask']) == 1), new['box'][0])
    assert seen == set(range(8))


def test_flip_handles_wide_images_and_turns_refuse_them():
    image, target = square(32, 64)
    for seed in range(4):
        agree(*shifts.flip().apply((), jax.random.key(seed), image, target), 1e-3)
    for flags, axis in (((True, False), 1), ((False, True), 0)):
        outs = [shifts.flip(*flags).apply((), jax.random.key(s), image, {})[0] for s in range(8)]
        flipped = [np.array_equal(o, np.flip(image, axis)) for o in outs]
        assert 0 < sum(flipped) < 8
        assert all(f or np.array_equal(o, image) for f, o in zip(flipped, outs))
    with pytest.raises(ValueError, match='32x64: use flip'):
        shifts.quarter_turns().apply((), KEY, image, target)


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_rotation_by_right_angles_is_a_quarter_turn(turns):
    image, target = square()
    shift = shifts.rotation(90 * turns, 90 * turns, edge='nearest')
    out, new = shift.apply((), KEY, image, target)
    np.testing.assert_allclose(out, np.rot90(image, turns), atol=1e-4)
    agree(out, new, 1.0)


def test_rotation_by_any_angle_keeps_the_object_in_its_box():
    image, target = square()
    shift = shifts.rotation(-30, 30, edge='nearest')
    out, new = shift.apply((), KEY, image, target)
    found, box = extent(np.asarray(out[..., 0]) > 0.5), np.asarray(new['box'][0])
    np.testing.assert_allclose(found, box, atol=1.5)
    white, mask = np.asarray(out[..., 0]) > 0.5, np.asarray(new['mask']) == 1
    assert (white & mask).sum() / (white | mask).sum() > 0.9


@pytest.mark.parametrize('edge', ['reflect', 'nearest'])
@pytest.mark.parametrize('scale', [0.25, 0.7, 1.0, 1.9])
def test_resample_matrix_maps_a_wave_to_the_zoomed_wave(edge, scale):
    matrix = shifts.resample_matrix(64, scale, edge)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
    if scale == 1:
        np.testing.assert_allclose(matrix, np.eye(64), atol=1e-6)
    x = np.arange(64) - 31.5
    wave = np.cos(0.08 * x).astype(np.float32)
    inside = np.abs(x) < 24 * min(scale, 1)
    np.testing.assert_allclose((matrix @ wave)[inside], np.cos(0.08 * x / scale)[inside], atol=0.06)


def test_edges_are_what_they_are_called():
    signal = jnp.arange(8.0)
    reflected = shifts.resample_matrix(8, 0.5, 'reflect') @ signal
    repeated = shifts.resample_matrix(8, 0.5, 'nearest') @ signal
    assert reflected[0] > 1.5 and reflected[-1] < 5.5
    np.testing.assert_allclose(repeated[jnp.array([0, -1])], [0, 7], atol=0.1)
    with pytest.raises(ValueError, match='choose one of reflect, nearest'):
        shifts.resample_matrix(8, 0.5, 'wrap')


@pytest.mark.parametrize('scale', [0.8, 1.0, 1.2])
def test_resample_matrix_is_differentiable_in_scale(scale):
    matrix = jax.jit(lambda scale: shifts.resample_matrix(16, scale))
    step = 1e-3
    difference = (matrix(scale + step) - matrix(scale - step)) / (2 * step)
    assert jnp.abs(difference).max() > 1
    np.testing.assert_allclose(jax.jacfwd(matrix)(scale), difference, atol=0.1)


def test_a_range_below_a_quarter_is_refused():
    with pytest.raises(ValueError, match=r'zoom \[0.1, 1\]'):
        shifts.magnification(0.1, 1)
