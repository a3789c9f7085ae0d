"""Further columns of a table go into the csv of every task, under their own names."""

import csv

import numpy as np
import pytest

from fedgen_jax.predictions import Said, write_predictions
from fedgen_jax.tasks import classification, detection, segmentation

CLASSES = ('a', 'b')
BOXES = {'box': np.zeros((1, 4)), 'score': np.zeros(1), 'box_class': np.zeros(1, int)}


def rows_of(file):
    with open(file, newline='') as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize(('task', 'found', 'name'), [
    (classification, {'probability': np.array([0.25, 0.75])}, 'probabilities.csv'),
    (segmentation, {'mask': np.zeros((4, 5), np.uint8)}, 'images.csv'),
    (detection, BOXES, 'images.csv'),
])
def test_each_task_keeps_them(tmp_path, task, found, name):
    tables = {'with': {'scanner': 'GE, old', 'b': 'x'}, 'without': {}}
    for folder, kept in tables.items():
        said = [Said('1', (5, 4), found, more={'center': 'north'}, kept=kept)]
        said += [Said('2', (5, 4), found, more={'center': 'south'})]
        written = write_predictions(tmp_path / folder, said, task(CLASSES), CLASSES)
        if name == 'images.csv':
            assert (tmp_path / folder / name in written) == bool(kept)
    one, other = rows_of(tmp_path / 'with' / name)
    assert (one['image'], one['center'], one['scanner']) == ('1', 'north', 'GE, old')
    assert (other['center'], other['scanner']) == ('south', '')
    if name == 'probabilities.csv':  # a column that is called as a class
        assert (one['b'], one['b (table)'], one['predicted']) == ('0.75', 'x', 'b')
    else:
        assert one['b'] == 'x'


def test_a_class_that_is_called_as_a_column_takes_nothing_from_it(tmp_path):
    classes = ('center', 'predicted')
    said = [Said('1', (5, 4), {'probability': np.array([0.25, 0.75])}, more={'center': 'north'})]
    write_predictions(tmp_path / 'out', said, classification(classes), classes)
    (row,) = rows_of(tmp_path / 'out' / 'probabilities.csv')
    assert row == {
        'image': '1', 'center': 'north', 'predicted': 'predicted', 'center (probability)': '0.25',
        'predicted (probability)': '0.75',
    }
