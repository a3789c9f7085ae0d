"""New, changed and leaving centers of a trained run, from its folder alone."""

import csv
import json
import shutil
from typing import NamedTuple

import numpy as np
import pytest
from drawn import cells_folder, newcomer_folder

from configs.common import base
from fedgen_jax.files import alone_in
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.interrupt import MayPass
from fedgen_jax.onboard import onboard, recalculate
from fedgen_jax.statistics import Statistics, read_statistics
from fedgen_jax.train import train


class Cells(NamedTuple):
    """A center folder, the center that is held out of it, and one that is seen."""

    root: str
    unseen: str
    seen: str


@pytest.fixture(scope='module', params=['drawn', pytest.param('real', marks=pytest.mark.real)])
def cells(request, tmp_path_factory):
    if request.param == 'real':
        return Cells(request.getfixturevalue('data_root') / 'wbc_cls', 'cellavision', 'bccd')
    root = cells_folder(tmp_path_factory.mktemp('cells') / 'root', 4, 40, 16)
    return Cells(root, 'synthetic-3', 'synthetic-0')


def center_folder(cells, folder, as_name=None, labelled=True):
    """A folder of the unseen center, perhaps under another name."""
    return newcomer_folder(cells.root, cells.unseen, folder, as_name, labelled)


@pytest.fixture(scope='module')
def trained_run(cells, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('trained')
    c = base()
    c.data.root, c.data.cache = str(cells.root), str(workdir / 'store')
    c.data.held_out, c.data.image_size = cells.unseen, 16
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 2, 8
    c.devices, c.shifts.acquisition, c.fedgen.modes = 1, 0.0, ('film',)
    train(c, workdir / 'run', progress=False)
    return workdir / 'run'


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / 'run')


def test_a_center_joins_and_leaves_and_the_pool_is_as_before(run, cells, tmp_path):
    before = read_statistics(run)
    report = onboard(run, str(center_folder(cells, tmp_path / 'new')))
    joined = read_statistics(run)
    assert report['centers'][cells.unseen]['scores']['n'] == 40
    assert report['centers'][cells.unseen]['steps'] == report['others']['steps'] == 0
    assert report['others']['weights_before'] == report['others']['weights_after']
    assert set(report['others']['weights_before']) == set(before.own)
    assert joined.pooled.count == before.pooled.count + 40
    assert (run / 'onboard' / cells.unseen).is_dir() and (run / 'center_model').is_dir()
    assert report == json.loads((run / 'onboard.json').read_text())

    left = onboard(run, remove=cells.unseen)
    after = read_statistics(run)
    np.testing.assert_array_equal(after.pooled.total, before.pooled.total)
    assert after.pooled.count == before.pooled.count
    assert cells.unseen not in after.own and not (run / 'onboard' / cells.unseen).exists()
    assert left['center_model']['weights'] != report['center_model']['weights']


def test_a_center_may_come_in_any_form(run, cells, tmp_path):
    folder = center_folder(cells, tmp_path / 'table')
    text = (folder / 'manifest.csv').read_text()
    for i, row in enumerate(csv.DictReader(text.splitlines())):
        file = tmp_path / 'tree' / row['center'] / row['label'] / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / row['image'], file)
    header, rest = text.split('\n', 1)
    (folder / 'list.csv').write_text(header.replace('label', 'dx') + '\n' + rest)
    reports = []
    forms = {folder: None, tmp_path / 'tree': None, folder / 'list.csv': 'label:dx'}
    for data, columns in forms.items():
        reports.append(onboard(run, str(data), columns=columns)['centers'][cells.unseen])
        onboard(run, remove=cells.unseen)
    table, *others = reports
    assert table['scores']['n'] == 40
    for other in others:
        assert other['weights'] == table['weights'] and other['scores']['n'] == 40


def test_labels_do_not_reach_the_model(run, cells, tmp_path):
    with_labels = onboard(run, str(center_folder(cells, tmp_path / 'a')))
    onboard(run, remove=cells.unseen)
    without = onboard(run, str(center_folder(cells, tmp_path / 'b', labelled=False)))
    one, other = (r['centers'][cells.unseen] for r in (with_labels, without))
    assert one['weights'] == other['weights']
    assert other['scores'] == {'n': 0}


