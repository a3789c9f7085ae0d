"""Several names in a cell: what is read, what is refused, and what it means that none is there."""

import json

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.check import look
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.source import load


@pytest.fixture
def read(tmp_path):
    """Loads a folder of these cells, all of one center; classes: those of classes.json."""

    def of(cells, classes=None, **options):
        root = tmp_path / 'root'
        root.mkdir(exist_ok=True)
        lines = ['image,center,label']
        for i, cell in enumerate(cells):
            Image.new('RGB', (8, 8), (20 * i, 0, 0)).save(root / f'{i}.png')
            lines.append(f'{i}.png,c,{cell}')
        (root / 'manifest.csv').write_text('\n'.join(lines))
        if classes:
            (root / 'classes.json').write_text(json.dumps({'classes': classes}))
        options = {'target': 'labels', **options}
        return load(root, 8, 0, tmp_path / 'cache', require_train=False, **options)

    return of


CELLS = ['Edema|Effusion', 'Effusion', '', 'Mass | Edema', 'Effusion']
TABLE = [[1, 1, 0], [0, 1, 0], [-1, -1, -1], [1, 0, 1], [0, 1, 0]]


def test_each_name_of_a_cell_is_a_class(read):
    source = read(CELLS)
    assert source.classes == ('Edema', 'Effusion', 'Mass') and source.target == 'labels'
    labels = source.centers[0].examples.target['labels']
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(labels, TABLE)
    assert look(source).rows[0].classes == (2, 3, 1)


def test_a_folder_of_such_cells_is_of_this_kind_by_itself(read):
    assert read(CELLS, target=None).target == 'labels'
    assert read(['a', 'b', 'a'], target=None).target == 'label'
    assert read(['a|b', 'c'], ['a|b', 'c'], target=None).target == 'label'  # one name with a bar


def test_one_label_an_image_names_the_other_task(read):
    with pytest.raises(DataError, match=r"row 2, field label: 'Edema\|Effusion' .*task=multilabel"):
        read(CELLS, target='label')
    assert read(['a|b', 'c'], ['a|b', 'c'], target='label').classes == ('a|b', 'c')


def test_no_finding_is_a_class_unless_classes_json_leaves_it_out(read):
    cells = ['No Finding', 'Edema|Mass', 'Mass', '']
    source = read(cells)
    assert source.classes == ('Edema', 'Mass', 'No Finding')
    (note,) = [x for x in source.notes if 'No Finding' in x]
    assert 'classes.json' in note
    source = read(cells, ['Mass', 'Edema'])
    assert source.classes == ('Mass', 'Edema') and not source.notes
    labels = source.centers[0].examples.target['labels']
    np.testing.assert_array_equal(labels, [[0, 0], [1, 1], [1, 0], [-1, -1]])


@pytest.mark.parametrize(('cell', 'classes', 'said'), [
    ('Edema|', None, 'has an empty name'),
    ('Edema|Edema', None, 'has a name twice'),
    ('No Finding|Edema', None, "says 'No Finding' and names a finding"),
    ('No Finding|Edema', ['Edema', 'Mass'], "says 'No Finding' and names a finding"),
    ('-', None, "'-' read like missing values"),
    ('none', None, "'none' read like missing values"),
    ('edema|Mass', None, "'Edema', 'edema' differ in spelling alone"),
    ('Edema|Cyst', ['Edema', 'Mass'], "unknown label 'Cyst'"),
    ('Edema; Mass', None, "'Edema; Mass' holds names that are labels by themselves: write Edema|"),
    ('Mass/Edema', None, "'Mass/Edema' holds names that are labels by themselves: write Mass|"),
    ('-', ['Edema', 'Mass'], "unknown label '-'"),
])
def test_what_is_not_clear_is_refused_in_one_line(read, cell, classes, said):
    with pytest.raises(DataError) as error:
        read([cell, 'Edema|Mass'], classes)
    assert said in str(error.value) and 'field label' in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_comma_in_a_name_is_one_name_unless_its_parts_are_names_too(read):
    names = read(['"Pneumonia, viral"', '"Pneumonia, bacterial"'], target='label').classes
    assert names == ('Pneumonia, bacterial', 'Pneumonia, viral')
    with pytest.raises(DataError, match='are labels by themselves'):
        read(['Edema', 'Mass', '"Edema, Mass"'], target='label')
    named = ['Edema', 'Mass', 'Edema, Mass']
    assert read(named[:2] + ['"Edema, Mass"'], named, target='label').classes == tuple(named)


def test_a_table_without_labels_is_told_what_to_write(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / '0.png')
    (tmp_path / 'manifest.csv').write_text('image,center,Edema,Mass\n0.png,c,1,0')
    with pytest.raises(DataError, match='no column label: write one .* A|B') as error:
        load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False, target='labels')
    assert '\n' not in str(error.value)


def test_a_column_that_names_no_class_is_refused_unless_they_are_known(read):
    with pytest.raises(DataError, match='no cell names a class'):
        read(['', ''])
    source = read(['', ''], ['a', 'b'])
    np.testing.assert_array_equal(source.centers[0].examples.target['labels'], -1)
