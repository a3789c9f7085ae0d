"""The catalog of published sets: what is known of each, MedMNIST, downloads, the command."""

import hashlib
import io
import pathlib

import launched
import numpy as np
import pytest
from published import laid, read, refused

from fedgen_jax.data.folder.records import scan
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import catalog, download, layout, medmnist_sets
from fedgen_jax.tasks import TASKS

ROOT = pathlib.Path(__file__).parents[2]

# -- MedMNIST


@pytest.mark.real
def test_real_pneumoniamnist(data_root, tmp_path):
    root, notes = laid('pneumoniamnist', data_root / 'medmnist' / 'pneumoniamnist.npz', tmp_path)
    assert len(notes) == 1 and 'not the published file to the bit: its sha256' in notes[0]
    folder = scan(root)
    assert folder.classes == {'label': ('normal', 'pneumonia')}
    assert {row.center for row in folder.manifest.rows} == {'pneumoniamnist'}
    assert [row.split for row in folder.manifest.rows].count('test') == 624


def save_npz(file, counts, side, label):
    arrays = {}
    for split, n in zip(('train', 'val', 'test'), counts):
        arrays[f'{split}_images'] = np.zeros((n, side, side), np.uint8)
        arrays[f'{split}_labels'] = label(n)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def test_medmnist(tmp_path):
    source = tmp_path / 'medmnist'
    save_npz(source / 'breastmnist.npz', (546, 78, 156), 28, lambda n: np.arange(n)[:, None] % 2)
    root, _ = laid('breastmnist', source, tmp_path)
    _, read_source = read(root, tmp_path, 8)
    assert read_source.classes == ('malignant', 'normal, benign')
    save_npz(source / 'breastmnist_64.npz', (546, 78, 155), 64, lambda n: np.zeros((n, 1), int))
    refused('breastmnist_64', source, tmp_path, '546/78/155 images', '546/78/156 of 64')
    refused('breastmnist_128', source, tmp_path, 'has no breastmnist_128.npz')
    refused('breastmnist_224', source / 'breastmnist.npz', tmp_path, '(28, 28)', 'of 224')
    (source / 'octmnist.npz').write_bytes(b'PK\x03\x04')
    refused('octmnist', source, tmp_path, 'octmnist.npz', 'cannot be read')


def test_several_labels_an_image(tmp_path):
    """As ChestMNIST has them."""
    label = np.zeros((5, 3), np.uint8)
    label[1], label[2, 2], label[3, :2] = (1, 0, 0), 1, 1
    file = tmp_path / 'set' / 'x.npz'
    save_npz(file, (5, 5, 5), 6, lambda n: label)
    (tmp_path / 'set/classes.json').write_text('{"classes": ["a", "b", "c"]}')
    centers, source = read(file, tmp_path, 6, target='labels')
    assert source.classes == ('a', 'b', 'c')
    np.testing.assert_array_equal(centers['x'].examples.target['labels'][:5], label)
    (tmp_path / 'set/classes.json').write_text('{"classes": ["a", "b"]}')
    with pytest.raises(DataError, match='2 classes: name all'):
        read(file, tmp_path, 6, target='labels')
    (tmp_path / 'set/classes.json').unlink()
    label[0, 0] = 2
    save_npz(file, (5, 5, 5), 6, lambda n: label)
    with pytest.raises(DataError, match='field train_labels: 3 numbers an image, up to 2'):
        read(file, tmp_path, 6, target='labels')


# -- the command, downloads and the table


def test_what_is_known_of_a_set_is_sound():
    assert len(catalog.SETS) == len({one.name for one in catalog.SETS.values()}) == 10 + 12 * 4
    for one in catalog.SETS.values():
        assert all(task in TASKS for task in one.task.split(', ')), one.name
        assert one.citation and one.licence and one.url.startswith('https://') and one.source
        for file in one.downloads:
            kind, _, digest = file.checksum.partition(':')
            assert len(digest) == {'md5': 32, 'sha256': 64}[kind]
    digests = [file.checksum for one in catalog.SETS.values() for file in one.downloads]
    assert len(set(digests)) == len(digests) == 48
    for of in medmnist_sets.OF.values():
        assert len(set(of.classes)) == len(of.classes) > 1


def test_the_page_has_the_table():
    assert catalog.table() in (ROOT / 'docs' / 'sets.md').read_text()


def opened_as(content):
    return lambda url: io.BytesIO(content)


def test_a_download_is_what_was_published(tmp_path):
    content = b'a file'
    sha256 = hashlib.sha256(content).hexdigest()
    one = layout.Download('https://example.org/x.npz', 'x.npz', f'sha256:{sha256}')
    assert download.fetch(one, tmp_path, opened_as(content)).read_bytes() == content
    with pytest.raises(DataError, match='the published one'):
        download.fetch(one, tmp_path, opened_as(b'another file'))
    with pytest.raises(DataError, match='no https'):
        download.fetch(one._replace(url='http://example.org/x'), tmp_path, opened_as(content))

    def fails(url):
        raise ConnectionError('no route')

    with pytest.raises(DataError, match='no route.*--source'):
        download.fetch(one, tmp_path, fails)


def test_a_set_is_made_or_refused(tmp_path):
    counts = medmnist_sets.OF['retinamnist'].counts
    save_npz(tmp_path / 'x.npz', counts, 28, lambda n: np.arange(n)[:, None] % 5)
    root = tmp_path / 'made' / 'folder'
    with pytest.raises(DataError, match='its md5 is'):  # is not the published file
        catalog.prepare('retinamnist', root, opened=opened_as((tmp_path / 'x.npz').read_bytes()))
    assert not list(root.parent.iterdir())
    notes = catalog.prepare('retinamnist', root, tmp_path / 'x.npz')
    assert len(notes) == 1 and (root / 'retinamnist.npz').is_file()
    with pytest.raises(DataError, match='is there already'):
        catalog.prepare('retinamnist', root, tmp_path / 'x.npz')
    with pytest.raises(DataError, match='no such file or folder: put there'):
        catalog.prepare('padchest', tmp_path / 'y', tmp_path / 'nowhere')
    with pytest.raises(DataError, match='padchest: a form at BIMCV .*: put .*images/ into a'):
        catalog.prepare('padchest', tmp_path / 'y')
    with pytest.raises(ValueError, match='one of wbc_cls'):
        catalog.prepare('nosuch', tmp_path / 'y')
    (tmp_path / 'y.partial').mkdir()
    with pytest.raises(DataError, match='y.partial: left by a command that was cut'):
        catalog.prepare('retinamnist', tmp_path / 'y', tmp_path / 'x.npz')


def test_the_command(tmp_path):
    counts = medmnist_sets.OF['retinamnist'].counts
    save_npz(tmp_path / 'x.npz', counts, 28, lambda n: np.arange(n)[:, None] % 5)
    root = tmp_path / 'made'
    done = launched.call(
        'launch.prepare', '--set=retinamnist', f'--root={root}', f'--source={tmp_path / "x.npz"}'
    )
    assert done.returncode == 0 and done.stderr == ''
    assert f'python -m launch.check --data={root}' in done.stdout and 'Cite Yang' in done.stdout
