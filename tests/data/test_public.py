"""Cuts into clients are partitions with the skew that was asked for; sets are read whole."""

import io
import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fedgen_jax.data import forms
from fedgen_jax.data.examples import SPLITS
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public.cuts import cut_by_label, cut_by_quantity, cut_of
from fedgen_jax.data.source import load
from fedgen_jax.data.store import Record

LABEL_N = np.random.default_rng(0).integers(0, 5, 1000)


def assert_partition(parts, n):
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts))), np.arange(n))


def total_variation(parts):
    """The mean over clients of the distance between its label mix and the overall one."""
    overall = np.bincount(LABEL_N, minlength=5) / len(LABEL_N)
    mixes = [np.bincount(LABEL_N[p], minlength=5) / len(p) for p in parts]
    return np.mean([0.5 * np.abs(mix - overall).sum() for mix in mixes])


@pytest.mark.parametrize('alpha', [0.05, 0.5, 5, 500])
def test_cut_by_label_is_a_partition(alpha):
    parts = cut_by_label(LABEL_N, 8, alpha, seed=1, min_examples=3)
    assert len(parts) == 8
    assert_partition(parts, 1000)
    assert min(map(len, parts)) >= 3


def test_alpha_sets_the_skew():
    skew = [total_variation(cut_by_label(LABEL_N, 8, a, seed=2)) for a in (0.05, 1, 1000)]
    assert skew[0] > 0.5 > skew[1] > 0.1 > skew[2]


def test_cuts_follow_the_seed():
    for cut in (lambda s: cut_by_label(LABEL_N, 4, 1, s), lambda s: cut_by_quantity(99, 4, 1, s)):
        assert all(np.array_equal(a, b) for a, b in zip(cut(0), cut(0)))
        assert not all(np.array_equal(a, b) for a, b in zip(cut(0), cut(1)))


def test_cuts_that_cannot_be_say_so():
    with pytest.raises(ValueError, match='raise alpha'):
        cut_by_label(np.zeros(10, int), 8, 0.01, seed=0, min_examples=2)
    with pytest.raises(ValueError, match='lower num_clients'):
        cut_by_quantity(10, 6, 1, seed=0, min_examples=2)


@pytest.mark.parametrize('alpha', [0.1, 1, 100])
def test_cut_by_quantity(alpha):
    parts = cut_by_quantity(1000, 10, alpha, seed=0, min_examples=5)
    assert_partition(parts, 1000)
    sizes = [len(p) for p in parts]
    assert min(sizes) >= 5
    # The labels of large parts are those of the whole: only sizes are skewed.
    for part in parts:
        if len(part) > 200:
            mix = np.bincount(LABEL_N[part], minlength=5) / len(part)
            np.testing.assert_allclose(mix, 0.2, atol=0.1)


def test_alpha_sets_the_sizes():
    spread = [
        np.std([len(p) for s in range(5) for p in cut_by_quantity(1000, 10, alpha, seed=s)])
        for alpha in (0.1, 1, 100)
    ]
    assert spread[0] > 150 > spread[1] > 50 > spread[2]


