"""Good folders: pixels, targets and counts come out right, for every kind of file."""

import json

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.examples import SPLITS, stack
from fedgen_jax.data.folder import decode
from fedgen_jax.data.source import load


def read(root, size=12, **kwargs):
    return load(root, size, seed=0, cache=root.parent / 'cache', **kwargs)


def test_an_image_of_the_right_size_is_untouched(small_folder):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (12, 12, 3), np.uint8)
    (small_folder / 'annotations.json').unlink()
    Image.fromarray(x).save(small_folder / 'images/05.png')
    Image.fromarray(np.full((12, 12), 2, np.uint8)).save(small_folder / 'masks/05.png')
    center = read(small_folder).centers[0]
    i = center.path.index('images/05.png')
    np.testing.assert_array_equal(center.examples.image[i], x)
    np.testing.assert_array_equal(center.examples.target['mask'][i], np.full((12, 12), 2))


def test_padding_is_black_unknown_and_moves_the_boxes(small_folder):
    center = read(small_folder).centers[0]  # 12 x 10 pixels in a square of 12: one row on each side
    with Image.open(small_folder / center.path[1]) as image:
        x = np.asarray(image)
    with Image.open(small_folder / center.path[1].replace('images', 'masks')) as image:
        mask = np.asarray(image)
    example = center.examples
    np.testing.assert_array_equal(example.image[1][1:11], x)
    np.testing.assert_array_equal(example.image[1][[0, 11]], np.zeros((2, 12, 3)))
    np.testing.assert_array_equal(example.target['mask'][1][1:11], mask)
    np.testing.assert_array_equal(example.target['mask'][1][[0, 11]], np.full((2, 12), 255))
    # Row 3 has [1, 2, 4, 3] of category 5 and [2, 2, 4, 3] of category 4; classes go by id.
    np.testing.assert_array_equal(example.target['box'][1], [[3, 1, 6, 5], [3, 2, 6, 6]])
    np.testing.assert_array_equal(example.target['box_class'][1], [1, 0])
    np.testing.assert_array_equal(example.target['box'][0], [[3, 1, 6, 5], [0, 0, 0, 0]])
    np.testing.assert_array_equal(example.target['box_class'][0], [1, -1])


