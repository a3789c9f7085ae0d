"""Private runs afterwards: centers that join, change and leave, whose ledgers these are, audits."""

import csv
import json
import shutil

import launched
import numpy as np
import pytest
from drawn import newcomer, newcomer_folder
from private import SEEN, alike, configured, ledgers_of

from fedgen_jax.budget import ledger_file, sites_of
from fedgen_jax.guard import noise_of, protect, reopened
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import entry_of, onboard
from fedgen_jax.privacy.accounting import epsilon
from fedgen_jax.privacy.ledger import read_ledger, spent
from fedgen_jax.public import public_config
from fedgen_jax.report.gather import privacy_section, report_run
from fedgen_jax.run import reopen
from fedgen_jax.statistics import read_statistics
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import prepare_to_train, train

pytest.importorskip('dp_accounting', reason='the extra `privacy`')


def test_centers_that_join_change_and_leave_are_charged(cells, run, tmp_path):
    before = read_statistics(run)
    first = newcomer(cells, tmp_path / 'first', 'synthetic-3')
    assert onboard(run, first)['centers']['synthetic-3']['model'] is None
    file = ledger_file(run, 'synthetic-3')
    own = read_statistics(run).own['synthetic-3']
    assert own.variance > 0 and spent(read_ledger(file), 'descriptor') == 1
    assert read_ledger(file).account.plan == ledgers_of(run)[0].account.plan[:1]
    # Once more with the same data: the same release, at no cost.
    onboard(run, remove='synthetic-3')
    np.testing.assert_array_equal(read_statistics(run).pooled.total, before.pooled.total)
    onboard(run, first)
    np.testing.assert_array_equal(read_statistics(run).own['synthetic-3'].total, own.total)
    assert spent(read_ledger(file), 'descriptor') == 1
    # Its data change: one release more, and no third.
    second = newcomer(cells, tmp_path / 'second', 'synthetic-3', 16, 8)
    onboard(run, second, update='synthetic-3')
    assert spent(read_ledger(file), 'descriptor') == 2
    assert alike(read_statistics(run).own['synthetic-3'].total, own.total) < 0.05
    kept = read_statistics(run).pooled
    with pytest.raises(ValueError, match='3 releases, and 2 were calibrated') as error:
        onboard(run, first, update='synthetic-3')
    assert '\n' not in str(error.value)
    np.testing.assert_array_equal(read_statistics(run).pooled.total, kept.total)


def test_no_score_of_a_newcomer_lies_in_the_folder(cells, run, tmp_path):
    """Its images are those that it pays for, and scores are exact counts of them."""
    report = onboard(run, newcomer(cells, tmp_path / 'data', 'synthetic-3'))
    assert report['centers']['synthetic-3']['scores']['n'] > 20  # for who calls it
    for file in (run / 'onboard.json', entry_of(run, 'synthetic-3')):
        assert 'balanced_accuracy' not in file.read_text() and 'confusion' not in file.read_text()
    page = report_run(run).read_text()
    assert 'synthetic-3: joined' in page


@pytest.mark.parametrize('leaves', [False, True])
def test_a_newcomer_whose_ledger_is_lost_releases_nothing_more(cells, run, tmp_path, leaves):
    folder = newcomer(cells, tmp_path / 'data', 'synthetic-3')
    onboard(run, folder)
    file = ledger_file(run, 'synthetic-3')
    if leaves:
        onboard(run, remove='synthetic-3')
    file.unlink()
    with pytest.raises(ValueError, match=r'synthetic-3.jsonl: the ledger is missing') as error:
        onboard(run, folder) if leaves else evaluate_run(run)
    assert '\n' not in str(error.value) and not file.exists()


