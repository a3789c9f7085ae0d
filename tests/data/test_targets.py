"""Kinds of target: a new one is one value, here and nowhere else."""

import numpy as np
import pytest

from fedgen_jax.data.check import look
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.folder.text import row_error
from fedgen_jax.data.source import load
from fedgen_jax.data.targets import TARGETS, Scanned, Target, target_of


def scan_ages(manifest, classes, max_boxes):
    for row in manifest.rows:
        if row.more.get('age') and not row.more['age'].isdecimal():
            row_error(manifest.file, row.number, 'age', f'{row.more["age"]!r}: write whole years')
    return Scanned(classes=('years',))


# A number an image, from a further column of the manifest.
AGE = Target(
    name='age',
    arrays=('age',),
    has=lambda manifest: 'age' in manifest.columns,
    scan=scan_ages,
    read=lambda scanned, row, frame: ({'age': np.float32(row.more.get('age') or np.nan)}, None),
    known=lambda target: np.isfinite(target['age']),
    count=lambda target, k: np.array([np.isfinite(target['age']).sum()]),
    place=('manifest.csv', 'age'),
)
NAME = f'{__name__}:AGE'


def with_ages(root, manifest_writer, ages):
    rows = [
        {'image': f'images/{r:02d}.png', 'center': 'north' if r < 8 else 'south',
         'label': 'ab'[r % 2], 'age': age}
        for r, age in zip(range(2, 14), ages)
    ]
    manifest_writer(root, rows, ('image', 'center', 'label', 'age'))
    return root


@pytest.mark.parametrize('images', ['memory', 'disk'])
def test_a_fourth_kind_is_one_value(small_folder, manifest_writer, images):
    ages = ['30', '', *map(str, range(40, 50))]
    root = with_ages(small_folder, manifest_writer, ages)
    source = load(root, 8, 0, root / 'cache', target=NAME, images=images)
    assert source.classes == ('years',)
    for center, wanted in zip(source.centers, ([30, np.nan, *range(40, 44)], range(44, 50))):
        assert set(center.examples.target) == {'age'}
        np.testing.assert_array_equal(center.examples.target['age'], np.float32(list(wanted)))
    assert [row.classes for row in look(source).rows] == [(5,), (6,)]


def test_a_fourth_kind_refuses_in_one_line(small_folder, manifest_writer):
    root = with_ages(small_folder, manifest_writer, ['30'] * 11 + ['old'])
    with pytest.raises(DataError, match="row 13, field age: 'old': write whole years"):
        load(root, 8, 0, root / 'cache', target=NAME)
    root = with_ages(small_folder, manifest_writer, ['30'] * 6 + [''] * 6)
    with pytest.raises(DataError, match="row 8, field age: center 'south' has no .*: fill it in"):
        load(root, 8, 0, root / 'cache', target=NAME)


def test_the_built_in_kinds_do_not_see_it(small_folder, manifest_writer):
    root = with_ages(small_folder, manifest_writer, ['30'] * 12)
    (root / 'annotations.json').unlink()
    (root / 'classes.json').unlink()
    source = load(root, 8, 0, root / 'cache')
    assert source.classes == ('a', 'b') and set(source.centers[0].examples.target) == {'label'}


def test_names_of_kinds():
    assert all(target_of(name) is target for name, target in TARGETS.items())
    assert target_of(NAME) is AGE
    with pytest.raises(ValueError, match="target='maks': one of label, labels, mask, box"):
        target_of('maks')


def test_examples_of_each_class_are_counted():
    label = {'label': np.array([0, 2, 2, -1])}
    mask = {'mask': np.array([[[0, 1], [1, 1]], [[0, 255], [0, 0]], [[255, 255], [255, 255]]])}
    box = {'box_class': np.array([[1, 1, -1], [0, -1, -1]])}
    assert TARGETS['label'].count(label, 4).tolist() == [1, 0, 2, 0]
    assert TARGETS['mask'].count(mask, 3).tolist() == [2, 1, 0]
    assert TARGETS['box'].count(box, 2).tolist() == [1, 2]
    assert TARGETS['mask'].known(mask).tolist() == [True, True, False]
    assert TARGETS['box'].known({'box_class': np.array([[-1], [0]])}).tolist() == [False, True]
