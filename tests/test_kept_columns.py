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