def test_what_a_private_run_begins_with_tells_no_more_than_it(run, tmp_path):
    """RUN/public was not trained on the centers' images, and scored on them."""
    public = run / 'public'
    found = json.loads((public / 'federation.json').read_text())['data']
    assert all(of['content'] is None and of['labels'] is None for of in found.values())
    config = json.loads((public / 'config.json').read_text())
    assert config['privacy'].pop('discreet')
    (public / 'config.json').write_text(json.dumps(config))  # as one of before that field
    for command in (
        ['launch.export', f'--center={SEEN[0]}', '--format=safetensors'],
        ['launch.audit', '--which=differencing'],
        ['launch.predict', f'--center={SEEN[0]}', f'--to={public / "said"}'],
        ['launch.evaluate', f'--predictions={public / "said"}'],
        ['launch.evaluate', '--by=patient'],
    ):
        refused = launched.call(*command, f'--workdir={public}')
        assert refused.returncode and 'private run begins with this one' in refused.stderr, command
        assert 'Traceback' not in refused.stderr
    assert not [x for name in ('export*', 'audit*', 'said') for x in public.glob(name)]
    command = ['launch.evaluate', f'--predictions={run / "said"}', f'--workdir={run}']
    refused = launched.call(*command)
    assert refused.returncode and 'pass --predictions with a place at' in refused.stderr
    assert not (run / 'said').exists()


def test_a_center_that_trained_may_release_once_more(cells, run, tmp_path):
    folder = newcomer(cells, tmp_path / 'data', SEEN[0])
    before = read_ledger(ledger_file(run, SEEN[0]))
    onboard(run, folder, update=SEEN[0])
    after = read_ledger(ledger_file(run, SEEN[0]))
    assert epsilon(before.charges, 1e-3) < epsilon(after.charges, 1e-3) <= 8


def test_what_newcomers_spend_stands_beside_the_rest(cells, run, tmp_path):
    told = onboard(run, newcomer(cells, tmp_path / 'data', 'synthetic-3'))['privacy']
    onboard(run, newcomer(cells, tmp_path / 'more', SEEN[0]), update=SEEN[0])
    summary = json.loads((run / 'summary.json').read_text())['privacy']
    assert summary['by_center'].keys() == {*SEEN, 'synthetic-3'}
    assert summary['by_center']['synthetic-3'] == told['synthetic-3']
    assert summary['epsilon'] == summary['by_center'][SEEN[0]]['epsilon']
    assert summary['epsilon'] == epsilon(read_ledger(ledger_file(run, SEEN[0])).charges, 1e-3)
    assert evaluate_run(run)['privacy'] == summary


def test_a_change_is_charged_to_no_other_ledger_and_to_no_new_one(cells, run, tmp_path):
    folder = newcomer(cells, tmp_path / 'data', SEEN[0])
    file, other = (ledger_file(run, name) for name in SEEN[:2])
    kept = file.read_text()
    file.write_text(other.read_text())
    with pytest.raises(ValueError, match='of another center'):
        onboard(run, folder, update=SEEN[0])
    with pytest.raises(ValueError, match=f'of {SEEN[1]!r}, and not of {SEEN[0]!r}'):
        evaluate_run(run)
    file.unlink()
    with pytest.raises(ValueError, match='the ledger is missing'):
        onboard(run, folder, update=SEEN[0])
    file.write_text('"count": 3'.join(kept.rsplit('"count": 4', 1)))
    with pytest.raises(ValueError, match='training: 7 releases were charged, and the run has 8'):
        evaluate_run(run)


def test_a_newcomer_of_another_unit_is_told_before_it_is_charged(cells, run, tmp_path):
    folder = newcomer_folder(cells, 'synthetic-3', tmp_path / 'data')  # without patients
    with pytest.raises(ValueError, match='would be the image, and that of the run is the patient'):
        onboard(run, str(folder))
    assert not ledger_file(run, 'synthetic-3').exists()


@pytest.mark.extended
def test_noise_under_other_weights_is_refused(cells, finished, tmp_path):
    """Their difference would be that of the sums without noise."""
    start = shutil.copytree(finished.workdir / 'public', tmp_path / 'start')
    c = configured(cells, tmp_path, **{'start.weights': str(start), 'rounds': 1})
    run = prepare_to_train(c)
    protect(run, tmp_path / 'run', start, noise_of(run))
    shutil.rmtree(tmp_path / 'run' / 'statistics')
    other = configured(cells, tmp_path, **{'data.held_out': 'synthetic-2,synthetic-3'})
    other = public_config(other)
    other.seed = 5
    shutil.rmtree(start)
    train(other, start, progress=False)
    with pytest.raises(ValueError, match='started from other weights'):
        protect(run, tmp_path / 'run', start, noise_of(run))


