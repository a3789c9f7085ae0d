"""Sets of the TFDS catalog, from one that is made here."""


import numpy as np
import pytest
import tensorflow_datasets as tfds

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.source import load

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


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, 'DATA_DIR', str(tmp_path / 'tfds'))
    return lambda name, **kwargs: load(f'tfds:{name}', 4, 0, tmp_path / 'cache', **kwargs)


def test_tfds(catalog):
    source = catalog('tiny_set', columns='center:site')
    assert source.classes == ('no', 'yes')
    assert [c.name for c in source.centers] == ['site0', 'site1', 'site2']
    for s, center in enumerate(source.centers):
        number = center.examples.image[:, 0, 0, 0]
        assert set(number) == {i for i in range(7) if i % 3 == s}
        np.testing.assert_array_equal(center.examples.target['label'], number % 2)
        np.testing.assert_array_equal(center.split == 2, number >= 5)
        assert set(center.split[number == 4]) <= {1}


def test_tfds_without_centers(catalog):
    source = catalog('tiny_set')
    assert [c.name for c in source.centers] == ['tiny_set']
    assert any('one center' in note for note in source.notes)


@pytest.mark.parametrize('name, columns, problem', [
    ('tiny_set', 'center:hospital', 'no such column: use one of image, label, site'),
    ('no_such_set', '', 'correct the name'),
])
def test_tfds_mistakes(catalog, name, columns, problem):
    with pytest.raises(DataError, match=problem) as error:
        catalog(name, columns=columns)
    assert len(str(error.value).splitlines()) == 1
