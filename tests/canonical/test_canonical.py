"""Canonical input: the identity at the reference, the inverse of a known change, robust to junk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.canonical import (
    PRESETS,
    carried_back,
    make_input,
    mean_moments,
    on_canonical,
    own_change,
)
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import Examples, take

SIZE = 48
AREA = 8.0  # what log areas are divided by


@functools.cache
def made(preset, zoom=(0.5, 2.0)):
    return make_input(PRESETS[preset](0.0), zoom, 'reflect', lambda s: s)


@pytest.fixture(scope='module')
def cells():
    """A drawn center's images with masks and boxes."""
    drawn = jax.device_get(synthetic.draw_client(jax.random.key(0), 1, 60, SIZE))
    return Examples(drawn.image, {k: drawn.target[k] for k in ('mask', 'box', 'box_class')},
                    drawn.weight)


def with_images(examples, image):
    return examples._replace(image=np.clip(np.round(image), 0, 255).astype(np.uint8))


@pytest.mark.parametrize('preset', PRESETS)
def test_at_the_reference_nothing_changes(preset, cells):
    reference = mean_moments(made(preset), [cells])
    change = own_change(made(preset), reference, cells)
    got = on_canonical(made(preset), change, cells)
    assert np.abs(got.image.astype(int) - cells.image).max() <= 1
    np.testing.assert_array_equal(got.target['mask'], cells.target['mask'])


@pytest.mark.parametrize('preset', PRESETS)
def test_moments_are_bounded_and_add(preset, cells):
    junk = np.random.default_rng(0).integers(0, 256, cells.image.shape).astype(np.uint8)
    for image in (cells.image, junk, np.zeros_like(junk), np.full_like(junk, 255)):
        m_NxM = made(preset).moments(image)
        assert np.isfinite(m_NxM).all() and (np.linalg.norm(m_NxM, axis=1) <= 1 + 1e-6).all()
    halves = [take(cells, slice(0, 20)), take(cells, slice(20, None))]
    together = mean_moments(made(preset), halves)
    np.testing.assert_array_equal(together, mean_moments(made(preset), halves[::-1]))
    np.testing.assert_allclose(together, mean_moments(made(preset), [cells]), atol=1e-6)


def test_another_stain_and_background_are_taken_back(cells):
    """Optical density times a gain, behind another light: the original comes back."""
    light = np.maximum(cells.image / 255, 1 / 255)
    back, gain = np.array([0.95, 0.8, 0.75]), np.array([0.7, 0.85, 1.2])
    stained = with_images(cells, 255 * back * light**gain)
    reference = mean_moments(made('brightfield'), [cells])
    change = own_change(made('brightfield'), reference, stained)
    got = on_canonical(made('brightfield'), change, stained)
    before, after = (np.abs(x.image.astype(float) - cells.image).mean() for x in (stained, got))
    assert after < 3 and after < 0.2 * before
    np.testing.assert_allclose(change.colors['gain'], 1 / gain, rtol=0.1)


def test_another_magnification_is_taken_back(cells):
    drawn = [
        jax.device_get(synthetic.draw_client(jax.random.key(0), 1, 40, size))
        for size in (SIZE, 60)
    ]
    wide, near = (Examples(d.image, {}, d.weight) for d in drawn)
    near = near._replace(image=near.image[:, 6:54, 6:54])  # the middle: 1.25 times as large
    reference = mean_moments(made('brightfield'), [wide])
    change = own_change(made('brightfield'), reference, near)
    assert 0.72 < change.zoom < 0.9  # 0.8, but that the crop hides what it cuts
    held = own_change(made('brightfield', (1.0, 1.0)), reference, near)
    assert held.zoom == 1


def test_nuclei_fill_the_named_share_of_smaller_images(cells):
    """Moments are measured again in what comes out, which has half as many pixels a side."""
    plain = Examples(cells.image, {}, cells.weight)
    large = make_input(PRESETS['brightfield'](0.2), (0.5, 2.5), 'reflect', lambda s: s, SIZE // 2)
    reference = mean_moments(large, [plain])
    change = own_change(large, reference, plain)
    got = on_canonical(large, change, plain)
    assert got.image.shape == (len(plain.image), SIZE // 2, SIZE // 2, 3)
    m_M = mean_moments(large, [got])
    assert abs(np.exp(AREA * m_M[8] / m_M[4]) - 0.2) < 0.05
    with pytest.raises(ValueError, match='input.size'):
        on_canonical(large, change, cells)


def test_contrast_and_brightness_are_taken_back(cells):
    reference = mean_moments(made('gray'), [cells])
    dull = with_images(cells, 60 + 0.6 * cells.image)
    change = own_change(made('gray'), reference, dull)
    got = on_canonical(made('gray'), change, dull)
    assert np.abs(got.image.astype(float) - cells.image).mean() < 2


@pytest.mark.parametrize('preset', PRESETS)
def test_junk_is_left_as_it_is(preset, cells):
    """Blank images have nothing to measure; black bars are no part of an image."""
    reference = mean_moments(made(preset), [cells])
    blank = cells._replace(image=np.zeros_like(cells.image))
    np.testing.assert_array_equal(
        on_canonical(made(preset), own_change(made(preset), reference, blank), blank).image, 0
    )
    nobody = cells._replace(weight=np.zeros_like(cells.weight))
    change = own_change(made(preset), reference, nobody)
    got = on_canonical(made(preset), change, cells)
    assert np.abs(got.image.astype(int) - cells.image).max() <= 1


def test_black_bars_and_blank_images_hardly_move_a_center_s_change(cells):
    reference = mean_moments(made('brightfield'), [cells])
    image = cells.image.copy()
    image[:, :6], image[:, -6:] = 0, 0
    image[:5] = 0
    barred = own_change(made('brightfield'), reference, cells._replace(image=image))
    np.testing.assert_allclose(barred.colors['gain'], 1, atol=0.1)
    np.testing.assert_allclose(barred.zoom, 1, atol=0.1)


def test_few_images_and_one_class_give_a_finite_change(cells):
    reference = mean_moments(made('brightfield'), [cells])
    change = own_change(made('brightfield'), reference, take(cells, slice(0, 5)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(change))
    assert 0.5 <= change.zoom <= 2


def test_predictions_are_carried_back_to_the_center_s_own_places(cells):
    reference = mean_moments(made('brightfield'), [cells])
    change = own_change(made('brightfield'), reference, cells)._replace(zoom=np.float32(0.8))
    moved = on_canonical(made('brightfield'), change, cells)
    assert (moved.target['mask'] == 2).sum() < 0.75 * (cells.target['mask'] == 2).sum()
    score = jnp.ones(moved.target['box_class'].shape)
    back = carried_back(change, {**moved.target, 'score': score}, (SIZE, SIZE), 'reflect')
    truth, found = cells.target['mask'] == 2, back['mask'] == 2
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.95
    real = moved.target['box_class'] >= 0
    np.testing.assert_allclose(back['box'][real], cells.target['box'][real], atol=1e-3)