def test_an_update_replaces_one_statistic_and_nobody_elses(run, cells, tmp_path):
    before = read_statistics(run)
    folder = center_folder(cells, tmp_path / 'new', as_name=cells.seen)
    report = onboard(run, str(folder), update=cells.seen)
    after = read_statistics(run)
    for name in set(before.own) - {cells.seen}:
        np.testing.assert_array_equal(after.own[name].total, before.own[name].total)
    expected = descriptor.update(before.pooled, before.own[cells.seen], after.own[cells.seen])
    np.testing.assert_array_equal(after.pooled.total, expected.total)
    assert cells.seen not in report['others']['weights_before']
    assert report['others']['weights_before'] == report['others']['weights_after']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, '--data is missing'),
        ({'remove': 'nowhere'}, "no center 'nowhere'"),
        ({'remove': 'SEEN', 'update': 'SEEN'}, '--remove takes neither'),
        ({'update': 'nowhere', 'data': True}, '--update=nowhere: no such center'),
        ({'update': 'SEEN', 'data': True}, '--update=.* wants it alone'),
    ],
)
def test_refuses_what_does_not_fit_in_one_line(run, cells, tmp_path, options, message):
    options = {k: cells.seen if v == 'SEEN' else v for k, v in options.items()}
    if options.get('data'):
        options = {**options, 'data': str(center_folder(cells, tmp_path / 'new'))}
    with pytest.raises(ValueError, match=message) as error:
        onboard(run, **options)
    assert '\n' not in str(error.value)


def statistic(*total):
    return Statistic(np.array(total), 1 + total[0] % 7, 'psi')


OWN = {'a': statistic(1, 2), 'b': statistic(30, 4), 'c': statistic(5, 600)}


@pytest.mark.parametrize(
    ('changes', 'left', 'made'),
    [
        ({'d': statistic(7, 8)}, 'abcd', 'd'),
        ({'b': statistic(0, 9)}, 'abc', 'b'),
        ({'a': None}, 'bc', ''),
        ({'a': None, 'c': statistic(1, 1), 'd': statistic(2, 2)}, 'bcd', 'cd'),
    ],
)
def test_the_pool_stays_the_sum_of_the_centers_that_are_there(changes, left, made):
    before = Statistics(OWN, descriptor.pool(OWN.values()))
    after = recalculate(before, changes)
    assert set(after.statistics.own) == set(left) and set(after.refined_E) == set(made)
    expected = descriptor.pool(after.statistics.own.values())
    np.testing.assert_array_equal(after.statistics.pooled.total, expected.total)
    assert after.statistics.pooled.count == expected.count
    np.testing.assert_array_equal(after.center_model_E, descriptor.mean(expected))
    for name in made:
        np.testing.assert_array_equal(after.refined_E[name], descriptor.mean(changes[name]))
    assert before == Statistics(OWN, before.pooled) and len(OWN) == 3  # as it was


def test_the_last_center_stays():
    one = Statistics({'a': OWN['a']}, OWN['a'])
    with pytest.raises(ValueError, match='the last center'):
        recalculate(one, {'a': None})


def test_waits_for_no_other_process_and_writes_nothing_beside_it(run):
    before = sorted(run.rglob('*'))
    with alone_in(run), pytest.raises(MayPass, match='another process'):
        onboard(run, remove='any')
    assert sorted(run.rglob('*')) == before


def test_refuses_a_center_twice_an_unknown_label_and_stale_statistics(run, cells, tmp_path):
    folder = center_folder(cells, tmp_path / 'new')
    onboard(run, str(folder))
    with pytest.raises(ValueError, match=f'pass --update={cells.unseen}'):
        onboard(run, str(folder))
    manifest = folder / 'manifest.csv'
    manifest.write_text(manifest.read_text().replace('neutrophil', 'blast'))
    with pytest.raises(ValueError, match='blast'):
        onboard(run, str(folder), update=cells.unseen)
    pooled = run / 'statistics' / 'pooled.json'
    values = json.loads(pooled.read_text())
    pooled.write_text(json.dumps({**values, 'psi': 'other'}))
    with pytest.raises(ValueError, match='descriptor network other'):
        onboard(run, remove=cells.unseen)


def test_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match='config.json: missing'):
        onboard(tmp_path, remove='bccd')
