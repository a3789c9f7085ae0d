"""Cuts into clients are partitions with the skew that was asked for; sets are read whole."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.public import cuts, medmnist, tfds_catalog
from fedgen_jax.data.public.cuts import cut_by_column, cut_by_label, cut_by_quantity

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


def test_cut_by_column():
    parts = cut_by_column(np.array([b'x', 'y', b'x', 'z'], dtype=object))
    assert {k: list(v) for k, v in parts.items()} == {'x': [0, 2], 'y': [1], 'z': [3]}
    assert set(cut_by_column(np.array([3, 1, 3]))) == {'1', '3'}


def test_clients_of_a_cut(tmp_path):
    rng = np.random.default_rng(0)
    image = [rng.integers(0, 256, (9, 7 + i % 2), np.uint8) for i in range(40)]
    column = {'site': np.arange(40) % 3, 'who': np.arange(40) // 4}
    arrays = cuts.Arrays(
        image, np.arange(40, dtype=np.int32) % 2, tuple(map(str, range(40))), ('',) * 40,
        ('a', 'b'), column,
    )
    source = cuts.to_source(arrays, cut_by_column(column['site']), 6, seed=0, patient='who')
    assert [c.name for c in source.centers] == ['0', '1', '2']
    assert source.classes == ('a', 'b')
    for center in source.centers:
        index = np.array(center.path, int)
        np.testing.assert_array_equal(center.examples.target['label'], index % 2)
        assert center.examples.image.shape == (len(index), 6, 6, 3)
        for who in np.unique(index // 4):
            assert len(set(center.split[index // 4 == who])) == 1
    source = cuts.to_source(arrays, cut_by_quantity(40, 4, 10, 0), 6, seed=0)
    assert [c.name for c in source.centers] == [f'client-{i:03d}' for i in range(4)]


# -- MedMNIST files


def save_medmnist(file, **changes):
    arrays = {}
    for name, n in (('train', 6), ('val', 3), ('test', 2)):
        arrays[f'{name}_images'] = np.full((n, 5, 5), n, np.uint8)
        arrays[f'{name}_labels'] = np.arange(n)[:, None] % 2
    np.savez(file, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return file


def test_medmnist(tmp_path):
    arrays = medmnist.read_medmnist(save_medmnist(tmp_path / 'x.npz'), classes=('no', 'yes'))
    np.testing.assert_array_equal(arrays.label, [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1])
    source = cuts.to_source(arrays, [np.arange(11)], 5, seed=0)
    center = source.centers[0]
    np.testing.assert_array_equal(center.split, [0] * 6 + [1] * 3 + [2] * 2)
    np.testing.assert_array_equal(center.examples.image[:, 0, 0, 0], [6] * 6 + [3] * 3 + [2] * 2)


BAD_FILES = {
    'missing': ({'val_labels': None}, 'val_labels'),
    'pickle': ({'train_images': np.array([{}] * 6, object)}, 'train_images'),
    'float': ({'train_images': np.zeros((6, 5, 5))}, 'train_images'),
    'shape': ({'test_images': np.zeros((2, 25), np.uint8)}, 'test_images'),
    'length': ({'val_labels': np.zeros((4, 1), int)}, 'val_labels'),
    'many_labels': ({'val_labels': np.zeros((3, 14), int)}, 'val_labels'),
    'label': ({'val_labels': np.full((3, 1), 7)}, 'labels'),
}


@pytest.mark.parametrize('case', BAD_FILES)
def test_bad_medmnist(tmp_path, case):
    changes, field = BAD_FILES[case]
    file = save_medmnist(tmp_path / 'x.npz', **changes)
    with pytest.raises(DataError) as error:
        medmnist.read_medmnist(file, classes=('no', 'yes'))
    message = str(error.value)
    assert message.startswith(str(file)) and f'field {field}' in message
    assert len(message.splitlines()) == 1


class Planted:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_objects_in_a_file_are_not_even_loaded(tmp_path):
    planted = np.array([Planted(tmp_path / 'planted')], object)
    file = save_medmnist(tmp_path / 'x.npz', train_images=planted)
    with pytest.raises(DataError, match='field train_images: cannot be read'):
        medmnist.read_medmnist(file)
    assert not (tmp_path / 'planted').exists()


def test_a_file_that_is_no_npz(tmp_path):
    file = tmp_path / 'x.npz'
    file.write_bytes(b'PK\x03\x04 broken')
    with pytest.raises(DataError, match='numpy.savez'):
        medmnist.read_medmnist(file)


@pytest.mark.real
def test_real_medmnist(data_root):
    arrays = medmnist.read_medmnist(data_root / 'medmnist' / 'pneumoniamnist.npz')
    assert [arrays.split.count(s) for s in ('train', 'val', 'test')] == [4708, 524, 624]
    parts = cut_by_label(arrays.label[:200], 3, 1, seed=0)
    source = cuts.to_source(arrays, parts, 28, seed=0)
    center = source.centers[0]
    i = arrays.path.index(center.path[0])
    np.testing.assert_array_equal(center.examples.image[0, ..., 1], arrays.image[i])


# -- the TFDS catalog


class TinySet(tfds.core.GeneratorBasedBuilder):
    """Seven gray images whose value is their number, from three sites."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({
                'image': tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8),
                'label': tfds.features.ClassLabel(names=['no', 'yes']),
                'site': tfds.features.Text(),
            }),
        )

    def _split_generators(self, dl_manager):
        return {
            'train': self._generate_examples(0, 4),
            'validation': self._generate_examples(4, 5),
            'test': self._generate_examples(5, 7),
        }

    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            image = np.full((4, 4, 1), i, np.uint8)
            yield i, {'image': image, 'label': i % 2, 'site': f'site{i % 3}'}


def test_tfds(tmp_path):
    arrays = tfds_catalog.read_tfds('tiny_set', data_dir=str(tmp_path), columns=('site',))
    assert arrays.classes == ('no', 'yes')
    source = cuts.to_source(arrays, cut_by_column(arrays.column['site']), 4, seed=0)
    assert [c.name for c in source.centers] == ['site0', 'site1', 'site2']
    for s, center in enumerate(source.centers):
        number = center.examples.image[:, 0, 0, 0]
        assert set(number) == {i for i in range(7) if i % 3 == s}
        np.testing.assert_array_equal(center.examples.target['label'], number % 2)
        np.testing.assert_array_equal(center.split, np.searchsorted([4, 5], number, 'right'))


def test_tfds_unknown_field(tmp_path):
    with pytest.raises(DataError, match='field hospital: .* use one of image, label, site'):
        tfds_catalog.read_tfds('tiny_set', data_dir=str(tmp_path), columns=('hospital',))