def test_boxes_and_mask_scale_with_the_image(small_folder):
    x = np.zeros((10, 12, 3), np.uint8)
    x[2:5, 1:5] = 255  # where the box of row 2 is
    Image.fromarray(x).save(small_folder / 'images/02.png')
    Image.fromarray(x[..., 0] // 255).save(small_folder / 'masks/02.png')
    example = read(small_folder, 48).centers[0].examples
    y0, x0, y1, x1 = example.target['box'][0, 0].astype(int)
    inside = np.zeros((48, 48), bool)
    inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(example.target['mask'][0] == 1, inside)
    bright = np.argwhere(example.image[0, :, :, 0] > 127)
    np.testing.assert_array_equal([bright.min(0), bright.max(0) + 1], [[y0, x0], [y1, x1]])


def test_small_images_are_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decode.square_image(Image.fromarray(stripes), 16)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_resizing_a_mask_invents_no_class():
    mask = np.where(np.add.outer(np.arange(9), np.arange(7)) % 3, 0, 2).astype(np.uint8)
    assert set(np.unique(decode.square_mask(mask, 20))) == {0, 2, 255}
    np.testing.assert_array_equal(
        decode.square_mask(mask, 18)[:, 2:16], mask.repeat(2, 0).repeat(2, 1)
    )


def test_a_mask_stays_under_its_image():
    y, x = np.mgrid[:128, :128]
    mask = (((y - 50) / 20) ** 2 + ((x - 71) / 31) ** 2 < 1).astype(np.uint8)
    for size in (48, 64, 100, 200):
        small = decode.square_mask(mask, size)
        turned = decode.square_mask(mask[::-1, ::-1], size)[::-1, ::-1]
        assert np.mean(small != turned) < 1e-3  # of ties alone
        gray = decode.square_image(Image.fromarray(255 * mask), size)[:, :, 0] > 127
        assert np.mean(small != gray) < 5e-3


def test_classes_labels_and_dtypes(small_folder):
    source = read(small_folder)
    assert source.classes == ('a', 'b')
    assert [c.name for c in source.centers] == ['north', 'south']
    for center in source.centers:
        target = center.examples.target
        assert center.path == tuple(sorted(center.path))
        np.testing.assert_array_equal(target['label'], [0, 1, 0, 1, 0, 1])
        kinds = {key: (x.dtype.name, x.shape[1:]) for key, x in target.items()}
        assert kinds == {
            'label': ('int32', ()), 'mask': ('uint8', (12, 12)),
            'box': ('float32', (2, 4)), 'box_class': ('int32', (2,)),
        }
        assert center.examples.image.dtype == np.uint8
        np.testing.assert_array_equal(center.examples.weight, np.ones(6, np.float32))
    assert stack([c.examples for c in source.centers]).image.shape == (2, 6, 12, 12, 3)


def test_the_target_and_its_classes_can_be_chosen(small_folder):
    assert read(small_folder, target='mask').classes == ('none', 'cell', 'nucleus')
    source = read(small_folder, target='box', classes=('platelet', 'wbc', 'rbc'), max_boxes=5)
    assert source.classes == ('platelet', 'wbc', 'rbc')
    target = source.centers[0].examples.target
    assert set(target) == {'box', 'box_class'}
    np.testing.assert_array_equal(target['box_class'][1], [1, 2, -1, -1, -1])
    source = read(small_folder, classes=('b', 'x', 'a'))
    np.testing.assert_array_equal(source.centers[0].examples.target['label'], [2, 0, 2, 0, 2, 0])


def test_classes_json_orders_the_labels(small_folder):
    names = {'classes': ['b', 'c', 'a'], 'mask_classes': ['x', 'y', 'z']}
    (small_folder / 'classes.json').write_text(json.dumps(names))
    assert read(small_folder).classes == ('b', 'c', 'a')


def test_a_folder_to_onboard_has_unknown_targets(small_folder, manifest_writer):
    for name in ('annotations.json', 'classes.json'):
        (small_folder / name).unlink()
    rows = [{'image': f'images/{r:02d}.png', 'center': 'new'} for r in (2, 3, 4)]
    manifest_writer(small_folder, rows, ('image', 'center'))
    assert read(small_folder).centers[0].examples.target == {}
    source = read(small_folder, classes=('a', 'b'), target='label', require_train=False)
    assert source.classes == ('a', 'b')
    np.testing.assert_array_equal(source.centers[0].examples.target['label'], [-1, -1, -1])
    source = read(small_folder, classes=('x', 'y'), target='mask', require_train=False)
    assert np.all(source.centers[0].examples.target['mask'] == 255)
    source = read(
        small_folder, classes=('x', 'y'), target='box', max_boxes=7, require_train=False
    )
    np.testing.assert_array_equal(
        source.centers[0].examples.target['box_class'], np.full((3, 7), -1)
    )


def test_empty_cells_are_unknown(small_folder, manifest_writer):
    rows = [
        {'image': f'images/{r:02d}.png', 'center': 'c', 'label': 'a' if r == 2 else ''}
        for r in range(2, 14)
    ]
    manifest_writer(small_folder, rows)
    target = read(small_folder).centers[0].examples.target
    np.testing.assert_array_equal(target['label'], [0] + [-1] * 11)
    assert np.all(target['mask'] == 255)


def test_a_manifest_from_a_spreadsheet(small_folder):
    # Windows line ends, a byte order mark, blank rows, spaces, quotes: all as saved by people.
    text = '\ufeffimage,center,label\r\n\r\n images/03.png ,"Orléans, nord",b\r\n,,\r\n'
    (small_folder / 'manifest.csv').write_bytes((text + 'images/04.png,Lyon,a').encode())
    (small_folder / 'annotations.json').unlink()
    source = read(small_folder, require_train=False)
    assert [c.name for c in source.centers] == ['Lyon', 'Orléans, nord']
    assert source.classes == ('a', 'b')


# -- pixel types


GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def reread(tmp_path, image, name='x.png'):
    image.save(tmp_path / name)
    return np.asarray(decode.read_image(str(tmp_path / name)))


def test_gray_of_any_depth_is_the_same_picture(tmp_path):
    rgb = np.repeat(GRAY[..., None], 3, axis=-1)
    gray = Image.fromarray(GRAY)
    palette = gray.convert('P')
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    for image in (gray, palette, deep, Image.fromarray(rgb)):
        np.testing.assert_array_equal(reread(tmp_path, image), rgb)
    for x in (GRAY.astype(np.float32), GRAY / np.float32(255), GRAY.astype(np.int32) * 257,
              GRAY.astype(np.uint16) * 257):
        np.testing.assert_array_equal(reread(tmp_path, Image.fromarray(x), 'x.tif'), rgb)


def test_one_bit_images_are_black_and_white(tmp_path):
    values = reread(tmp_path, Image.fromarray(GRAY > 100))
    np.testing.assert_array_equal(values[..., 0], np.where(GRAY > 100, 255, 0))


def test_transparent_pixels_lie_on_white(tmp_path):
    x = np.zeros((4, 4, 4), np.uint8)
    x[:2, :, 3] = 255
    rgb = reread(tmp_path, Image.fromarray(x))
    np.testing.assert_array_equal(rgb[:2], np.zeros((2, 4, 3)))
    np.testing.assert_array_equal(rgb[2:], np.full((2, 4, 3), 255))


def test_cmyk_comes_out_in_its_colors(tmp_path):
    red = Image.new('RGB', (16, 16), (255, 0, 0))
    values = reread(tmp_path, red.convert('CMYK'), 'x.jpg').astype(int)
    assert np.abs(values - [255, 0, 0]).max() < 8


def test_brightness_is_not_fitted_to_the_image(tmp_path):
    dark = Image.fromarray(GRAY.astype(np.uint16) * 257 // 4)
    assert 62 <= reread(tmp_path, dark).max() <= 64


def test_masks_of_any_depth_are_the_same_numbers(tmp_path):
    mask = np.arange(4, dtype=np.uint8).reshape(2, 2)
    for x, name in ((mask, 'm.png'), (mask.astype(np.uint16), 'm.png'),
                    (mask.astype(np.int32), 'm.tif'), (mask.astype(np.float32), 'm.tif')):
        Image.fromarray(x).save(tmp_path / name)
        np.testing.assert_array_equal(decode.read_mask(str(tmp_path / name), 4), mask)
    palette = Image.fromarray(mask)
    palette.putpalette([9, 9, 9] * 256)  # the colors a viewer shows are not the numbers
    palette.save(tmp_path / 'p.png')
    np.testing.assert_array_equal(decode.read_mask(str(tmp_path / 'p.png'), 4), mask)


# -- the real sets


def counts(center, num_classes):
    return list(np.bincount(center.examples.target['label'], minlength=num_classes))


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    return tmp_path_factory.mktemp('store')


@pytest.mark.real
def test_real_labels(data_root, store):
    source = load(data_root / 'wbc_cls', 32, 0, store)
    assert source.classes == ('basophil', 'eosinophil', 'lymphocyte', 'monocyte', 'neutrophil')
    assert {c.name: counts(c, 5) for c in source.centers} == {
        'bccd': [3, 88, 33, 20, 207],
        'cellavision': [3, 12, 37, 15, 33],
        'jtsc-jiangxi': [1, 22, 53, 48, 176],
        'pbc-barcelona': [100] * 5,
        'raabin-iran': [100] * 5,
    }
    for center in source.centers:
        share = np.bincount(center.split, minlength=3) / len(center.split)
        np.testing.assert_allclose(share, [0.6, 0.2, 0.2], atol=0.02)


@pytest.mark.real
def test_real_masks(data_root, store):
    source = load(data_root / 'wbc_seg', 32, 0, store)
    assert source.classes == ('background', 'cytoplasm', 'nucleus')
    sizes = {c.name: len(c.path) for c in source.centers}
    assert sizes == {'jtsc': 300, 'cellavision': 100, 'bccd': 367}
    for center in source.centers:
        mask, image = center.examples.target['mask'], center.examples.image
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
        # A stained nucleus absorbs red: a mask flipped or shifted against its image would not.
        red = [image[..., 0][mask == k].mean() for k in range(3)]
        assert red[2] < red[1] and red[2] < red[0]


@pytest.mark.real
def test_real_boxes(data_root, store):
    source = load(data_root / 'blood_det', 64, 0, store)
    assert source.classes == ('wbc', 'rbc', 'platelet')
    splits = {c.name: list(np.bincount(c.split, minlength=3)) for c in source.centers}
    assert splits == {  # the authors' own
        'bccd': [101, 41, 18], 'bcdd': [70, 16, 14], 'pbc': [353, 97, 50],
        'raabin-wbc': [358, 98, 44],
    }
    total = 0
    for center in source.centers:
        box, box_class = (center.examples.target[key] for key in ('box', 'box_class'))
        assert box.shape[1:] == (32, 4)
        real = box[box_class >= 0]
        total += len(real)
        assert real.min() >= 0 and real.max() <= 64
        assert np.all(real[:, 2:] > real[:, :2])
        assert not box[box_class < 0].any()
    assert total == 18_143


def test_split_names_are_those_of_the_manifest():
    assert SPLITS == ('train', 'val', 'test')
