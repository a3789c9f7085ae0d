"""A report of real runs: beside one without a shared model, and after centers came and went."""

import json
import shutil

import numpy as np
import pytest

from configs.common import base
from fedgen_jax.answers import finished
from fedgen_jax.data.examples import of_split
from fedgen_jax.evaluate import canonical
from fedgen_jax.files import write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.kept import file_of
from fedgen_jax.onboard import HISTORY, entry_of
from fedgen_jax.report.canonical import canonical_section, text_of
from fedgen_jax.report.changes import changes_of, section_of
from fedgen_jax.report.gather import distinct, read_summary, report_run
from fedgen_jax.schema import Summary
from fedgen_jax.statistics import Statistics, read_statistics, write_statistics
from fedgen_jax.train import train


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    for algorithm in ('fedgen', 'local_only'):
        c = base()
        c.algorithm = algorithm
        c.data.source, c.data.cache = 'synthetic', str(folder / 'store')
        c.data.centers, c.data.held_out, c.data.examples = 3, 'synthetic-2', 20
        c.data.image_size, c.model.widths = 8, (8,)
        c.rounds, c.local_steps, c.batch_size = 1, 1, 4
        c.fedgen.support, c.fedgen.modes = 4, ('film',)
        c.shifts.acquisition, c.input.canonical = 0.0, 'brightfield'
        train(c, folder / algorithm, progress=False)
    return folder


@pytest.fixture
def run(runs, tmp_path):
    return shutil.copytree(runs / 'fedgen', tmp_path / 'run')


@pytest.mark.extended
def test_a_run_without_a_shared_model_stands_beside(runs):
    text = report_run(runs / 'fedgen', runs / 'local_only').read_text()
    assert 'Local only: the centers share no model' in text
    text = text.split('<h2>What the centers see')[1]
    unseen = text.split('<h3>synthetic-2')[1].split('<h2>')[0]
    seen = text.split('<h3>synthetic-1')[1].split('<h3>')[0]
    assert 'Local only: ' in seen and 'Local only: ' not in unseen and 'FedGen: ' in unseen


def test_what_a_run_leaves_behind_is_the_schemas(runs, conforms):
    for algorithm in ('fedgen', 'local_only'):
        assert conforms(read_summary(runs / algorithm), Summary)


def test_a_run_is_not_put_beside_itself(runs):
    with pytest.raises(ValueError, match='the run itself'):
        report_run(runs / 'local_only', runs / 'local_only')
    with pytest.raises(ValueError, match='nowhere/summary.json: missing'):
        report_run(runs / 'nowhere')


def test_who_came_and_went_is_shown(run):
    assert changes_of(run, ['synthetic-0', 'synthetic-1']) is None
    kept = read_statistics(run)
    like = kept.own['synthetic-0']
    own = {'synthetic-0': like, 'newcomer': Statistic(like.total, 12, like.psi)}
    write_statistics(run, Statistics(own, descriptor.pool(own.values())))
    entry_of(run, 'synthetic-0').parent.mkdir()
    write_json(entry_of(run, 'synthetic-0'), {'scores': {'n': 0}, 'steps': 20})
    entry = {'scores': {'auroc': 0.5, 'balanced_accuracy': 0.4321, 'n': 12}, 'seconds': 1.5}
    entry |= {'bytes_up': 1264, 'bytes_down': 512_345, 'images': 12}
    write_json(run / 'onboard.json', {'centers': {'newcomer': entry}, 'removed': None})
    lines = [(9, 'synthetic-1'), (10, 'newcomer'), (11, 'newcomer')]
    (run / HISTORY).write_text(''.join(
        json.dumps({'at': f'2026-05-01T{h:02}:30:00+00:00', 'action': '', 'centers': [name]}) + '\n'
        for h, name in lines
    ))
    file_of(run, 'newcomer').write_bytes(b'')
    changes = changes_of(run, ['synthetic-0', 'synthetic-1'])
    assert (changes.joined, changes.updated, changes.removed) == (
        ('newcomer',), ('synthetic-0',), ('synthetic-1',)
    )
    table = section_of(changes, 'balanced_accuracy').table
    assert table.head[1:5] == ['when (UTC)', 'images', 'Balanced accuracy', 'AUROC']
    assert table.rows[0] == [
        'newcomer: joined', '2026-05-01 11:30', '12', '0.432', '0.500', '–', '1.3', '512.3', '1.50',
        'models/newcomer.npz',
    ]
    assert table.rows[1][:2] == ['synthetic-0: new data', '–']
    assert table.rows[1][5] == '20 steps without labels'
    assert table.rows[2] == ['synthetic-1: left', '2026-05-01 09:30', *8 * ['–']]
    text = report_run(run).read_text()
    for name in ('newcomer (joined)', 'synthetic-0 (updated)', 'synthetic-1 (left)'):
        assert name in text
    assert 'newcomer: joined' in text


