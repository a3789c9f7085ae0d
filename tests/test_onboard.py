"""New, changed and leaving centers of a trained run, from its folder alone."""

import csv
import datetime
import json
import shutil
from typing import NamedTuple

import launched
import numpy as np
import pytest
from drawn import cells_folder, newcomer_folder
from PIL import Image
from processes import ONE_DEVICE
from rolling import assert_same

from configs.common import base
from fedgen_jax.files import alone_in
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.interrupt import MayPass
from fedgen_jax.kept import file_of, names_kept, read_model, write_model
from fedgen_jax.loaded import load
from fedgen_jax.onboard import entry_of, generated, onboard, recalculate
from fedgen_jax.run import restore
from fedgen_jax.statistics import Statistics, read_statistics
from fedgen_jax.train import train

HOUR = datetime.timedelta(hours=1)


class Cells(NamedTuple):
    """A center folder, the center that is held out of it, and one that is seen."""

    root: str
    unseen: str
    seen: str


@pytest.fixture(scope='module', params=['drawn', pytest.param(
    'real', marks=[pytest.mark.real, pytest.mark.extended]
)])
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
    assert report['centers'][cells.unseen]['model'] == str(file_of(run, cells.unseen))
    assert set(load(run).centers) == {*before.own, cells.unseen} == set(names_kept(run))
    assert entry_of(run, cells.unseen).is_file() and (run / 'center_model').is_dir()
    assert report == json.loads((run / 'onboard.json').read_text())

    left = onboard(run, remove=cells.unseen)
    after = read_statistics(run)
    np.testing.assert_array_equal(after.pooled.total, before.pooled.total)
    assert after.pooled.count == before.pooled.count
    assert cells.unseen not in after.own and not entry_of(run, cells.unseen).exists()
    assert set(load(run).centers) == set(before.own) == set(names_kept(run))
    with pytest.raises(ValueError, match=f'center={cells.unseen!r}: one of'):
        load(run).model(cells.unseen)
    assert left['center_model']['weights'] != report['center_model']['weights']
    lines = [json.loads(x) for x in (run / 'onboarded.jsonl').read_text().splitlines()]
    assert [(x['action'], x['centers']) for x in lines] == [
        ('join', [cells.unseen]), ('remove', [cells.unseen])
    ]
    now = datetime.datetime.now(datetime.UTC)
    assert all(now - datetime.datetime.fromisoformat(x['at']) < HOUR for x in lines)


@pytest.mark.parametrize('changes', [{'stranger': 0.0}, {'stranger_change': 0.0}])
def test_the_center_model_is_the_pools_own_however_strangers_are_served(run, changes):
    """A center that leaves takes all of its descriptor with it."""
    c = json.loads((run / 'config.json').read_text())
    c['fedgen'] |= changes
    (run / 'config.json').write_text(json.dumps(c))
    done, pooled = restore(run), read_statistics(run).pooled
    first, *others = read_statistics(run).own
    left = onboard(run, remove=first)['center_model']['weights']
    assert left != descriptor.hash_of(generated(done, descriptor.mean(pooled)))
    assert left != descriptor.hash_of(done.state.shared['theta'])
    report = onboard(run, remove=others[0])
    assert report['center_model']['weights'] != left
    for name in others[1:]:  # what lies there is what they have
        kept = read_model(file_of(run, name), done.program.input, done.reference)
        own = descriptor.hash_of(kept.variables['params'])
        assert own == report['others']['weights_before'][name]


def test_a_run_whose_centers_left_or_changed_trains_no_further(run, cells, tmp_path):
    longer, copy = load(run).config, shutil.copytree(run, tmp_path / 'other')
    longer.rounds += 1
    onboard(run, remove=cells.seen)
    onboard(copy, str(center_folder(cells, tmp_path / 'new', as_name=cells.seen)), cells.seen)
    for folder, what in ((run, 'left'), (copy, 'changed')):
        before = (folder / 'summary.json').read_bytes()
        with pytest.raises(ValueError, match=f'{cells.seen} {what} since') as error:
            train(longer, folder, progress=False)
        assert '\n' not in str(error.value)
        assert (folder / 'summary.json').read_bytes() == before


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


def test_a_new_center_s_model_is_that_of_its_images_alone(run, cells, tmp_path):
    folder = center_folder(cells, tmp_path / 'new', labelled=False)
    made = load(run).model(images=folder)
    joined = onboard(run, str(folder))['centers'][cells.unseen]
    assert descriptor.hash_of(made.variables['params']) == joined['weights']
    kept = load(run).model(cells.unseen)
    assert_same(kept.variables, made.variables)
    found = kept(folder)
    assert len(found) == joined['images'] == 40
    image = np.asarray(Image.open(folder / next(iter(found))).convert('RGB'))
    np.testing.assert_array_equal(
        kept(np.stack([image, image]))['probability'], 2 * [next(iter(found.values()))[
            'probability']]
    )
    np.testing.assert_array_equal(kept(image)['probability'], made(image)['probability'])


def test_a_command_writes_what_a_new_center_s_model_says(run, cells, tmp_path):
    folder = center_folder(cells, tmp_path / 'new', labelled=False)

    def call(*args):
        command = ['launch.predict', f'--workdir={run}', f'--to={tmp_path / "out"}', *args]
        return launched.call(*command, **ONE_DEVICE)

    done = call(f'--data={folder}', '--overlays')
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'out' / 'probabilities.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    classes, found = load(run).classes, load(run).model(images=folder)(folder)
    assert [r['image'] for r in rows] == list(found)
    for row, said in zip(rows, found.values()):
        p_K = [float(row[name]) for name in classes]
        np.testing.assert_allclose(p_K, said['probability'], atol=1e-5)
    assert len([*(tmp_path / 'out' / 'overlays').rglob('*.png')]) == len(rows)
    again = call(f'--data={folder}')
    assert again.returncode == 2 and 'holds files already' in again.stderr


def test_a_seen_center_s_model_is_kept_and_the_same_if_it_is_made_anew(run, cells):
    kept = load(run).model(cells.seen)
    file_of(run, cells.seen).unlink()
    assert cells.seen in load(run).centers
    assert_same(load(run).model(cells.seen).variables, kept.variables)


def test_a_damaged_model_or_one_of_other_weights_is_refused(run, cells):
    done = load(run)
    file = file_of(run, cells.seen)
    kept = read_model(file, done.done.program.input, done.done.reference)
    write_model(run, kept._replace(round=1))
    with pytest.raises(ValueError, match='made at round 1, and the run has reached 2'):
        done.model(cells.seen)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=f'{file.name}: no model of this run, or damaged'):
        done.model(cells.seen)


def test_calling_training_again_leaves_newer_models(run, cells, tmp_path):
    folder = center_folder(cells, tmp_path / 'new', as_name=cells.seen)
    onboard(run, str(folder), update=cells.seen)
    newer = file_of(run, cells.seen).read_bytes()
    gone, *others = (name for name in load(run).centers if name != cells.seen)
    onboard(run, remove=gone)
    file_of(run, others[0]).unlink()
    train(load(run).config, run, progress=False)
    assert file_of(run, cells.seen).read_bytes() == newer
    assert set(names_kept(run)) == {cells.seen, *others}


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
