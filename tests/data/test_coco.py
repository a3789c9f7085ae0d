"""annotations.json in the forms in which tools export it."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle

from fedgen_jax.data.folder.coco_forms import bbox_of, key_of
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.inputs import in_own_pixels
from fedgen_jax.data.source import load
from fedgen_jax.data.targets import Frame
from fedgen_jax.predictions import Said, coco_of
from fedgen_jax.tasks.coco_metrics import ids_of, only_images


@pytest.fixture
def read(small_folder):
    """Changes the folder's annotations.json in place, and loads the boxes."""

    def change(spoil=lambda d: None):
        file = small_folder / 'annotations.json'
        content = json.loads(file.read_text())
        spoil(content)
        file.write_text(json.dumps(content))
        return load(small_folder, 12, 0, small_folder / 'cache', target='box')

    return change


def boxes(source):
    return [c.examples.target for c in source.centers]


def assert_same(a, b):
    assert a.classes == b.classes
    for x, y in zip(boxes(a), boxes(b)):
        for key in ('box', 'box_class'):
            np.testing.assert_array_equal(x[key], y[key])


def text_ids(d):
    for entry in d['images']:
        entry['id'] = f'img{entry["id"]}'
    for entry in d['categories']:
        entry['id'] = f'c{entry["id"]}'
    for entry in d['annotations']:
        entry['image_id'] = f'img{entry["image_id"]}'
        entry['category_id'] = f'c{entry["category_id"]}'


def whole_floats(d):
    for entry in d['images']:
        entry['id'] = float(entry['id'])
    for entry in d['annotations']:
        entry['category_id'] = str(entry['category_id'])  # an id is one, however it is written


def no_crowds(d):
    for i, entry in enumerate(d['annotations']):
        entry['iscrowd'] = [0, '0', False, 'false', None, 0.0, 'False', '', 'no'][i % 9]


def polygons(d):
    for entry in d['annotations']:
        x, y, w, h = entry.pop('bbox')
        entry['segmentation'] = [[x, y, x + w, y, x + w, y + h], [x, y + h, x + 1, y + 1, x, y]]


def to_rle(compress):
    def change(d):
        for entry in d['annotations']:
            x, y, w, h = entry.pop('bbox')
            inside = np.zeros((10, 12), np.uint8, order='F')
            inside[y:y + h, x:x + w] = 1
            run = rle.encode(inside)
            if compress:
                run['counts'] = run['counts'].decode()
            else:
                flat = np.concatenate([[0], inside.ravel(order='F'), [2]])
                edges = np.flatnonzero(np.diff(flat))
                run['counts'] = np.diff([0, *edges]).tolist()
            entry['segmentation'] = run

    return change


def base_names(d):
    for entry in d['images']:
        entry['file_name'] = entry['file_name'].rpartition('/')[2]


def other_folders(d):
    for entry, start in zip(d['images'], ['/data/set/', './', 'C:\\set\\'] * 4):
        entry['file_name'] = start + entry['file_name'].replace('/', '\\' if '\\' in start else '/')


def renamed_folders(d):
    for entry in d['images']:
        entry['file_name'] = entry['file_name'].replace('images/', 'train2017/')


def other_images(d):
    d['images'] += [{'id': 99, 'file_name': 'elsewhere/05.png'}, {'id': 98, 'file_name': 'x.png'}]
    d['annotations'].append({'image_id': 99, 'category_id': 5, 'bbox': [0, 0, 1, 1]})


@pytest.mark.parametrize(
    'change',
    [text_ids, whole_floats, no_crowds, polygons, to_rle(True), to_rle(False), base_names,
     other_folders, renamed_folders, other_images],
)
def test_forms_of_one_file(read, change):
    before = read()
    after = read(change)
    assert_same(before, after)
    told = {other_images: '2 images, the first', renamed_folders: '12 images are told by their'}
    assert len(after.notes) == (change in told)
    assert all(told[change] in note for note in after.notes)


def test_classes_go_by_number_then_by_text(read):
    def change(d):
        d['categories'] += [{'id': '10', 'name': 'x'}, {'id': 'a', 'name': 'y'}]

    assert read(change).classes == ('rbc', 'wbc', 'x', 'y')


def test_a_base_name_of_two_images_is_refused(read, small_folder):
    (small_folder / 'other').mkdir()
    (small_folder / 'images/03.png').rename(small_folder / 'other/02.png')
    manifest = small_folder / 'manifest.csv'
    manifest.write_text(manifest.read_text().replace('images/03.png', 'other/02.png'))
    with pytest.raises(DataError, match="'02.png' is 'images/02.png' or 'other/02.png'"):
        read(base_names)