def test_no_hash_that_others_can_make_is_of_a_center_s_data(finished):
    told = json.loads((finished.workdir / 'federation.json').read_text())['data']
    assert all(told[name]['content'] is None for name in SEEN)
    run = prepare_to_train(finished.config)
    for site, ledger in zip(sites_of(run.config, run.seen), ledgers_of(finished.workdir)):
        assert ledger.account.data not in site.data


@pytest.mark.parametrize('lost', [{'synthetic-1'}, set(SEEN)], ids=['of a center', 'of a part'])
def test_what_no_patient_is_known_of_is_told_before_anything_is_spent(cells, tmp_path, lost):
    root = shutil.copytree(cells, tmp_path / 'root')
    with open(root / 'manifest.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        if row['center'] in lost and (len(lost) == 1 or i % 4 > 1):
            row['patient'] = ''
    with open(root / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ValueError, match='no patient is known.*fill in the column patient') as e:
        train(configured(root, tmp_path), tmp_path / 'run', progress=False)
    assert '\n' not in str(e.value)
    assert not (tmp_path / 'run').exists() and not (tmp_path / 'keys').exists()


def test_an_audit_of_a_private_run_lies_outside_of_it(finished, tmp_path):
    """It shows images, and numbers of them that nobody paid for."""
    command = ['launch.audit', f'--workdir={finished.workdir}', '--which=differencing']
    refused = launched.call(*command)
    assert refused.returncode and 'pass --to' in refused.stderr
    assert refused.stderr.strip().count('\n') == 0
    assert launched.call(*command, f'--to={tmp_path / "own"}').returncode == 0
    assert {x.name for x in (tmp_path / 'own').iterdir()} == {'audit.json', 'audit.html'}
    assert not list(finished.workdir.glob('audit*'))


@pytest.mark.extended
def test_what_canaries_bound_stands_in_the_runs_own_summary(run, tmp_path):
    command = ['launch.audit', f'--workdir={run}', '--which=canaries']
    assert launched.call(*command, f'--to={tmp_path / "own"}').returncode == 0
    privacy = json.loads((run / 'summary.json').read_text())['privacy']
    numbers = json.loads((tmp_path / 'own' / 'audit.json').read_text())['canaries']
    found = privacy['audit']
    assert found == {k: numbers[k] for k in found} and found['lower_bound'] <= found['stated']
    text = privacy_section('run', privacy).text
    assert f'is at least {found["lower_bound"]:.2f} with 95% confidence' in text
    assert 'Not audited' in privacy_section('run', {**privacy, 'audit': None}).text
    onboard(run, remove=SEEN[0])
    assert json.loads((run / 'summary.json').read_text())['privacy']['audit'] == found


def test_a_center_that_trained_may_leave(run, capsys):
    onboard(run, remove=SEEN[0])
    with pytest.raises(ValueError, match=f'{SEEN[0]} left the federation') as error:
        train(reopen(run)[0].config, run, progress=False)
    assert '\n' not in str(error.value)
    guard = reopened(reopen(run)[1], run, 2).guard
    assert f'{SEEN[0]} left: scored by the mean' in capsys.readouterr().err
    pooled = descriptor.mean(read_statistics(run).pooled)
    np.testing.assert_array_equal(descriptor.mean(guard.released[SEEN[0]]), pooled)


@pytest.mark.parametrize('asked', [{'prevalence': 'estimate'}, {'adapt': 2}, {'finetune': 2}])
def test_what_tells_of_images_is_not_made_for_a_newcomer(cells, run, tmp_path, asked):
    folder = newcomer(cells, tmp_path / 'data', 'synthetic-3')
    with pytest.raises(ValueError, match='is private'):
        onboard(run, folder, **asked)
    assert not ledger_file(run, 'synthetic-3').exists()
