"""Pictures that a model is asked about are read as training reads them, and carried back."""

import pathlib

import numpy as np
import pytest
from medical_files import place, write_dicom
from PIL import Image

from fedgen_jax.data.folder.pictures import DIM
from fedgen_jax.data.folder.reading import Window
from fedgen_jax.data.folder.square import (
    original_boxes,
    original_mask,
    square_boxes,
    square_image,
    square_mask,
)
from fedgen_jax.data.inputs import (
    check_shallow,
    in_own_pixels,
    listed,
    of_array,
    read,
    window_of,
)
from fedgen_jax.data.source import load
from fedgen_jax.data.targets import Frame

SIZE = 24


def squares(images):
    return {x.name: x.square for x in read(listed(images), SIZE)}


def test_a_folder_with_a_manifest_is_read_as_training_reads_it(tmp_path, manifest_writer):
    nibabel = pytest.importorskip('nibabel')
    pytest.importorskip('pydicom')
    root = tmp_path / 'root'
    (root / 'pet').mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 17, 3), np.uint8)).save(root / 'a.png')
    volume = rng.normal(size=(9, 12, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 2, 1, 1.0])), root / 'v.nii.gz')
    for i in range(3):  # of a PET series the brightest slice says what is white in all
        write_dicom(
            root / 'pet' / f'{i}.dcm', np.full((6, 8), 500 * (i + 1)), Modality='PT',
            SeriesInstanceUID='1.2', RescaleSlope=1 + i, RescaleIntercept=0, **place(i, 0, (1, 2)),
        )
    manifest_writer(root, [{'image': x, 'center': 'c'} for x in ('a.png', 'v.nii.gz', 'pet')])
    center = load(root, SIZE, 0, tmp_path / 'cache', require_train=False).centers[0]
    wanted = dict(zip(center.path, center.examples.image))
    assert len(wanted) == 7

    found = squares(root)
    assert list(found) == list(wanted)
    for name, image in wanted.items():
        np.testing.assert_array_equal(found[name], image)
    # Without the manifest: by a folder, a glob, files.
    pet = squares(root / 'pet')
    assert sorted(pet) == ['0.dcm', '1.dcm', '2.dcm']
    for name, image in pet.items():
        np.testing.assert_array_equal(image, wanted[f'pet/{name}'])
    several = squares([str(root / '*.png'), root / 'v.nii.gz#1', str(root / '**/*.dcm')])
    assert list(several) == ['a.png', 'v.nii.gz#1', 'pet/0.dcm', 'pet/1.dcm', 'pet/2.dcm']
    for name, image in several.items():
        np.testing.assert_array_equal(image, wanted[name])
    sources = {x.name: x.source for x in read(listed(root), SIZE)}
    assert sources == {name: str(root / name) for name in wanted}


