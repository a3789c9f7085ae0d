"""Every malformed folder is one line that names file, row and field, and the way out."""

import csv
import json
import os
import pickle
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.source import load


def cell(row, field, value):
    """Writes one cell of the manifest (row as in a spreadsheet)."""

    def spoil(root):
        with open(root / 'manifest.csv', newline='') as file:
            table = list(csv.reader(file))
        table[row - 1][table[0].index(field)] = value
        with open(root / 'manifest.csv', 'w', newline='') as file:
            csv.writer(file).writerows(table)

    return spoil


def cells(*changes):
    def spoil(root):
        for change in changes:
            cell(*change)(root)

    return spoil


def text(old, new, name='manifest.csv'):
    """Replaces text in a file; fails where there is nothing to replace."""

    def spoil(root):
        content = (root / name).read_bytes()
        old_bytes = old if isinstance(old, bytes) else old.encode()
        new_bytes = new if isinstance(new, bytes) else new.encode()
        assert old_bytes in content
        (root / name).write_bytes(content.replace(old_bytes, new_bytes, 1))

    return spoil


def content(name, value):
    def spoil(root):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(value if isinstance(value, bytes) else value.encode())

    return spoil


def remove(name):
    return lambda root: (root / name).unlink()


def nothing_left(root):
    shutil.rmtree(root)
    root.mkdir()


def array(name, x):
    """An image file of the array x (uint8, uint16, int32 or float32)."""
    return lambda root: Image.fromarray(x).save(root / name)


def swap(row, name, write):
    """Writes a file and lets the image of a row be that file."""

    def spoil(root):
        write(root)
        cell(row, 'image', name)(root)
        if (root / 'annotations.json').exists():
            remove('annotations.json')(root)

    return spoil


def swap_mask(name, write):
    def spoil(root):
        write(root)
        cell(5, 'mask', name)(root)

    return spoil


def truncated(root):
    file = root / 'images/05.png'
    file.write_bytes(file.read_bytes()[:200])


def linked(root):
    (root.parent / 'outside.png').write_bytes((root / 'images/05.png').read_bytes())
    (root / 'images/05.png').unlink()
    os.symlink(root.parent / 'outside.png', root / 'images/05.png')


def link_loop(root):
    (root / 'images/05.png').unlink()
    os.symlink(root / 'images/05.png', root / 'images/05.png')


def link_twice(root):
    (root / 'images/05.png').unlink()
    os.symlink(root / 'images/04.png', root / 'images/05.png')


def coco(change):
    def spoil(root):
        file = root / 'annotations.json'
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))

    return spoil


def annotation(**fields):
    """Changes annotations[0], which is on row 2."""
    return coco(lambda d: d['annotations'][0].update(fields))


def swap_pages(root):
    pages = [Image.new('L', (12, 10), v) for v in (0, 9)]
    pages[0].save(root / 'images/05.tif', save_all=True, append_images=pages[1:])


BLANK = np.zeros((10, 12), np.uint8)
MANIFEST, ANNOTATIONS, CLASSES = 'manifest.csv', 'annotations.json', 'classes.json'
ROW = 'row 5,'

