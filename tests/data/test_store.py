"""The store gives back what it was given, needs no TensorFlow, and bears two writers."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fedgen_jax.data import source, store
from fedgen_jax.data.folder import records as folder
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.store import Record, Rows, stored

PROBE = """
import sys
from fedgen_jax.data.source import load
centers = load(sys.argv[1], 8, 0, cache=sys.argv[2]).centers
again = load(sys.argv[1], 8, 0, cache=sys.argv[2]).centers
assert all((a.examples.image == b.examples.image).all() for a, b in zip(centers, again))
assert 'tensorflow' not in sys.modules
print(sum(len(c.path) for c in centers))
"""


def make_records(n=10, size=6, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        target = {
            'label': np.int32(i - 1),
            'mask': rng.integers(0, 256, (size, size), np.uint8),
            'box': rng.normal(size=(3, 4)).astype(np.float32),
            'box_class': rng.integers(-1, 5, 3, np.int32),
        }
        image = rng.integers(0, 256, (size, size, 3), np.uint8)
        yield Record(
            image, target, f'é{i % 2}', f'path/{i}', 'p' if i else '', 'val' if i else '',
            size=f'{i} x 6', assumed='turned\nfirst page' if i else '',
        )


def assert_same(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x[2:] == y[2:]
        assert set(x.target) == set(y.target)
        for key in x.target:
            assert np.asarray(x.target[key]).dtype == np.asarray(y.target[key]).dtype
            np.testing.assert_array_equal(x.target[key], y.target[key])
        assert x.image.dtype == y.image.dtype
        np.testing.assert_array_equal(x.image, y.image)


def test_round_trip(tmp_path):
    metadata = {'classes': {'label': ['a', 'b']}}
    records, read = stored({'n': 10}, make_records, metadata, tmp_path)
    assert_same(records, make_records())
    assert read == metadata


def test_the_store_is_the_folder(small_folder, tmp_path):
    scanned = folder.scan(small_folder)
    direct = list(folder.records(scanned, 8))
    records, metadata = stored(
        {'key': 1}, lambda: folder.records(scanned, 8), {'classes': scanned.classes}, tmp_path
    )
    records = list(records)
    assert_same(records, direct)
    a = source.assemble(direct, scanned.classes, 3)
    b = source.assemble(records, metadata['classes'], 3)
    assert a.classes == b.classes
    for x, y in zip(a.centers, b.centers):
        assert (x.name, x.path) == (y.name, y.path)
        np.testing.assert_array_equal(x.split, y.split)
        np.testing.assert_array_equal(x.examples.image, y.examples.image)


def test_images_on_disk_are_the_same_when_indexed(small_folder, tmp_path):
    options = {'target': 'label', 'cache': tmp_path}
    memory = source.load(small_folder, 8, 3, **options).centers[0].examples.image
    disk = source.load(small_folder, 8, 3, images='disk', **options).centers[0].examples.image
    assert isinstance(disk, Rows) and (disk.shape, disk.dtype) == (memory.shape, memory.dtype)
    assert len(disk) == len(memory) >= 2
    odd = np.arange(len(memory)) % 2 == 1
    for index in (0, -1, slice(None), slice(1, 3), odd, ~odd & odd, np.array([1, 0, 1])):
        np.testing.assert_array_equal(disk[index], memory[index])
        assert disk[index].dtype == memory.dtype
    with pytest.raises(IndexError):
        disk[len(memory)]


def test_it_is_made_once_a_key(tmp_path):
    calls = []

    def make(n):
        calls.append(n)
        return make_records(n)

    for n in (3, 3, 4):
        records, _ = stored({'n': n}, lambda n=n: make(n), {}, tmp_path)
        assert len(list(records)) == n
    assert calls == [3, 4]


def test_edits_to_the_folder_are_seen(small_folder, tmp_path):
    cache = tmp_path / 'cache'

    def keys():
        source.load(small_folder, 8, 0, cache)
        return len(os.listdir(cache))

    assert keys() == keys() == 1
    source.load(small_folder, 8, 1, cache)  # the seed is not in the store
    assert keys() == 1
    image = small_folder / 'images/05.png'
    os.utime(image, ns=(1, image.stat().st_mtime_ns + 1))
    assert keys() == 2
    manifest = small_folder / 'manifest.csv'
    manifest.write_bytes(manifest.read_bytes() + b'\n')  # the same rows
    assert keys() == 2
    manifest.write_text(manifest.read_text().replace('north', 'up'))
    assert keys() == 3
    classes = small_folder / 'classes.json'
    classes.write_text(classes.read_text() + ' ')
    assert keys() == 4
    source.load(small_folder, 9, 0, cache)
    assert keys() == 5
    (small_folder / 'images/unlisted.png').write_bytes(b'')
    assert keys() == 5


def test_no_tensorflow_and_two_writers(small_folder, tmp_path):
    # Any import of this tensorflow ends the process.
    (tmp_path / 'fake/tensorflow').mkdir(parents=True)
    (tmp_path / 'fake/tensorflow/__init__.py').write_text('import os\nos._exit(3)\n')
    path = os.pathsep.join([str(tmp_path / 'fake'), *filter(None, sys.path)])
    command = [sys.executable, '-c', PROBE, str(small_folder), str(tmp_path / 'cache')]
    env = os.environ | {'PYTHONPATH': path}
    both = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, b'12'), err.decode()
    assert len(os.listdir(tmp_path / 'cache')) == 1


def test_the_second_writer_takes_what_the_first_wrote(tmp_path):
    def make():
        inner, _ = stored({'n': 5}, lambda: make_records(5), {}, tmp_path)
        assert len(list(inner)) == 5
        yield from make_records(5)

    records, _ = stored({'n': 5}, make, {}, tmp_path)
    assert_same(records, make_records(5))
    assert len(os.listdir(tmp_path)) == 1


def test_an_error_while_writing_is_passed_on_and_leaves_nothing(tmp_path):
    def make():
        yield from make_records(2)
        raise DataError('row 4, field image: bad')

    with pytest.raises(DataError) as error:
        stored({}, make, {}, tmp_path)
    assert str(error.value) == 'row 4, field image: bad'
    assert os.listdir(tmp_path) == []


def test_no_records_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='at least one'):
        stored({}, lambda: iter(()), {}, tmp_path)


def test_centers_in_memory_go_through_the_store(small_folder, tmp_path):
    before = source.load(small_folder, 8, 0, tmp_path)
    records, metadata = stored(
        {'generator': 'x'},
        lambda: source.to_records(before.centers),
        {'classes': {'label': before.classes}},
        tmp_path,
    )
    after = source.assemble(records, metadata['classes'], seed=99)  # the splits are given
    assert after.classes == before.classes
    for x, y in zip(before.centers, after.centers):
        np.testing.assert_array_equal(x.split, y.split)
        for key in x.examples.target:
            np.testing.assert_array_equal(x.examples.target[key], y.examples.target[key])


def test_centers_without_a_split_are_split_when_assembled(small_folder, tmp_path):
    centers = source.load(small_folder, 8, 0, tmp_path).centers
    records = list(source.to_records(c._replace(split=None) for c in centers))
    assert {r.split for r in records} == {''}
    splits = [source.assemble(records, {}, seed).centers[0].split for seed in range(5)]
    assert any(not np.array_equal(splits[0], s) for s in splits)


def test_a_folder_of_one_center_splits_as_it_did_among_others(small_folder, tmp_path):
    both = source.load(small_folder, 8, 5, tmp_path)
    manifest = small_folder / 'manifest.csv'
    lines = manifest.read_text().splitlines(True)
    manifest.write_text(''.join(line for line in lines if 'north' not in line))
    (small_folder / 'annotations.json').unlink()
    alone = source.load(small_folder, 8, 5, tmp_path)
    assert len(alone.centers) == 1
    np.testing.assert_array_equal(alone.centers[0].split, both.centers[1].split)


def test_the_cache_can_be_named(monkeypatch, tmp_path):
    monkeypatch.delenv('FEDGEN_CACHE', raising=False)
    assert store.cache_folder().parts[-2:] == ('.cache', 'fedgen_jax')
    monkeypatch.setenv('FEDGEN_CACHE', str(tmp_path))
    assert store.cache_folder() == tmp_path
    assert store.cache_folder('x').name == 'x'