def test_one_that_joined_and_is_to_join_again_has_not_left(run):
    """A run that is trained longer forgets who joined."""
    line = {'at': '2026-05-01T09:30:00+00:00', 'action': 'join', 'centers': ['guest']}
    (run / HISTORY).write_text(json.dumps(line) + '\n')
    assert changes_of(run, ['synthetic-0', 'synthetic-1']).removed == ()


def test_one_that_joined_and_left_again_is_named(run):
    write_json(run / 'onboard.json', {'centers': {}, 'removed': 'guest'})
    changes = changes_of(run, ['synthetic-0', 'synthetic-1'])
    assert (changes.joined, changes.updated, changes.removed) == ((), (), ('guest',))
    table = section_of(changes, 'balanced_accuracy').table
    assert table.rows == [['guest: left']]


def test_images_stand_beside_what_models_see_of_them(run):
    """Of the split that the page shows anyway: training images are in no report."""
    opened, done = finished(run)
    section = canonical_section(opened.config, done, 'test')
    assert {(s.name, s.kind) for s in section.strips} == {
        ('synthetic-0', 'seen'), ('synthetic-1', 'seen'), ('synthetic-2', 'unseen')
    }
    for strip, center in zip(section.strips, (*opened.seen, *opened.unseen)):
        images = of_split(center, 'test')
        expected = canonical(done, of_split(center, 'train'), images).image
        for (was, now), one, moved in zip(strip.columns, images.image, expected):
            np.testing.assert_array_equal(was.picture, one)
            np.testing.assert_array_equal(now.picture, moved)
            assert not np.array_equal(one, moved)
    assert 'stain density' in section.text
    page = report_run(run).read_text()
    assert page.count('>canonical<') == sum(len(s.columns) for s in section.strips)
    gray = opened.config.copy_and_resolve_references()
    gray.input.canonical = 'gray'
    assert 'contrast' in text_of(gray) and 'stain' not in text_of(gray)


def test_a_report_reads_the_names_of_earlier_versions(run):
    made = json.loads((run / 'summary.json').read_text())
    for field in ('title', 'server_model'):
        made.pop(field, None)
    write_json(run / 'summary.json', made)
    assert '<title>FedGen: classification</title>' in report_run(run).read_text()


def test_runs_of_one_title_are_told_apart():
    def names(*found):
        return list(distinct({f: {'title': t, 'method': m} for f, t, m in found}))

    assert names(('a', 'X', 'x'), ('b', 'Y', 'x')) == ['X', 'Y']
    assert names(('a', 'X', 'x'), ('b', 'X', 'x, twice')) == ['X (x)', 'X (x, twice)']
    assert names(('a/0', 'X', 'x'), ('b/0', 'X', 'x')) == ['X of a/0', 'X of b/0']
    assert np.unique(names(('a', 'X', 'x'), ('b', 'Y', 'y'), ('c', 'X', 'x'))).size == 3