# id: (what spoils the folder, file, row or entry, field, a word of the way out)
CASES = {
    # the manifest as a file
    'no_manifest': (nothing_left, MANIFEST, 'row 1,', 'image,center', 'write a manifest.csv'),
    'empty_manifest': (content(MANIFEST, ''), MANIFEST, 'row 1,', 'image,center', 'write'),
    'pickle_manifest': (
        content(MANIFEST, pickle.dumps([1])), MANIFEST, 'row 1,', '(all)', 'save the table'),
    'utf16': (
        content(MANIFEST, 'image,center'.encode('utf-16')), MANIFEST, 'row 1,', '(all)', 'UTF-8'),
    'latin1': (
        text('images/05.png,north', 'images/05.png,Orl\xe9ans'.encode('latin-1')),
        MANIFEST, ROW, '(all)', 'UTF-8'),
    'open_quote': (text('images/13.png', '"images/13.png'), MANIFEST, 'row 13', '(all)', 'quotes'),
    'semicolons': (
        content(MANIFEST, 'image;center\nimages/02.png;north\n'),
        MANIFEST, 'row 1,', 'image', 'commas'),
    'header_only': (content(MANIFEST, 'image,center\n'), MANIFEST, 'row 2,', 'image', 'list'),
    # columns
    'no_image_column': (text('image,', 'picture,'), MANIFEST, 'row 1,', 'image', 'add it'),
    'no_center_column': (text(',center', ',site'), MANIFEST, 'row 1,', 'center', 'add it'),
    'column_twice': (text('patient', 'center'), MANIFEST, 'row 1,', 'center', 'remove one'),
    'short_row': (text('images/05.png,north', 'images/05.png'), MANIFEST, ROW, 'label', 'commas'),
    'long_row': (
        text('images/05.png,north', 'images/05.png,north,x'), MANIFEST, ROW, 'mask', 'commas'),
    # cells
    'empty_image': (cell(5, 'image', ''), MANIFEST, ROW, 'image', 'fill it in'),
    'empty_center': (cell(5, 'center', ' '), MANIFEST, ROW, 'center', 'fill it in'),
    'nan_label': (cell(5, 'label', 'NaN'), MANIFEST, ROW, 'label', 'empty'),
    'nan_patient': (cell(5, 'patient', 'nan'), MANIFEST, ROW, 'patient', 'empty'),
    'split_unknown': (cell(5, 'split', 'fold 1'), MANIFEST, ROW, 'split', 'val'),
    'patient_in_two_splits': (
        cells(
            (4, 'patient', 'p'), (4, 'split', 'train'),
            (5, 'patient', 'p'), (5, 'split', 'test')),
        MANIFEST, ROW, 'split', 'one split'),
    'no_train_row': (
        cells(*((r, 'split', 'test') for r in range(8, 14))),
        MANIFEST, 'row 8,', 'split', 'write train'),
    'duplicate': (cell(5, 'image', 'images/04.png'), MANIFEST, ROW, 'image', 'row 4'),
    'duplicate_spelled': (cell(5, 'image', './images//04.png'), MANIFEST, ROW, 'image', 'row 4'),
    'duplicate_link': (link_twice, MANIFEST, ROW, 'image', 'row 4'),
    # paths
    'missing_image': (remove('images/05.png'), MANIFEST, ROW, 'image', 'add the file'),
    'missing_mask': (remove('masks/05.png'), MANIFEST, ROW, 'mask', 'add the file'),
    'folder': (cell(5, 'image', 'images'), MANIFEST, ROW, 'image', 'name one image'),
    'absolute': (cell(5, 'image', '/etc/hostname'), MANIFEST, ROW, 'image', 'relative'),
    'dots': (cell(5, 'image', '../root/images/05.png'), MANIFEST, ROW, 'image', 'without ..'),
    'dots_mask': (cell(5, 'mask', 'masks/../masks/05.png'), MANIFEST, ROW, 'mask', 'without ..'),
    'backslash': (cell(5, 'image', 'images\\05.png'), MANIFEST, ROW, 'image', 'with /'),
    'symlink_outside': (linked, MANIFEST, ROW, 'image', 'copy the file'),
    'symlink_loop': (link_loop, MANIFEST, ROW, 'image', 'images/05.png'),
    'long_name': (cell(5, 'image', 'x' * 5000 + '.png'), MANIFEST, ROW, 'image', 'correct it'),
    'type_unknown': (
        swap(5, 'a.pkl', content('a.pkl', pickle.dumps(BLANK))), MANIFEST, ROW, 'image', '.png'),
    # pixels
    'pickle_named_png': (
        content('images/05.png', pickle.dumps(BLANK)), MANIFEST, ROW, 'image', 'replace'),
    'empty_file': (content('images/05.png', ''), MANIFEST, ROW, 'image', 'replace'),
    'truncated': (truncated, MANIFEST, ROW, 'image', 'replace'),
    'text_named_jpeg': (
        swap(5, 'images/a.jpg', content('images/a.jpg', 'hello')),
        MANIFEST, ROW, 'image', 'replace'),
    'pages': (swap(5, 'images/05.tif', swap_pages), MANIFEST, ROW, 'image', 'by itself'),
    'nan_tiff': (
        swap(5, 'a.tif', array('a.tif', np.full((10, 12), np.nan, np.float32))),
        MANIFEST, ROW, 'image', 'NaN'),
    'float_range': (
        swap(5, 'a.tif', array('a.tif', np.full((10, 12), 300, np.float32))),
        MANIFEST, ROW, 'image', '16 bits'),
    'negative_tiff': (
        swap(5, 'a.tif', array('a.tif', np.full((10, 12), -1, np.int32))),
        MANIFEST, ROW, 'image', '16 bits'),
    # masks
    'mask_size': (
        array('masks/05.png', np.zeros((12, 10), np.uint8)), MANIFEST, ROW, 'mask', 'one size'),
    'mask_class': (array('masks/05.png', BLANK + 3), MANIFEST, ROW, 'mask', 'classes.json'),
    'mask_16_bits': (
        array('masks/05.png', BLANK.astype(np.uint16) + 256), MANIFEST, ROW, 'mask', 'class 256'),
    'mask_negative': (
        swap_mask('masks/a.tif', array('masks/a.tif', BLANK.astype(np.int32) - 1)),
        MANIFEST, ROW, 'mask', 'class -1'),
    'mask_fraction': (
        swap_mask('masks/a.tif', array('masks/a.tif', BLANK + np.float32(0.5))),
        MANIFEST, ROW, 'mask', 'whole numbers'),
    'mask_nan': (
        swap_mask('masks/a.tif', array('masks/a.tif', BLANK + np.float32(np.nan))),
        MANIFEST, ROW, 'mask', 'whole numbers'),
    'mask_rgb': (
        array('masks/05.png', np.zeros((10, 12, 3), np.uint8)), MANIFEST, ROW, 'mask', 'channel'),
    'mask_0_255': (
        lambda root: [
            array(f'masks/0{i}.png', BLANK + 255 * np.eye(10, 12, dtype=np.uint8))(root)
            for i in range(2, 8)
        ], MANIFEST, 'row 2,', 'mask', 'as 1'),
    'mask_broken': (content('masks/05.png', b'\x89PNG'), MANIFEST, ROW, 'mask', 'replace'),
    'mask_unnamed': (remove(CLASSES), MANIFEST, 'row 2,', 'mask', 'mask_classes'),
    # classes.json
    'classes_no_json': (content(CLASSES, '{'), CLASSES, '', '(whole file)', 'JSON'),
    'classes_list': (content(CLASSES, '["a"]'), CLASSES, '', '(whole file)', 'object'),
    'classes_key': (content(CLASSES, '{"mask": ["a"]}'), CLASSES, '', 'mask', 'mask_classes'),
    'classes_text': (content(CLASSES, '{"classes": "ab"}'), CLASSES, '', 'classes', 'list'),
    'classes_number': (content(CLASSES, '{"classes": [1]}'), CLASSES, '', 'classes[0]', 'text'),
    'classes_twice': (
        content(CLASSES, '{"classes": ["a", "a"]}'), CLASSES, '', 'classes[1]', 'remove one'),
    'classes_one': (
        content(CLASSES, '{"mask_classes": ["cell"]}'), CLASSES, '', 'mask_classes', 'background'),
    'label_unlisted': (
        content(CLASSES, '{"classes": ["a"], "mask_classes": ["x", "y", "z"]}'),
        MANIFEST, 'row 3,', 'label', 'one of a'),
    # annotations.json
    'boxes_no_json': (content(ANNOTATIONS, 'x'), ANNOTATIONS, '', '(whole file)', 'JSON'),
    'boxes_deep': (content(ANNOTATIONS, '[' * 100_000), ANNOTATIONS, '', '(whole file)', 'JSON'),
    'boxes_latin1': (
        content(ANNOTATIONS, b'{"a": "\xe9"}'), ANNOTATIONS, '', '(whole file)', 'UTF-8'),
    'boxes_no_images': (coco(lambda d: d.pop('images')), ANNOTATIONS, '', 'images', 'list'),
    'boxes_bare': (
        coco(lambda d: d['annotations'].append(3)), ANNOTATIONS, '', 'annotations', 'list'),
    'box_nan': (
        annotation(bbox=[float('nan'), 0, 1, 1]),
        ANNOTATIONS, "annotations[0] of 'images/02.png'", 'bbox', 'four finite'),
    'box_text': (
        annotation(bbox=['0', 0, 1, 1]), ANNOTATIONS, 'annotations[0]', 'bbox', 'four finite'),
    'box_huge': (
        annotation(bbox=[0, 0, 10**400, 1]), ANNOTATIONS, 'annotations[0]', 'bbox', 'four finite'),
    'box_three': (
        annotation(bbox=[0, 0, 1]), ANNOTATIONS, 'annotations[0]', 'bbox', 'four finite'),
    'box_no_area': (
        annotation(bbox=[1, 1, 0, 4]), ANNOTATIONS, "'images/02.png'", 'bbox', 'remove it'),
    'box_negative': (annotation(bbox=[5, 5, -2, 2]), ANNOTATIONS, 'annotations[0]', 'bbox', 'area'),
    'box_leaves': (
        annotation(bbox=[11, 2, 9, 3]), ANNOTATIONS, "'images/02.png'", 'bbox', 'correct the box'),
    'box_outside': (
        annotation(bbox=[12, 2, 1, 3]), ANNOTATIONS, "'images/02.png'", 'bbox', 'remove it'),
    'box_category': (
        annotation(category_id=9), ANNOTATIONS, 'annotations[0]', 'category_id', 'add the'),
    'box_category_list': (
        annotation(category_id=[5]), ANNOTATIONS, 'annotations[0]', 'category_id', 'add the'),
    'box_image': (annotation(image_id=99), ANNOTATIONS, 'annotations[0]', 'image_id', 'remove'),
    'box_crowd': (annotation(iscrowd=1), ANNOTATIONS, 'annotations[0]', 'iscrowd', 'remove'),
    'category_twice': (
        coco(lambda d: d['categories'][1].update(name='wbc')),
        ANNOTATIONS, 'categories[1]', 'name', 'correct'),
    'image_not_in_manifest': (
        coco(lambda d: d['images'][0].update(file_name='images/99.png')),
        MANIFEST, 'row 2,', 'image', "which has 'images/99.png'"),
    'image_not_in_json': (
        coco(lambda d: (d['images'].pop(), d.update(annotations=[]))),
        MANIFEST, 'row 13,', 'image', 'add it'),
    'json_image_twice': (
        coco(lambda d: d['images'].append(dict(d['images'][0], id=99))),
        ANNOTATIONS, 'images[12]', 'file_name', 'correct'),
    'json_image_id_twice': (
        coco(lambda d: d['images'][1].update(id=2)), ANNOTATIONS, 'images[1]', 'id', 'correct'),
    'json_image_size': (
        coco(lambda d: d['images'][0].update(width=0)),
        ANNOTATIONS, 'images[0]', 'width', 'correct'),
    'json_other_size': (
        coco(lambda d: d['images'][3].update(width=24)), MANIFEST, ROW, 'image', 'correct'),
}