@pytest.mark.parametrize(
    ('ask', 'message'),
    [
        ('nowhere.png', 'no such file'),
        ('root/*.jpg', 'a glob that fits none'),
        ('empty', 'no image lies in it'),
        ('root/classes.json', 'of no type that is read'),
        (['root/images/02.png', 'root/images/0*.png'], '02.png: listed twice'),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(small_folder, monkeypatch, ask, message):
    monkeypatch.chdir(small_folder.parent)
    pathlib.Path('empty').mkdir()
    with pytest.raises(ValueError, match=message) as error:
        listed(ask)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('window', ['center', '100:900'])
def test_deep_gray_is_read_through_the_window_of_training(tmp_path, manifest_writer, window):
    root = tmp_path / 'root'
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        x = rng.integers(100 * i, 400 * (i + 1), (20, 30)).astype(np.uint16)
        Image.fromarray(x).save(root / f'{i}.png')
    manifest_writer(root, [{'image': f'{i}.png', 'center': 'c'} for i in range(3)])
    source = load(root, SIZE, 0, tmp_path / 'cache', require_train=False, window=window)
    pictures = listed(root)
    found = [x.square for x in read(pictures, SIZE, window_of(window, pictures))]
    np.testing.assert_array_equal(np.stack(found), source.centers[0].examples.image)
    assert not np.array_equal(found[0], next(read(pictures, SIZE)).square)
    with pytest.raises(ValueError, match='0.png: gray of more than 8 bits, and so'):
        check_shallow(pictures, 'so')
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / 'shallow.png')
    check_shallow(listed(tmp_path / 'shallow.png'), 'so')


def test_what_a_folder_has_beside_its_images_is_told(tmp_path, capsys):
    (tmp_path / 'below').mkdir()
    for name in ('a.png', 'below/b.png', 'c.bmp'):
        Image.new('RGB', (4, 4)).save(tmp_path / name)
    assert [x.name for x in listed(tmp_path)] == ['a.png']
    told = capsys.readouterr().err
    assert "2 other files are left out, such as 'below/b.png'" in told and '**' in told


@pytest.mark.parametrize(('values', 'told'), [
    (range(4096), 1),  # 12 bits in 16, and nobody says so
    (range(0, 65536, 16), 0),
    ((0, 40000), 0),  # two values are two values
])
def test_deep_gray_that_is_nearly_black_is_told(tmp_path, values, told):
    x = np.resize(np.array(values, np.uint16), (64, 64))
    Image.fromarray(x).save(tmp_path / 'a.png')
    (found,) = read(listed(tmp_path / 'a.png'), SIZE)
    assert found.assumed == (DIM,) * told
    (found,) = read(listed(tmp_path / 'a.png'), SIZE, Window(0, 4095))
    assert not found.assumed


def test_a_set_of_arrays_and_a_tree_of_folders_are_listed(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    arrays = {f'{split}_{kind}': x for split in ('train', 'val', 'test')
              for kind, x in (('images', images), ('labels', np.zeros((4, 1), np.uint8)))}
    np.savez(tmp_path / 'set.npz', **arrays)
    found = list(squares(tmp_path / 'set.npz').values())
    assert len(found) == 12
    wanted = square_image(Image.fromarray(images[1]), SIZE)
    np.testing.assert_array_equal(found[1], wanted)
    (tmp_path / 'tree' / 'east' / 'a').mkdir(parents=True)
    Image.fromarray(images[1]).save(tmp_path / 'tree' / 'east' / 'a' / 'x.png')
    (x,) = listed(tmp_path / 'tree')
    assert x.name == 'east/a/x.png'
    np.testing.assert_array_equal(next(read([x], SIZE)).square, wanted)


def test_a_table_with_headers_of_its_own_gives_its_further_columns(tmp_path):
    Image.new('RGB', (9, 9)).save(tmp_path / 'a.png')
    (tmp_path / 'list.csv').write_text('file,site,scanner,\na.png,north,GE,x\n')
    (one,) = read(listed(tmp_path / 'list.csv', 'image:file,center:site'), SIZE)
    assert (one.name, one.more) == ('a.png', {'scanner': 'GE'})
    with pytest.raises(ValueError, match='image: .*--columns=image:HEADER,center:HEADER'):
        listed(tmp_path / 'list.csv')


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    with pytest.raises(ValueError, match='a.png: '):
        list(read(listed(tmp_path), SIZE))


def test_a_damaged_file_is_left_out_and_told_where_that_is_asked_for(tmp_path):
    for name in ('a.png', 'c.png'):
        Image.new('RGB', (5, 5)).save(tmp_path / name)
    (tmp_path / 'b.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    unread = []
    assert [x.name for x in read(listed(tmp_path), SIZE, unread=unread)] == ['a.png', 'c.png']
    (told,) = unread
    assert 'b.png: ' in told and told.endswith('replace the file, or leave it out')


@pytest.mark.parametrize(
    'image',
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_an_array_of_another_kind_is_refused(image):
    with pytest.raises(ValueError, match=r'pass uint8 \[H, W, 3\]'):
        of_array(image, SIZE)


FRAMES = [
    (40, 40, 1.0), (40, 25, 1.0), (21, 90, 1.0), (300, 500, 1.0), (30, 20, 2.0), (30, 50, 0.5),
]


@pytest.mark.parametrize(('width', 'height', 'aspect'), FRAMES)
def test_a_mask_comes_back_to_its_place(width, height, aspect):
    y, x = np.mgrid[:height, :width]
    mask = ((x > width / 4) & (x < width / 1.5)).astype(np.uint8)
    mask[(y > height / 2) & (mask > 0)] = 2
    back = original_mask(square_mask(mask, 96, aspect), width, height, aspect)
    assert back.shape == mask.shape and back.dtype == np.uint8
    edges = np.abs(np.diff(mask, axis=0, append=mask[-1:])) > 0
    edges |= np.abs(np.diff(mask, axis=1, append=mask[:, -1:])) > 0
    near = 2 + max(width, height) // 96
    for axis in (0, 1):
        edges = np.any([np.roll(edges, s, axis) for s in range(-near, near + 1)], 0)
    assert edges.mean() < 0.9
    np.testing.assert_array_equal(back[~edges], mask[~edges])


def test_a_mask_of_an_image_s_own_size_comes_back_to_the_bit():
    mask = np.random.default_rng(0).integers(0, 4, (32, 32), np.uint8)
    np.testing.assert_array_equal(original_mask(mask, 32, 32), mask)


@pytest.mark.parametrize(('width', 'height', 'aspect'), FRAMES)
def test_boxes_come_back_and_stay_in_the_image(width, height, aspect):
    box = np.array([[1, 2, 9, 12], [0, 0, height, width]], np.float32)
    inner = np.array([max(aspect, 1), max(1 / aspect, 1)] * 2, np.float32)  # square pixels
    size = (round(width * inner[1]), round(height * inner[0]))
    there = square_boxes(box * inner, *size, 96)
    back = original_boxes(there, width, height, 96, aspect)
    np.testing.assert_allclose(back, box, atol=2e-4 * max(size))
    far = original_boxes(np.array([[-9, -9, 200, 200]]), width, height, 96, aspect)
    np.testing.assert_allclose(far, [[0, 0, height, width]], rtol=1e-5)


def test_what_has_no_place_stays():
    found = {'probability': np.ones(3), 'mask': np.zeros((8, 8), np.uint8)}
    back = in_own_pixels(found, Frame(5, 3, 1.0, 8))
    assert back['mask'].shape == (3, 5) and back['probability'] is found['probability']
    assert in_own_pixels(7, Frame(5, 3, 1.0, 8)) == 7
