"""One png, jpeg or tiff: turned and scaled as its own tags say."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.folder import decode, pictures
from fedgen_jax.data.folder.pictures import DIM
from fedgen_jax.data.folder.reading import Window
from fedgen_jax.data.source import load

ORIENTATION, PHOTOMETRIC = 0x0112, 262
X = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
RAMP = np.rint(np.linspace(0, 4095, 16)).astype(np.uint16).reshape(2, 8)
RAMP_GRAY = np.rint(RAMP / 4095 * 255)


def read(path):
    return np.asarray(decode.read_image(str(path)))


def assumed(path):
    return decode.open_image(str(path)).assumed


# -- orientation

STORED = {  # how a picture is stored so that a viewer, who obeys the tag, shows it upright
    2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x), 7: lambda x: np.rot90(x[::-1]),
    8: lambda x: np.rot90(x, -1),
}


def save_turned(file, x, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    keywords = {'quality': 100, 'subsampling': 0} if file.suffix == '.jpg' else {}
    Image.fromarray(np.ascontiguousarray(x)).save(file, exif=exif, **keywords)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif'])
@pytest.mark.parametrize('orientation', STORED)
def test_the_orientation_tag_is_obeyed_in_every_type(tmp_path, suffix, orientation):
    upright = np.kron(X, np.ones((16, 16, 1), np.uint8))
    file = tmp_path / f'x.{suffix}'
    save_turned(file, STORED[orientation](upright), orientation)
    assert decode.read_image(str(file)).size == (64, 96)
    assert np.abs(read(file).astype(int) - upright).max() <= 6 * (suffix == 'jpg')
    assert assumed(file) == (pictures.TURNED,)
    if suffix != 'jpg':
        save_turned(file, STORED[orientation](X[..., 0] % 3), orientation)
        np.testing.assert_array_equal(decode.read_mask(str(file), 3), X[..., 0] % 3)


def test_boxes_lie_on_the_turned_picture(tmp_path, manifest_writer):
    upright = np.zeros((32, 48), np.uint8)
    upright[2:12, 4:20] = 255
    save_turned(tmp_path / 'x.png', STORED[6](upright), 6)
    manifest_writer(tmp_path, [{'image': 'x.png', 'center': 'c'}])
    (tmp_path / 'annotations.json').write_text(json.dumps({
        'images': [{'id': 1, 'file_name': 'x.png', 'width': 48, 'height': 32}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [4, 2, 16, 10]}],
        'categories': [{'id': 1, 'name': 'cell'}],
    }))
    source = load(tmp_path, 48, 0, tmp_path / 'cache', require_train=False, target='box')
    examples = source.centers[0].examples
    bright = np.argwhere(examples.image[0, ..., 0] > 0)
    box = np.concatenate([bright.min(0), bright.max(0) + 1])
    np.testing.assert_array_equal(examples.target['box'][0, 0], box)


@pytest.mark.parametrize('orientation', [0, 1, 9])
def test_an_orientation_that_says_nothing(tmp_path, orientation):
    save_turned(tmp_path / 'x.png', X, orientation)
    np.testing.assert_array_equal(read(tmp_path / 'x.png'), X)
    assert assumed(tmp_path / 'x.png') == ()


def test_masks_and_boxes_of_the_stored_picture_are_told_from_others(tmp_path, manifest_writer):
    save_turned(tmp_path / 'x.png', np.zeros((32, 48, 3), np.uint8), 6)
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / 'm.png')
    manifest_writer(tmp_path, [{'image': 'x.png', 'center': 'c', 'mask': 'm.png'}])
    (tmp_path / 'classes.json').write_text('{"mask_classes": ["a", "b"]}')
    with pytest.raises(ValueError, match='48 x 32, the image 32 x 48: its EXIF orientation'):
        load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False)
    manifest_writer(tmp_path, [{'image': 'x.png', 'center': 'c'}], ('image', 'center'))
    images = [{'id': 1, 'file_name': 'x.png', 'width': 48, 'height': 32}]
    content = {'images': images, 'annotations': [], 'categories': []}
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='48 x 32, the image 32 x 48: its EXIF orientation'):
        load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False)


def test_damaged_exif_spoils_no_picture(tmp_path):
    Image.fromarray(X).save(tmp_path / 'x.png', exif=b'Exif\0\0no tiff header')
    np.testing.assert_array_equal(read(tmp_path / 'x.png'), X)
    assert assumed(tmp_path / 'x.png') == (pictures.DAMAGED_EXIF,)


# -- several pictures


def test_the_first_picture_of_a_phone(tmp_path):
    first, preview = Image.new('RGB', (40, 32), (200, 30, 30)), Image.new('RGB', (20, 16), 'blue')
    first.save(tmp_path / 'x.jpg', format='MPO', save_all=True, append_images=[preview])
    found = read(tmp_path / 'x.jpg')
    assert found.shape == (32, 40, 3) and np.abs(found - [200, 30, 30]).max() < 4
    assert assumed(tmp_path / 'x.jpg') == (pictures.FIRST,)


@pytest.mark.parametrize('name', ['x.tif', 'x.png'])
def test_pages_are_refused(tmp_path, name):
    page = Image.fromarray(X)
    page.save(tmp_path / name, save_all=True, append_images=[Image.fromarray(255 - X)])
    with pytest.raises(ValueError, match='2 pages in one file'):
        read(tmp_path / name)


# -- alpha


@pytest.mark.parametrize('alpha', [0, 1, 128])
@pytest.mark.parametrize('name', ['x.png', 'x.tif'])
def test_an_alpha_that_tells_nothing_is_ignored(tmp_path, name, alpha):
    x = np.concatenate([X, np.full((6, 4, 1), alpha, np.uint8)], axis=2)
    Image.fromarray(x).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), X)
    assert assumed(tmp_path / name) == (pictures.ALPHA,)
    Image.fromarray(x[..., 2:]).save(tmp_path / 'gray.png')
    np.testing.assert_array_equal(read(tmp_path / 'gray.png')[..., 0], X[..., 2])


def test_an_alpha_that_hides_nearly_all_is_refused(tmp_path):
    for alpha in (np.eye(30), np.ones((30, 30)) - np.eye(30)):  # of 255, as of a mask's numbers
        x = np.zeros((30, 30, 4), np.uint8)
        x[..., 3] = alpha
        Image.fromarray(x).save(tmp_path / 'x.png')
        with pytest.raises(ValueError, match='without alpha'):
            read(tmp_path / 'x.png')
    x[..., 3] = 255 * np.tri(30)  # a part of the picture that is cut out lies on white
    Image.fromarray(x).save(tmp_path / 'x.png')
    assert set(read(tmp_path / 'x.png')[..., 0].ravel()) == {0, 255}


def test_colors_times_an_alpha_of_0_are_refused(tmp_path):
    x = np.concatenate([X, np.zeros((6, 4, 1), np.uint8)], axis=2)
    content = tiff(x.tobytes(), 4, 6, 8, {338: 1}, samples=4)
    (tmp_path / 'x.tif').write_bytes(content)
    with pytest.raises(ValueError, match='without alpha'):
        read(tmp_path / 'x.tif')


# -- bits


def tiff(data, width, height, bits, tags=(), samples=1):
    """An uncompressed TIFF of one strip, little endian."""
    head = struct.pack(f'<{samples}H', *[bits] * samples) if samples > 2 else b''
    entries = {
        256: width, 257: height, 258: 8 if head else bits, 259: 1, 262: 1 if samples == 1 else 2,
        273: 8 + len(head), 277: samples, 278: height, 279: len(data), **dict(tags),
    }
    out = b'II*\0' + struct.pack('<I', 8 + len(head) + len(data)) + head + data
    out += struct.pack('<H', len(entries))
    for tag in sorted(entries):
        count = samples if tag == 258 else 1
        out += struct.pack('<HHII', tag, 3, count, entries[tag])
    return out + bytes(4)


def png(x, bits=16, **chunks):
    """Gray or RGB, with further chunks."""
    def chunk(name, content):
        crc = zlib.crc32(name + content)
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', crc)

    height, width, *channels = x.shape
    header = struct.pack('>IIBBBBB', width, height, bits, 2 if channels else 0, 0, 0, 0)
    if bits < 8:  # width x bits has to fill bytes
        per = 8 // bits
        x = sum(x[:, i::per] << (8 - bits - bits * i) for i in range(per)).astype(np.uint8)
    rows = b''.join(b'\0' + row.astype('>u2' if bits == 16 else 'u1').tobytes() for row in x)
    content = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
    content += b''.join(chunk(name.encode(), value) for name, value in chunks.items())
    return content + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def packed(x):
    return b''.join(
        int(''.join(f'{v:012b}' for v in row), 2).to_bytes(12, 'big') for row in x
    )


TWELVE = {
    'packed.tif': tiff(packed(RAMP), 8, 2, 12),
    'max.tif': tiff(RAMP.tobytes(), 8, 2, 16, {281: 4095}),
    'white_is_zero.tif': tiff((4095 - RAMP).tobytes(), 8, 2, 16, {281: 4095, PHOTOMETRIC: 0}),
    'sbit.png': png(RAMP, sBIT=b'\x0c'),
}


@pytest.mark.parametrize('name', TWELVE)
def test_twelve_bits_are_scaled_from_twelve(tmp_path, name):
    (tmp_path / name).write_bytes(TWELVE[name])
    np.testing.assert_array_equal(read(tmp_path / name)[..., 0], RAMP_GRAY)
    assert assumed(tmp_path / name) == (pictures.FEWER_BITS,)


@pytest.mark.parametrize('scale', [1, 1 / 40])
@pytest.mark.parametrize('repeat', [False, True])
def test_a_png_that_spread_its_bits_is_of_16(tmp_path, scale, repeat):
    x = (RAMP * scale).astype(int)  # the darker one could be taken for 12 bits as they are
    spread = x << 4 | (x >> 8 if repeat else 0)
    (tmp_path / 'x.png').write_bytes(png(spread, sBIT=b'\x0c'))
    np.testing.assert_allclose(read(tmp_path / 'x.png')[..., 0], x / 4095 * 255, atol=1)
    assert assumed(tmp_path / 'x.png') == (DIM,) * (scale < 1)


@pytest.mark.parametrize('largest', [3871, 65535])
def test_the_largest_number_that_happens_to_be_used_is_no_scale(tmp_path, largest):
    (tmp_path / 'x.tif').write_bytes(tiff(RAMP.tobytes(), 8, 2, 16, {281: largest}))
    np.testing.assert_array_equal(read(tmp_path / 'x.tif')[..., 0], np.rint(RAMP / 257))


def test_pixels_beyond_what_the_file_says_are_refused(tmp_path):
    (tmp_path / 'x.tif').write_bytes(tiff((RAMP * 2).tobytes(), 8, 2, 16, {281: 4095}))
    with pytest.raises(ValueError, match='pixels above the 4095'):
        read(tmp_path / 'x.tif')


def test_colors_of_12_bits_in_16_are_refused(tmp_path):
    x = np.repeat(RAMP[..., None], 3, axis=2)
    (tmp_path / 'x.png').write_bytes(png(x, sBIT=b'\x0c\x0c\x0c'))
    with pytest.raises(ValueError, match='colors of 12 bits in 16'):
        read(tmp_path / 'x.png')
    (tmp_path / 'x.png').write_bytes(png(x * 16, sBIT=b'\x0c\x0c\x0c'))
    np.testing.assert_allclose(read(tmp_path / 'x.png')[..., 0], RAMP_GRAY, atol=1)


# -- masks

MASK = (np.arange(16).reshape(2, 8) % 4).astype(np.uint8)


@pytest.mark.parametrize(
    ('name', 'keywords'),
    [
        ('m.jpg', {'quality': 100}),
        ('m.png', {'format': 'JPEG'}),
        ('m.jpg', {'format': 'MPO', 'save_all': True, 'append_images': [Image.new('L', (4, 4))]}),
        ('m.tif', {'compression': 'jpeg'}),
    ],
)
def test_masks_compressed_with_loss_are_refused(tmp_path, name, keywords):
    Image.fromarray(MASK).save(tmp_path / name, **keywords)
    with pytest.raises(ValueError, match='compressed with loss'):
        decode.read_mask(str(tmp_path / name), 255)


@pytest.mark.parametrize('compression', ['raw', 'tiff_lzw', 'tiff_adobe_deflate', 'packbits'])
def test_masks_compressed_without_loss_are_read(tmp_path, compression):
    Image.fromarray(MASK).save(tmp_path / 'm.tif', compression=compression)
    np.testing.assert_array_equal(decode.read_mask(str(tmp_path / 'm.tif'), 4), MASK)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_masks_of_few_bits_keep_their_numbers(tmp_path, bits):
    mask = MASK & (2**bits - 1)
    (tmp_path / 'm.png').write_bytes(png(mask, bits))
    np.testing.assert_array_equal(decode.read_mask(str(tmp_path / 'm.png'), 4), mask)


def test_a_mask_whose_0_is_white_is_refused(tmp_path):
    (tmp_path / 'm.tif').write_bytes(tiff(bytes(16), 8, 2, 8, {PHOTOMETRIC: 0}))
    with pytest.raises(ValueError, match='whose 0 is white'):
        decode.read_mask(str(tmp_path / 'm.tif'), 4)


# -- what is told


def test_what_is_assumed_of_floats_and_resolutions(tmp_path):
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    for x, told in ((ramp, pictures.UNIT_FLOATS), (ramp * 255, pictures.BYTE_FLOATS)):
        Image.fromarray(x).save(tmp_path / 'x.tif')
        assert assumed(tmp_path / 'x.tif') == (told,)
    for name in ('x.png', 'x.jpg', 'x.tif'):
        Image.fromarray(X).save(tmp_path / name, dpi=(72, 72))
        assert assumed(tmp_path / name) == ()
        Image.fromarray(X).save(tmp_path / name, dpi=(204, 98))
        assert assumed(tmp_path / name) == (pictures.UNEQUAL,)


def test_floats_whose_0_is_white_are_turned_over_with_a_window_or_without(tmp_path):
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    Image.fromarray(ramp).save(tmp_path / 'x.tif', tiffinfo={262: 0})
    for window in (None, Window(0, 1)):
        found = np.asarray(decode.open_image(str(tmp_path / 'x.tif'), window=window).image)
        assert (found[0, 0, 0], found[-1, -1, 0]) == (255, 0)


def test_signed_numbers_below_0_are_refused(tmp_path):
    x = np.arange(-8, 8, dtype=np.int8).reshape(4, 4).view(np.uint8)
    Image.fromarray(x).save(tmp_path / 'x.tif', tiffinfo={339: 2})
    for read in (decode.open_image, lambda file: decode.read_mask(file, 4)):
        with pytest.raises(ValueError, match='signed integers below 0'):
            read(str(tmp_path / 'x.tif'))
    Image.fromarray(x % 4).save(tmp_path / 'x.tif', tiffinfo={339: 2})
    np.testing.assert_array_equal(decode.read_mask(str(tmp_path / 'x.tif'), 4), x % 4)


def test_a_picture_that_is_too_large_is_called_so(tmp_path, monkeypatch):
    Image.fromarray(X).save(tmp_path / 'x.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', X.shape[0] * X.shape[1] // 4)
    with pytest.raises(ValueError, match='million pixels: save it smaller'):
        decode.open_image(str(tmp_path / 'x.png'))


def test_an_ordinary_picture_has_nothing_assumed(tmp_path):
    out = io.BytesIO()
    Image.fromarray(X).save(out, 'JPEG')
    (tmp_path / 'x.jpg').write_bytes(out.getvalue())
    assert decode.open_image(str(tmp_path / 'x.jpg'))[1:] == ((), 1.0)
