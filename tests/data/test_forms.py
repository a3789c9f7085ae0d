"""Every form of data becomes the same centers; what is ambiguous is one line."""

import json

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data import forms
from fedgen_jax.data.examples import SPLITS
from fedgen_jax.data.folder.headers import for_others
from fedgen_jax.data.folder.manifest import check_table
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.originals import of_manifest
from fedgen_jax.data.source import load


def gray(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file)


def grow(root, *folders, number=3):
    """`number` images in each folder, whose gray values count from 0 over all of them."""
    value = 0
    for folder in folders:
        for i in range(number):
            gray(root / folder / f'{i}.png', value)
            value += 1
    return root


@pytest.fixture
def read(tmp_path):
    def of(root, **kwargs):
        return load(root, 4, 0, tmp_path / 'cache', **{'require_train': False, **kwargs})

    return of


def grays(center):
    return center.examples.image[:, 0, 0, 0].tolist()


def error_of(read, root, **kwargs):
    with pytest.raises(DataError) as error:
        read(root, **kwargs)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# -- trees of folders


def test_centers_and_classes(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/a', 'north/b', 'south/a', 'south/b')
    source = read(root)
    assert [c.name for c in source.centers] == ['north', 'south'] and source.classes == ('a', 'b')
    assert [grays(c) for c in source.centers] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    for center in source.centers:
        assert center.examples.target['label'].tolist() == [0, 0, 0, 1, 1, 1]
        assert center.unit == center.path  # no patient is known
    assert any('read as CENTER/CLASS' in note and 'patients' in note for note in source.notes)


@pytest.mark.parametrize('layout', ['{center}/{split}/{label}', '{split}/{center}/{label}'])
def test_splits_are_levels_of_folders(tmp_path, read, layout):
    words = ('training', 'validation', 'test')
    folders = [
        layout.format(center=center, split=split, label=label)
        for center in ('north', 'south') for split in words for label in ('b', 'c')
    ]
    source = read(grow(tmp_path / 'set', *folders, number=1))
    assert [c.name for c in source.centers] == ['north', 'south']
    for center in source.centers:
        for path, split, label in zip(center.path, center.split, center.examples.target['label']):
            assert words[split] in path and f'/{"bc"[label]}/' in path


def test_without_centers_the_folder_is_one(tmp_path, read):
    source = read(grow(tmp_path / 'set', 'train/a', 'train/b', 'val/a', 'test/b'))
    (center,) = source.centers
    assert center.name == 'set'
    assert np.bincount(center.split).tolist() == [6, 3, 3]
    assert any("one center, 'set'" in note for note in source.notes)
    source = read(grow(tmp_path / 'new', 'b', 'a'))
    assert source.classes == ('a', 'b') and grays(source.centers[0]) == [3, 4, 5, 0, 1, 2]


def test_unlabelled_images_of_a_new_center(tmp_path, read):
    for root in (grow(tmp_path / 'x' / 'lyon', '.'), grow(tmp_path / 'y' / 'lyon', 'images')):
        source = read(root, target='label', classes=('a', 'b'))
        (center,) = source.centers
        assert center.name == 'lyon' and len(center.split) == 3
        assert set(center.examples.target['label']) == {-1} and source.classes == ('a', 'b')


def test_classes_of_a_trained_model_bind(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/c', 'south/c')
    assert "unknown label 'c'" in error_of(read, root, target='label', classes=('a', 'b'))


def test_classes_json_orders_classes(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/a', 'south/b')
    assert 'no class in common' in error_of(read, root)  # perhaps CLASS/PATIENT
    (root / 'classes.json').write_text(json.dumps({'classes': ['b', 'a']}))
    assert read(root).classes == ('b', 'a')


def test_masks_lie_beside_their_images(tmp_path, read):
    root = tmp_path / 'set'
    for center in ('north', 'south'):
        for i in range(3):
            gray(root / center / 'images' / f'{i}.png', 10 * i)
            if i < 2:
                gray(root / center / 'masks' / f'{i}.tif', i)
    (root / 'classes.json').write_text(json.dumps({'mask_classes': ['none', 'cell']}))
    source = read(root, target='mask')
    assert [c.name for c in source.centers] == ['north', 'south']
    mask_Nx4x4 = source.centers[0].examples.target['mask']
    assert [np.unique(m).tolist() for m in mask_Nx4x4] == [[0], [1], [255]]
    assert any('2 of 6 images have no mask' in note for note in source.notes)
    gray(root / 'north/masks/lonely.png', 1)
    assert 'lonely' in error_of(read, root)
    (root / 'north/masks/lonely.png').unlink()
    gray(root / 'north/masks/0.png', 1)
    assert 'two masks of one image' in error_of(read, root)
    (root / 'north/masks/0.png').unlink()
    gray(root / 'north/images/0.jpg', 1)
    assert "images/0.png': two images, and 'north/masks/0.tif'" in error_of(read, root)
    (root / 'north/images/0.jpg').unlink()
    gray(root / 'north/img/0.png', 1)
    assert "img/0.png': two images, and 'north/masks/0.tif'" in error_of(read, root)


def test_links_that_lead_nowhere_or_back(tmp_path, read):
    root = grow(tmp_path / 'set', 'a', 'b')
    expected = len(read(root).centers[0].path)
    (root / 'a' / 'NOTES').symlink_to(tmp_path / 'nothing')
    (root / 'a' / 'up').symlink_to(root)
    source = read(root)
    assert len(source.centers[0].path) == expected
    assert any("1 other files are left out, such as 'a/NOTES'" in note for note in source.notes)
    (root / 'a' / 'x.png').symlink_to(tmp_path / 'nothing')
    assert 'x.png' in error_of(read, root)


AMBIGUOUS = {
    'splits and others': (['train/a', 'north/a'], 'are splits'),
    'depths': (['north/a', 'north/b/c'], 'several depths'),
    'deep': (['north/a/p1', 'north/b/p1'], 'is none of CLASS'),
    'two splits': (['train/test/a'], 'is none of CLASS'),
    'splits of a class': (['a/train', 'a/test'], 'is none of CLASS'),
    'splits alone': (['train', 'test'], 'is none of CLASS'),
    'images and classes': (['north/images', 'north/a'], 'and elsewhere'),
    'masks alone': (['north/masks'], 'masks without images'),
    'masks of classes': (['north/a', 'north/masks'], 'without images beside'),
    'deep images': (['a/b/images'], 'is none of images'),
    'masks above': (['images/a', 'masks/a'], 'a folder of masks above others'),
    'labels above': (['images/a', 'labels/a'], 'a folder of masks above others'),
    'training alone': (['imagesTr', 'labelsTr', 'imagesTs'], 'and elsewhere'),
}


@pytest.mark.parametrize('case', AMBIGUOUS)
def test_an_ambiguous_tree_is_refused(tmp_path, read, case):
    folders, problem = AMBIGUOUS[case]
    message = error_of(read, grow(tmp_path / 'set', *folders))
    assert problem in message and 'manifest.csv' in message


def test_files_that_are_left_out_are_told(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/a', 'south/a')
    (root / 'labels.csv').write_text('image,center\n')
    (root / 'north/a/x.bmp').write_bytes(b'BM')
    (root / '.hidden').write_text('')
    notes = ' '.join(read(root).notes)
    assert "'labels.csv'" in notes or 'labels.csv: not read' in notes
    assert "1 other files are left out, such as 'north/a/x.bmp'" in notes


def test_a_damaged_image_of_a_tree(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/a', 'south/a')
    (root / 'south/a/1.png').write_bytes(b'x')
    message = error_of(read, root)
    assert 'image 5, field image' in message and 'south/a/1.png' in message


def test_no_columns_of_a_tree(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/a', 'south/a')
    assert 'has no headers' in error_of(read, root, columns='label:x')


# -- tables under other names, with other headers


def write_table(root, name, header, *rows):
    grow(root, 'x')
    lines = [header, *(f'x/{i}.png,{row}' for i, row in enumerate(rows))]
    (root / name).write_text('\n'.join(lines))
    return root / name


def test_a_table_with_other_headers(tmp_path, read):
    file = write_table(
        tmp_path / 'set', 'list.csv', 'image,hospital,target,label,age', 'n,a,1,20', 's,b,2,30',
        's,a,3,',
    )
    source = read(file, columns='label:target, center:hospital')
    assert [c.name for c in source.centers] == ['n', 's'] and source.classes == ('a', 'b')
    assert source.centers[1].examples.target['label'].tolist() == [1, 0]
    assert any("column 'label' is kept but not read" in note for note in source.notes)
    table = forms.read_table(file, 'label:target')
    assert table.lines[0][1] == ['image', 'hospital', 'label', 'label (not read)', 'age']


def test_headers_of_a_manifest(tmp_path, read):
    file = write_table(tmp_path / 'set', 'manifest.csv', 'image,center,dx', 'n,b', 'n,a', 'n,b')
    assert read(file.parent).classes == ()
    assert read(file.parent, columns='label:dx').classes == ('a', 'b')  # not the store of before


def test_other_data_need_not_have_all_headers_of_a_run(tmp_path, read):
    """Its labels, say; but what stands for the center is there, or it is another table."""
    inherited = for_others('label:dx,center:site')
    file = write_table(tmp_path / 'set', 'list.csv', 'image,site,label', 'n,b', 's,a')
    source = read(file, columns=inherited)
    assert [c.name for c in source.centers] == ['n', 's'] and source.classes == ('a', 'b')
    assert len(read(grow(tmp_path / 'tree', 'north/a'), columns=inherited).centers) == 1
    assert 'center:site: no such column' in error_of(
        read, write_table(tmp_path / 'other', 'list.csv', 'image,place', 'n'), columns=inherited
    )
    ours = write_table(tmp_path / 'ours', 'list.csv', 'image,center', 'a', 'a')
    (center,) = read(ours, columns=for_others('image:file,center:site')).centers
    assert center.name == 'a'
    assert for_others('') == '' and for_others(inherited) == inherited


def test_the_spacing_may_have_another_header(tmp_path, read):
    file = write_table(
        tmp_path / 'set', 'list.csv', 'image,center,Pixel Spacing', 'n,0.5', 'n,0.5 0.25'
    )
    (note,) = check_table(forms.read_table(file)).notes
    assert "column 'Pixel Spacing' is kept but not read: write spacing" in note
    table = check_table(forms.read_table(file, 'spacing:Pixel Spacing'))
    assert [x.spacing for x in of_manifest(table).values()] == [(0.5, 0.5), (0.5, 0.25)]


BAD_COLUMNS = {
    'label:dy': 'no such column: use one of image, center, dx',
    'lable:dx': 'is not OURS:HEADER',
    'label': 'is not OURS:HEADER',
    'label:dx,center:dx': 'is not OURS:HEADER',
}


@pytest.mark.parametrize('columns', BAD_COLUMNS)
def test_bad_columns(tmp_path, read, columns):
    file = write_table(tmp_path / 'set', 'list.csv', 'image,center,dx', 'n,b')
    assert BAD_COLUMNS[columns] in error_of(read, file, columns=columns)


def test_a_center_without_training_images_is_told(tmp_path, read):
    root = grow(tmp_path / 'set', 'north/train/a', 'south/test/a', 'south/test/b')
    message = error_of(read, root, target='label', require_train=True)
    assert "image 4, field split: center 'south' has no training row" in message
    root = grow(tmp_path / 'plain', 'north/images', 'south/images')
    assert 'image 1, field label' in error_of(read, root, target='label', require_train=True)


def test_what_is_no_form(tmp_path, read):
    assert 'no such file or folder' in error_of(read, tmp_path / 'x.npz')
    (tmp_path / 'x.xlsx').write_bytes(b'')
    assert '.csv, .npz or .parquet' in error_of(read, tmp_path / 'x.xlsx')
    root = grow(tmp_path / 'set', 'north/a')
    np.savez(root / 'x.npz')
    assert '.npz files and folders of images' in error_of(read, root)
    (tmp_path / 'old' / 'a').mkdir(parents=True)
    for i in range(2):
        Image.new('RGB', (4, 4)).save(tmp_path / 'old' / 'a' / f'{i}.bmp')
    assert '2 files .bmp, and none of a type that is read' in error_of(read, tmp_path / 'old')


def test_an_image_without_its_suffix_is_pointed_at(tmp_path, read):
    file = write_table(tmp_path / 'set', 'list.csv', 'image,center', 'n')
    file.write_text('image,center\nx/0,n')
    assert 'write its suffix too, as in 0.png' in error_of(read, file)


# -- training and test without validation


def test_validation_is_taken_out_of_training(tmp_path, read):
    rows = [f'n,p{i // 2},{"test" if i >= 40 else "train"},{"ab"[i // 2 % 2]}' for i in range(60)]
    rows += [f's,,{SPLITS[i % 3]},a' for i in range(6)]
    root = tmp_path / 'set'
    grow(root, 'x', number=len(rows))
    lines = ['image,center,patient,split,label', *(f'x/{i}.png,{r}' for i, r in enumerate(rows))]
    (root / 'manifest.csv').write_text('\n'.join(lines))
    source = read(root)
    north, south = source.centers
    assert np.bincount(north.split).tolist() == [32, 8, 20]
    unit = np.array(north.unit)
    assert not set(unit[north.split == 0]) & set(unit[north.split == 1])
    given_test = [int(path[2:-4]) >= 40 for path in north.path]
    np.testing.assert_array_equal(north.split == 2, given_test)
    label_N = north.examples.target['label']
    assert np.bincount(label_N[north.split == 1]).tolist() == [4, 4]
    assert np.bincount(south.split).tolist() == [2, 2, 2]
    (note,) = [note for note in source.notes if 'validation' in note]
    assert "center 'n' (8 images)" in note and "'s'" not in note
    again = load(root, 4, 1, tmp_path / 'cache').centers[0]
    assert np.any(again.split != north.split)