def read(root, **kwargs):
    return load(root, 8, seed=0, cache=root.parent / 'cache', **kwargs)


def check(error, root, file, where, field, hint):
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(root / file))
    assert where in message
    assert f'field {field}' in message
    assert hint in message


def test_the_folder_is_good_before_it_is_spoiled(small_folder):
    assert [len(c.path) for c in read(small_folder).centers] == [6, 6]


@pytest.mark.parametrize('case', CASES)
def test_malformed(small_folder, case):
    spoil, file, where, field, hint = CASES[case]
    spoil(small_folder)
    with pytest.raises(DataError) as error:
        read(small_folder)
    check(error, small_folder, file, where, field, hint)


def test_a_broken_file_leaves_nothing_in_the_store(small_folder):
    truncated(small_folder)
    with pytest.raises(DataError):
        read(small_folder)
    assert list((small_folder.parent / 'cache').iterdir()) == []


def test_labels_unknown_to_the_model(small_folder):
    with pytest.raises(DataError) as error:
        read(small_folder, classes=('b', 'c'))
    check(error, small_folder, MANIFEST, 'row 2,', 'label', 'one of b, c')


def test_mask_classes_unlike_the_model(small_folder):
    with pytest.raises(DataError) as error:
        read(small_folder, target='mask', classes=('none', 'nucleus', 'cell'))
    check(error, small_folder, CLASSES, '', 'mask_classes', 'renumber')


def test_box_classes_unknown_to_the_model(small_folder):
    with pytest.raises(DataError) as error:
        read(small_folder, target='box', classes=('wbc', 'platelet'))
    check(error, small_folder, ANNOTATIONS, 'categories[1]', 'name', 'wbc, platelet')


def test_more_boxes_than_the_model_has_room_for(small_folder):
    with pytest.raises(DataError) as error:
        read(small_folder, max_boxes=1)
    check(error, small_folder, ANNOTATIONS, "'images/03.png'", 'bbox', 'raise max_boxes to 2')


def test_onboarding_needs_no_training_rows(small_folder):
    CASES['no_train_row'][0](small_folder)
    assert len(read(small_folder, require_train=False).centers) == 2


@pytest.mark.parametrize('name, extra', [('a.dcm', 'pydicom'), ('a.nii.gz', 'nibabel')])
def test_missing_extra(small_folder, monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    swap(5, name, content(name, 'x'))(small_folder)
    with pytest.raises(DataError) as error:
        read(small_folder)
    check(error, small_folder, MANIFEST, ROW, 'image', "pip install 'fedgen_jax[medical]'")