def test_boxes_some_pixels_outside_are_clipped_and_counted(read):
    def change(d):
        for entry in d['annotations'][:5]:
            entry['bbox'] = [-2, 6, 8, 7]
        d['annotations'][5]['bbox'] = [-1, -1, 3, 3]  # by rounding

    source = read(change)
    np.testing.assert_array_equal(boxes(source)[0]['box'][0, 0], [7, 0, 11, 6])  # one row of black
    (note,) = source.notes
    assert '5 boxes' in note and 'by up to 3 pixels' in note and "'images/02.png'" in note


@pytest.mark.parametrize('bbox', [[20, 0, 3, 3], [11, 2, 9, 3], [1, 1, 0, 3], [1, 1, -3, 3]])
def test_boxes_that_are_none_are_refused_and_counted(read, bbox):
    def change(d):
        for entry in d['annotations'][1:5]:
            entry['bbox'] = bbox

    with pytest.raises(DataError, match=r'annotations\[1\] of .*field bbox.* \(4 annotations'):
        read(change)


def test_corners_and_fractions_are_no_pixels(read):
    def corners(d):
        for i, entry in enumerate(d['annotations']):
            entry['bbox'] = [i % 6, i % 5, i % 6 + 6, i % 5 + 5]

    def fractions(d):
        for entry in d['annotations']:
            entry['bbox'] = [0.1, 0.2, 0.5, 0.6]

    with pytest.raises(DataError, match='like corners'):
        read(corners)
    with pytest.raises(DataError, match='fractions'):
        read(fractions)


def test_a_box_listed_twice_is_told(read):
    source = read(lambda d: d['annotations'].extend(map(dict, d['annotations'][:3])))
    assert any('3 boxes' in note and 'annotations[18]' in note for note in source.notes)


def test_categories_that_differ_in_spelling_alone_are_told(read):
    source = read(lambda d: d['categories'].append({'id': 9, 'name': 'WBC'}))
    assert any("'WBC' and 'wbc'" in note for note in source.notes)


@pytest.mark.parametrize('shape', [
    [[]], [[1, 2, 3]], [['a', 'b']], {'size': [12, 10], 'counts': [0, 4, 116]},
    {'size': [10, 12], 'counts': [0, 4]}, {'counts': [0, 120]}, 7, [[float('nan')] * 6],
])
def test_a_broken_segmentation_is_refused(read, shape):
    def change(d):
        del d['annotations'][0]['bbox']
        d['annotations'][0]['segmentation'] = shape

    with pytest.raises(DataError, match=r'annotations\[0\] .*field bbox') as error:
        read(change)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('seed', range(20))
def test_a_compressed_rle_is_read_as_the_library_reads_it(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(x) for x in rng.integers(2, 90, 2))
    mask = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
    mask[0, 0] = True
    shape = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {'size': [height, width], 'counts': shape['counts'].decode()}
    assert bbox_of({'segmentation': text}, width, height) == rle.toBbox(shape).tolist()
    # Cut short, or of another image, it is none.
    for counts in (text['counts'][:-1], text['counts'] + '1', '~~zz'):
        with pytest.raises(ValueError, match='no polygon or RLE'):
            bbox_of({'segmentation': {**text, 'counts': counts}}, width, height)


def test_ids():
    assert key_of(20240101120000123) == '20240101120000123' and key_of(1.5) is None
    assert key_of(float('nan')) is key_of(float('inf')) is key_of(True) is None
    assert [key_of(x) for x in (7, 7.0, '7', ' a ', 0)] == ['7', '7', '7', 'a', '0']
    assert [key_of(x) for x in (True, None, 7.5, '', [1], float('nan'))] == [None] * 6


@pytest.mark.parametrize('change', [text_ids, polygons, base_names, other_images, whole_floats])
def test_detections_go_back_by_the_ids_of_the_file(read, change, small_folder):
    source = read(change)
    content = json.loads((small_folder / 'annotations.json').read_text())
    center = source.centers[1]
    target = center.examples.target
    found = {**target, 'score': np.where(target['box_class'] >= 0, 0.9, 0)}
    ids = ids_of(small_folder, center.path, source.classes)
    frame = Frame(12, 10, 1.0, 12)
    said = [
        Said(path, (12, 10), in_own_pixels({k: x[i] for k, x in found.items()}, frame))
        for i, path in enumerate(center.path)
    ]
    results = coco_of(said, source.classes, ids)['detections.json']
    truth = only_images(small_folder, set(center.path))
    ids = {entry['id'] for entry in content['images']}
    assert len(results) == len(truth['annotations']) == 9 and len(truth['images']) == 6
    for result, true in zip(results, truth['annotations']):
        assert result['image_id'] == true['image_id'] and result['image_id'] in ids
        assert key_of(result['category_id']) == key_of(true['category_id'])
        np.testing.assert_allclose(result['bbox'], true['bbox'])
