"""New, changed and leaving centers of a trained run, from its folder alone."""

import csv
import json
import shutil

import numpy as np
import pytest

from configs.common import base
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import onboard
from fedgen_jax.summary import read_statistics
from fedgen_jax.train import train

UNSEEN = 'cellavision'


def center_folder(data_root, folder, name, as_name=None, labelled=True, limit=40):
    """A folder of one real center, perhaps under another name."""
    folder.mkdir()
    with open(data_root / 'wbc_cls' / 'manifest.csv', newline='') as file:
        rows = [r for r in csv.DictReader(file) if r['center'] == name][:limit]
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['image', 'center', 'label'])
        for r in rows:
            (folder / r['image']).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data_root / 'wbc_cls' / r['image'], folder / r['image'])
            writer.writerow([r['image'], as_name or name, r['label'] if labelled else ''])
    return folder


@pytest.fixture(scope='module')
def trained_run(data_root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('trained')
    c = base()
    c.data.root, c.data.cache = str(data_root / 'wbc_cls'), str(workdir / 'store')
    c.data.held_out, c.data.image_size = UNSEEN, 16
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 2, 8
    train(c, workdir / 'run', progress=False)
    return workdir / 'run'


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / 'run')


def test_a_center_joins_and_leaves_and_the_pool_is_as_before(run, data_root, tmp_path):
    before = read_statistics(run)
    report = onboard(run, str(center_folder(data_root, tmp_path / 'new', UNSEEN)))
    joined = read_statistics(run)
    assert report['centers'][UNSEEN]['scores']['n'] == 40
    assert report['centers'][UNSEEN]['steps'] == report['others']['steps'] == 0
    assert report['others']['weights_before'] == report['others']['weights_after']
    assert set(report['others']['weights_before']) == set(before) - {'pooled'}
    assert joined['pooled'].count == before['pooled'].count + 40
    assert (run / 'onboard' / UNSEEN).is_dir() and (run / 'center_model').is_dir()
    assert report == json.loads((run / 'onboard.json').read_text())

    left = onboard(run, remove=UNSEEN)
    after = read_statistics(run)
    np.testing.assert_array_equal(after['pooled'].total, before['pooled'].total)
    assert after['pooled'].count == before['pooled'].count
    assert UNSEEN not in after and not (run / 'onboard' / UNSEEN).exists()
    assert left['center_model']['weights'] != report['center_model']['weights']


def test_labels_do_not_reach_the_model(run, data_root, tmp_path):
    with_labels = onboard(run, str(center_folder(data_root, tmp_path / 'a', UNSEEN)))
    onboard(run, remove=UNSEEN)
    without = onboard(run, str(center_folder(data_root, tmp_path / 'b', UNSEEN, labelled=False)))
    one, other = (r['centers'][UNSEEN] for r in (with_labels, without))
    assert one['weights'] == other['weights']
    assert other['scores'] == {'n': 0}


def test_an_update_replaces_one_statistic_and_nobody_elses(run, data_root, tmp_path):
    before = read_statistics(run)
    folder = center_folder(data_root, tmp_path / 'new', UNSEEN, as_name='bccd')
    report = onboard(run, str(folder), update='bccd')
    after = read_statistics(run)
    for name in set(before) - {'bccd', 'pooled'}:
        np.testing.assert_array_equal(after[name].total, before[name].total)
    expected = descriptor.update(before['pooled'], before['bccd'], after['bccd'])
    np.testing.assert_array_equal(after['pooled'].total, expected.total)
    assert 'bccd' not in report['others']['weights_before']
    assert report['others']['weights_before'] == report['others']['weights_after']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, '--data is missing'),
        ({'remove': 'nowhere'}, "no center 'nowhere'"),
        ({'remove': 'bccd', 'update': 'bccd'}, '--remove takes neither'),
        ({'update': 'nowhere', 'data': True}, '--update=nowhere: no such center'),
        ({'update': 'bccd', 'data': True}, '--update=bccd wants it alone'),
    ],
)
def test_refuses_what_does_not_fit_in_one_line(run, data_root, tmp_path, options, message):
    if options.get('data'):
        options = {**options, 'data': str(center_folder(data_root, tmp_path / 'new', UNSEEN))}
    with pytest.raises(ValueError, match=message) as error:
        onboard(run, **options)
    assert '\n' not in str(error.value)


def test_the_last_center_stays_whole(run):
    *others, last = [name for name in read_statistics(run) if name != 'pooled']
    for name in others:
        onboard(run, remove=name)
    with pytest.raises(ValueError, match='the last center'):
        onboard(run, remove=last)
    assert set(read_statistics(run)) == {last, 'pooled'}


def test_refuses_a_center_twice_an_unknown_label_and_stale_statistics(run, data_root, tmp_path):
    folder = center_folder(data_root, tmp_path / 'new', UNSEEN)
    onboard(run, str(folder))
    with pytest.raises(ValueError, match=f'pass --update={UNSEEN}'):
        onboard(run, str(folder))
    manifest = folder / 'manifest.csv'
    manifest.write_text(manifest.read_text().replace('neutrophil', 'blast'))
    with pytest.raises(ValueError, match='blast'):
        onboard(run, str(folder), update=UNSEEN)
    pooled = run / 'statistics' / 'pooled.json'
    values = json.loads(pooled.read_text())
    pooled.write_text(json.dumps({**values, 'psi': 'other'}))
    with pytest.raises(ValueError, match='descriptor network other'):
        onboard(run, remove=UNSEEN)


def test_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match='config.json: missing'):
        onboard(tmp_path, remove='bccd')
