"""Squares of images and masks of any proportions."""

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.folder import decode, square

SIZES = [(1, 1), (30, 20), (20, 30), (48, 48), (97, 12), (13, 100), (300, 41), (5, 39)]


@pytest.fixture(params=[2**24, 500])
def rows(monkeypatch, request):
    """Padded at once, or a few rows at a time."""
    monkeypatch.setattr(square, '_ROWS', request.param)


@pytest.mark.parametrize('width, height', SIZES)
def test_an_image_is_padded_then_resized(width, height, rows):
    x = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    side, y0, x0 = decode.square_frame(width, height)
    canvas = Image.new('RGB', (side, side))
    canvas.paste(Image.fromarray(x), (x0, y0))
    for size in (7, 48, 64):
        wanted = np.array(canvas.resize((size, size), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(decode.square_image(Image.fromarray(x), size), wanted)


@pytest.mark.parametrize('width, height', SIZES)
def test_a_mask_is_padded_then_resized(width, height, rows):
    x = np.random.default_rng(0).integers(0, 3, (height, width), np.uint8)
    x[0, 0] = 255
    side, y0, x0 = decode.square_frame(width, height)
    canvas = np.full((side, side), 255, np.uint8)
    canvas[y0 : y0 + height, x0 : x0 + width] = x
    values = np.unique(canvas)
    for size in (7, 48, 64):
        cover = [
            Image.fromarray((canvas == v).astype(np.float32))
            .resize((size, size), Image.Resampling.BOX) for v in values
        ]
        wanted = values[np.argmax(np.stack(cover), axis=0)]
        np.testing.assert_array_equal(decode.square_mask(x, size), wanted)


def test_a_high_strip_is_a_wide_one_on_its_side():
    x = np.random.default_rng(0).integers(0, 256, (400, 40, 3), np.uint8)
    high = decode.square_image(Image.fromarray(x), 48)
    wide = decode.square_image(Image.fromarray(x.transpose(1, 0, 2)), 48)
    np.testing.assert_array_equal(high, wide.transpose(1, 0, 2))
    side = Image.new('RGB', (400, 400))
    side.paste(Image.fromarray(x), (180, 0))
    padded = np.array(side.resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(padded - high).max() <= 1  # columns first, rows then: rounded between


@pytest.mark.parametrize('shape', [(20, 20000), (20000, 20)])
def test_a_strip_is_never_padded_to_its_square(shape, monkeypatch):
    mask = np.ones(shape, np.uint8)
    image = Image.fromarray(mask * 200)
    new, sizes = Image.new, []

    def counted(mode, size, *args):
        sizes.append(size[0] * size[1])
        return new(mode, size, *args)

    monkeypatch.setattr(Image, 'new', counted)
    small = decode.square_image(image, 500), decode.square_mask(mask, 500)
    assert max(sizes) <= 500 * 20000
    assert small[0].max() > 50 and set(np.unique(small[1])) <= {1, 255}


def test_pixels_are_made_square():
    x = np.zeros((4, 16), np.uint8)
    x[1:3, 4:12] = 1
    square = np.zeros((8, 8), bool)
    square[2:6, 2:6] = True
    for mask, aspect in ((x, 4.0), (x.T, 0.25)):
        np.testing.assert_array_equal(decode.square_mask(mask, 8, aspect) == 1, square)
        image = decode.square_image(Image.fromarray(mask * 255), 8, aspect)
        np.testing.assert_array_equal(image[..., 0] > 128, square)