def records_of(n, centers=('x',)):
    for i in range(n):
        yield Record(
            np.zeros((1, 1, 3), np.uint8), {'label': np.int32(i // 2 % 2)},
            centers[i % len(centers)], f'{i}.png', patient=f'p{i // 2}' if i < n // 2 else '',
        )


@pytest.mark.parametrize('text', ['dirichlet:4:1', 'quantity:4:10'])
def test_a_cut_of_records(text):
    found = list(cut_of(records_of(200), text, 0))
    assert sorted(r.path for r in found) == sorted(r.path for r in records_of(200))
    assert {r.center for r in found} == {f'client-{i:03d}' for i in range(4)}
    clients = {}
    for r in found:
        clients.setdefault(r.patient or r.path, set()).add(r.center)
    assert all(len(of) == 1 for of in clients.values())
    again = list(cut_of(records_of(200), text, 1))
    assert [r.center for r in again] != [r.center for r in found]


@pytest.mark.parametrize('text, problem', [
    ('dirichlet:4', 'such as'), ('equal:4:1', 'such as'), ('dirichlet:0:1', 'such as'),
    ('quantity:4:nan', 'such as'), ('quantity:90:1', 'lower num_clients'),
])
def test_cuts_that_are_none(text, problem):
    with pytest.raises(DataError, match=f'data.cut={text}.*{problem}'):
        list(cut_of(records_of(100), text, 0))


def test_what_has_centers_is_not_cut():
    with pytest.raises(DataError, match='2 centers'):
        list(cut_of(records_of(100, ('x', 'y')), 'quantity:2:1', 0))


# -- MedMNIST files


def save_medmnist(file, **changes):
    arrays = {}
    for name, n in (('train', 6), ('val', 3), ('test', 2)):
        arrays[f'{name}_images'] = np.full((n, 5, 5), n, np.uint8)
        arrays[f'{name}_labels'] = np.arange(n)[:, None] % 2
    np.savez(file, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return file


def read(path, size=5, **kwargs):
    return load(path, size, 0, path.parent / 'cache', **kwargs)


def test_medmnist(tmp_path):
    file = save_medmnist(tmp_path / 'x.npz')
    (center,) = read(file).centers
    assert center.name == 'x' and center.path[0] == 'x/train/0'
    assert center.examples.target['label'].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(center.split, [0] * 6 + [1] * 3 + [2] * 2)
    np.testing.assert_array_equal(center.examples.image[:, 0, 0, 0], [6] * 6 + [3] * 3 + [2] * 2)
    assert read(file).classes == ('0', '1')
    (tmp_path / 'classes.json').write_text('{"classes": ["no", "yes"]}')
    assert read(file).classes == ('no', 'yes')


def test_several_files_are_several_centers(tmp_path):
    folder = tmp_path / 'set'
    folder.mkdir()
    save_medmnist(folder / 'north.npz', train_images=np.zeros((6, 4, 7, 3), np.uint8))
    save_medmnist(folder / 'south.npz', train_labels=np.arange(5, 11)[:, None])
    source = read(folder)
    assert [c.name for c in source.centers] == ['north', 'south']
    assert source.classes == tuple(map(str, range(11)))  # in the order of numbers, not of text
    np.testing.assert_array_equal(source.centers[1].examples.target['label'][:6], range(5, 11))


def test_a_changed_file_is_read_again(tmp_path):
    file = save_medmnist(tmp_path / 'x.npz')
    read(file)
    save_medmnist(file, train_images=np.full((6, 5, 5), 99, np.uint8))
    os.utime(file, ns=(1, 1))
    assert read(file).centers[0].examples.image[0, 0, 0, 0] == 99


def test_without_validation_images(tmp_path):
    arrays = {f'{k}_images': np.zeros((n, 5, 5), np.uint8) for k, n in (('train', 10), ('test', 4))}
    labels = {f'{k}_labels': np.zeros((n, 1), int) for k, n in (('train', 10), ('test', 4))}
    np.savez(tmp_path / 'x.npz', **arrays, **labels)
    assert np.bincount(read(tmp_path / 'x.npz').centers[0].split).tolist() == [8, 2, 4]


def test_a_cut_of_a_file(tmp_path):
    file = save_medmnist(tmp_path / 'x.npz', train_images=np.zeros((60, 5, 5), np.uint8),
                         train_labels=np.arange(60)[:, None] % 3)
    source = read(file, cut='dirichlet:3:100')
    assert [c.name for c in source.centers] == [f'client-{i:03d}' for i in range(3)]
    assert sum(len(c.split) for c in source.centers) == 65
    assert sum(np.sum(c.split == 2) for c in source.centers) == 2
    assert len(os.listdir(tmp_path / 'cache')) == 1
    other = load(file, 5, 1, tmp_path / 'cache', cut='dirichlet:3:100')
    assert other.centers[0].path != source.centers[0].path
    assert len(os.listdir(tmp_path / 'cache')) == 1  # the cut is not in the store


BAD_FILES = {
    'missing': ({'val_labels': None}, 'val_labels'),
    'pickle': ({'train_images': np.array([{}] * 6, object)}, 'train_images'),
    'float': ({'train_images': np.zeros((6, 5, 5))}, 'train_images'),
    'shape': ({'test_images': np.zeros((2, 25), np.uint8)}, 'test_images'),
    'length': ({'val_labels': np.zeros((4, 1), int)}, 'val_labels'),
    'many_labels': ({'val_labels': np.zeros((3, 14), int)}, 'val_labels'),
    'label': ({'val_labels': np.full((3, 1), 7)}, 'val_labels'),
    'negative': ({'val_labels': np.full((3, 1), -7)}, 'val_labels'),
    'volumes': ({'val_images': np.zeros((3, 5, 5, 5), np.uint8)}, 'val_images'),
    'fortran': ({'val_images': np.asfortranarray(np.zeros((3, 5, 5), np.uint8))}, 'val_images'),
    'foreign': ({f'{k}_{w}': None for k in SPLITS for w in ('images', 'labels')} | {'x': LABEL_N},
                'x'),
}


@pytest.mark.parametrize('case', BAD_FILES)
def test_bad_medmnist(tmp_path, case):
    changes, field = BAD_FILES[case]
    file = save_medmnist(tmp_path / 'x.npz', **changes)
    (tmp_path / 'classes.json').write_text('{"classes": ["no", "yes"]}')
    with pytest.raises(DataError) as error:
        read(file)
    message = str(error.value)
    assert message.startswith(str(file))
    assert f'field {field}' in message or f'has {field}: must have' in message
    assert len(message.splitlines()) == 1


class Planted:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_objects_in_a_file_are_not_even_loaded(tmp_path):
    planted = np.array([Planted(tmp_path / 'planted')], object)
    file = save_medmnist(tmp_path / 'x.npz', train_labels=planted)
    with pytest.raises(DataError, match='field train_labels: cannot be read'):
        read(file)
    assert not (tmp_path / 'planted').exists()


def test_a_file_that_is_no_npz(tmp_path):
    file = tmp_path / 'x.npz'
    file.write_bytes(b'PK\x03\x04 broken')
    with pytest.raises(DataError, match='numpy.savez'):
        read(file)


@pytest.mark.real
def test_real_medmnist(data_root):
    file = data_root / 'medmnist' / 'pneumoniamnist.npz'
    table = forms.read_table(file)
    splits = [cells[2] for _, cells in table.lines[1:]]
    assert [splits.count(s) for s in SPLITS] == [4708, 524, 624]
    with np.load(file) as archive:
        images = np.concatenate([archive[f'{split}_images'] for split in SPLITS])
    np.testing.assert_array_equal(list(table.images()), images)


# -- parquet files


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file, 'png')
    return file.getvalue()


def save_parquet(file, names=('no', 'yes'), struct=True, **columns):
    """Rows whose images have the gray values 0, 1, 2 and so on."""
    n = len(next(iter(columns.values())))
    images = [{'bytes': png(i), 'path': None} if struct else png(i) for i in range(n)]
    table = pyarrow.table({'image': images, **columns})
    if names:
        features = {'image': {'_type': 'Image'}, 'label': {'names': names, '_type': 'ClassLabel'}}
        table = table.replace_schema_metadata(
            {'huggingface': json.dumps({'info': {'features': features}})}
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, file, row_group_size=2)
    return file


def test_parquet(tmp_path):
    file = save_parquet(
        tmp_path / 'x.parquet', label=[1, 0, -1, None], hospital=['s', 'n', 's', 'n'],
        age=[1.5, 2.0, 3.0, None],
    )
    source = read(file, 4, columns='center:hospital')
    assert source.classes == ('no', 'yes') and [c.name for c in source.centers] == ['n', 's']
    assert source.centers[0].examples.target['label'].tolist() == [0, -1]
    assert source.centers[1].examples.image[:, 0, 0, 0].tolist() == [0, 2]
    table = forms.read_table(file, 'center:hospital')
    assert dict(zip(table.lines[0][1], table.lines[1][1])) == {
        'image': 'x.parquet#0', 'center': 's', 'split': '', 'label': 'yes', 'age': '1.5',
    }
    (center,) = read(file, 4).centers
    assert center.name == 'x' and any('one center' in note for note in read(file, 4).notes)


def test_a_folder_of_parquet_files(tmp_path):
    folder = tmp_path / 'set'
    save_parquet(folder / 'data/train-00000-of-00002.parquet', None, False, label=[2, 10, 2])
    save_parquet(folder / 'data/train-00001-of-00002.parquet', None, False, label=[0, 1, 0])
    save_parquet(folder / 'data/test-00000-of-00001.parquet', None, False, label=[2, 10])
    source = read(folder, 4)
    (center,) = source.centers
    assert center.name == 'set' and source.classes == tuple(map(str, range(11)))
    by_path = dict(zip(center.path, zip(center.split, center.examples.image[:, 0, 0, 0])))
    assert by_path['data/test-00000-of-00001.parquet#1'] == (2, 1)
    assert {s for path, (s, _) in by_path.items() if 'train' in path} == {0, 1}
    save_parquet(folder / 'data/val-0.parquet', ('a',) * 11, False, label=[2, 10])
    with pytest.raises(DataError, match='other names of classes'):
        read(folder, 4)
    (folder / 'data/val-0.parquet').unlink()
    save_parquet(folder / 'data/more.parquet', None, False, label=[2, 10])
    with pytest.raises(DataError, match='its name tells no split'):
        read(folder, 4)


def test_text_of_parquet(tmp_path):
    file = save_parquet(tmp_path / 'x.parquet', None, finding=['b', 'a', 'b'],
                        split=['train', 'validation', 'test'], patient=['p', 'q', 'p2'])
    source = read(file, 4, columns='label:finding')
    (center,) = source.centers
    assert source.classes == ('a', 'b') and center.split.tolist() == [0, 1, 2]
    assert center.unit == ('p', 'q', 'p2')


@pytest.mark.parametrize('as_list', [True, False])
def test_lists_of_labels_in_parquet(tmp_path, as_list):
    """Numbers that Hugging Face names, in both ways in which it writes lists; and text."""
    feature = {'names': ['a', 'b', 'c'], '_type': 'ClassLabel'}
    features = {'found': [feature] if as_list else {'feature': feature, '_type': 'Sequence'}}
    file = save_parquet(tmp_path / 'x.parquet', None, found=[[0, 2], [], None, [1]])
    table = pyarrow.parquet.read_table(file).replace_schema_metadata(
        {'huggingface': json.dumps({'info': {'features': features}})}
    )
    pyarrow.parquet.write_table(table, file)
    source = read(file, 4, columns='label:found', target='labels')
    assert source.classes == ('a', 'b', 'c')
    expected = [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]]
    np.testing.assert_array_equal(source.centers[0].examples.target['labels'], expected)
    save_parquet(file, None, found=[['c', 'a'], [], None, ['b']])
    source = read(file, 4, columns='label:found', target='labels')
    assert source.classes == ('a', 'b', 'c')
    np.testing.assert_array_equal(source.centers[0].examples.target['labels'], expected)


def test_a_0_or_1_for_each_class_in_parquet(tmp_path):
    file = save_parquet(tmp_path / 'x.parquet', None, label=[[0, 1, 1, 0], [0, 0, 0, 0], None])
    source = read(file, 4, target='labels')
    assert source.classes == ('0', '1', '2', '3')
    expected = [[0, 1, 1, 0], [0, 0, 0, 0], [-1, -1, -1, -1]]
    np.testing.assert_array_equal(source.centers[0].examples.target['labels'], expected)
    save_parquet(file, None, label=[[1, 0], [0, 1]])
    with pytest.raises(DataError, match='write names of classes'):
        read(file, 4, target='labels')


def test_paths_without_bytes_in_parquet(tmp_path):
    table = pyarrow.table({'image': [{'bytes': None, 'path': 'x/1.png'}], 'label': [1]})
    pyarrow.parquet.write_table(
        table.cast(pyarrow.schema([
            ('image', pyarrow.struct([('bytes', pyarrow.binary()), ('path', pyarrow.string())])),
            ('label', pyarrow.int64()),
        ])), tmp_path / 'x.parquet',
    )
    with pytest.raises(DataError, match="'x/1.png' is a path without bytes"):
        read(tmp_path / 'x.parquet', 4)


BAD_PARQUET = {
    'no image': ({'label': [1]}, 'image:img', 'no such column'),
    'no picture': ({'label': [1], 'pixels': [b'x']}, 'image:pixels', 'is no png, jpeg or tiff'),
    'no bytes': ({'label': [1], 'pixels': [3]}, 'image:pixels', 'must be bytes'),
    'nested': ({'label': [[[1, 2]]]}, '', 'must be one number or text a row'),
    'a list, of a patient': ({'label': [1], 'patient': [['p']]}, '', 'must be one number or text'),
    'a half': ({'label': [0.5]}, '', '0.5 is no class'),
    'a class more': ({'label': [2]}, '', 'there are 2 classes'),
    'a mask': ({'label': [0], 'mask': [b'']}, 'mask:mask', 'masks are not read'),
}


@pytest.mark.parametrize('case', BAD_PARQUET)
def test_bad_parquet(tmp_path, case):
    made, columns, problem = BAD_PARQUET[case]
    file = save_parquet(tmp_path / 'x.parquet', **made)
    with pytest.raises(DataError, match=problem) as error:
        read(file, 4, columns=columns)
    assert len(str(error.value).splitlines()) == 1


def test_missing_values_of_pandas(tmp_path):
    nan = float('nan')
    file = save_parquet(tmp_path / 'x.parquet', label=[1.0, nan, 0.0], patient=['p', None, 'q'],
                        split=['train', 'train', 'val'], age=[nan, 3.0, 4.0])
    (center,) = read(file, 4).centers
    assert center.examples.target['label'].tolist() == [1, -1, 0]
    assert center.unit == ('p', 'x.parquet#1', 'q')


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / 'x.parquet').write_bytes(b'PAR1')
    with pytest.raises(DataError, match='no parquet that can be read'):
        read(tmp_path / 'x.parquet')
