"""Private runs from end to end: what they spend, what they leave, and what they refuse."""

import collections
import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from drawn import cells_folder, newcomer, newcomer_folder

from fedgen_jax import checkpoint
from fedgen_jax.budget import ledger_file, site_of, sites_of
from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import of_split
from fedgen_jax.evaluate import statistic_of
from fedgen_jax.files import file_name
from fedgen_jax.guard import protect, reopened
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import onboard
from fedgen_jax.privacy.accounting import epsilon
from fedgen_jax.privacy.ledger import read_ledger, spent
from fedgen_jax.public import public_config
from fedgen_jax.report.gather import report_run
from fedgen_jax.run import after_training, reopen
from fedgen_jax.statistics import read_statistics
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import prepare_to_train, train

pytest.importorskip('dp_accounting', reason='the extra `privacy`')

ROOT = pathlib.Path(__file__).parents[1]
SEEN = ('synthetic-0', 'synthetic-1', 'synthetic-2')
LOCAL = pytest.param('local_only', marks=pytest.mark.extended)


@pytest.fixture(scope='module')
def cells(tmp_path_factory):
    """A folder of four drawn centers, whose patients have two images each."""
    root = cells_folder(tmp_path_factory.mktemp('cells') / 'root', 4, 40, 16)
    with open(root / 'manifest.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    number = {}
    for row in rows:
        of = row['center'], row['split']
        number[of] = number.get(of, -1) + 1
        row['patient'] = f'{row["center"]} {row["split"]} {number[of] // 2}'
    with open(root / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def configured(cells, tmp, **changes):
    c = base()
    c.data.root, c.data.cache = str(cells), str(tmp / 'store')
    c.data.held_out, c.data.image_size, c.devices = 'synthetic-3', 16, 1
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 2, 4
    c.eval_every = c.checkpoint_every = 1
    c.weighting, c.fedgen.support, c.fedgen.modes = 'uniform', 4, ('film',)
    c.data.virtual_examples, c.shifts.acquisition = 16, 0.0
    c.privacy.public_centers, c.privacy.public_rounds = 2, 2
    c.privacy.secrets = str(tmp / 'keys')
    c.privacy.update({'unit': 'patient', 'delta': 1e-3, 'rate': 0.5})
    c.update_from_flattened_dict(changes)
    return c


Finished = collections.namedtuple('Finished', 'config workdir summary')


@pytest.fixture(scope='module')
def finished(cells, tmp_path_factory):
    tmp = tmp_path_factory.mktemp('private')
    c = configured(cells, tmp, **{'privacy.updates': 1})
    return Finished(c, tmp / 'run', train(c, tmp / 'run', progress=False))


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished.workdir, tmp_path / 'run')


def alike(a, b):
    """The share of equal numbers; of independent noise in whole numbers one may be by chance."""
    return np.mean(a == b)


def ledgers_of(workdir):
    return [read_ledger(ledger_file(workdir, name)) for name in SEEN]


def test_it_spends_what_it_may_and_says_so(finished):
    told = finished.summary['privacy']
    assert told['unit'] == 'patient' and told['randomness'] == 'secret'
    assert 6 < told['epsilon'] <= 8 == told['epsilon_target']  # one more release is reserved
    by_name = {x['name']: x for x in told['charges']}
    # Two steps a round of the base and two of the generator; one release of two that are planned.
    assert by_name['training']['count'] == 8 and by_name['descriptor']['count'] == 1
    assert by_name['training']['sigma'] == by_name['descriptor']['sigma']
    for of in ledgers_of(finished.workdir):
        assert epsilon(of.charges, 1e-3) == told['by_center'][of.account.center]['epsilon'] <= 8
        assert 7.98 < epsilon(of.account.plan, 1e-3) <= 8
        assert of.account.units == told['by_center'][of.account.center]['units'] == 12
    assert 'hyper-parameters' in told['not_covered'][0]


def test_only_released_statistics_lie_in_the_folder(finished):
    kept = read_statistics(finished.workdir)
    done, run = reopen(finished.workdir)
    exact = after_training(run, done.state, done.private_C)
    for center in exact.seen:
        own = kept.own[center.name]
        assert own.variance > 0 and own.unit == 'patient' and own.count == 12
        truth = descriptor.mean(statistic_of(exact, of_split(center, 'train')))
        gap = np.abs(descriptor.mean(own) - truth)
        assert np.mean(gap == 0) < 0.05 and gap.mean() < 3 * descriptor.standard_error(own)
    assert not (finished.workdir / 'public' / 'statistics').exists()
    for folder in (finished.workdir, finished.workdir / 'public'):
        told = json.loads((folder / 'federation.json').read_text())['data']
        assert all(of['labels'] is None for of in told.values())
    lines = (finished.workdir / 'metrics.jsonl').read_text().splitlines()
    assert all(json.loads(x)['loss'] is None for x in lines) and len(lines) == 2


def test_psi_and_the_released_descriptors_stay(finished):
    """psi is the public run's, the pooled descriptor that of the releases; theta and phi moved."""
    shared = checkpoint.server_shared(finished.workdir)
    public = checkpoint.server_shared(finished.workdir / 'public')
    jax.tree.map(np.testing.assert_array_equal, shared['psi'], public['psi'])
    jax.tree.map(np.testing.assert_array_equal, shared['normal'], public['normal'])
    pooled = descriptor.mean(read_statistics(finished.workdir).pooled)
    np.testing.assert_array_equal(shared['pooled'], pooled)
    for name, still in (('conv_0_0', True), ('input', False), ('head', False)):
        gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), shared['theta'][name],
                           public['theta'][name])
        assert (max(jax.tree.leaves(gap)) == 0) == still
    assert np.any(shared['phi']['embed']['kernel'] != public['phi']['embed']['kernel'])


def test_it_is_scored_again_from_its_folder(finished):
    again = evaluate_run(finished.workdir)
    assert again['seen'] == finished.summary['seen']
    assert again['privacy']['epsilon'] == finished.summary['privacy']['epsilon']


def test_a_page_for_who_protects_data(finished):
    """It says what was spent, and shows no image and no exact descriptor of a center."""
    text = report_run(finished.workdir).read_text()
    assert 'epsilon of the others' in text and 'Unit: patient' in text and 'Not covered' in text
    assert f'Epsilon {finished.summary["privacy"]["epsilon"]:.2f} of at most 8' in text
    assert '<h3>synthetic-0' not in text and 'data:image/png' not in text
    assert 'shows no image' in text


def test_a_run_that_died_resumes_and_has_spent_the_same(cells, finished, tmp_path, monkeypatch):
    """It dies after the second round was paid and computed, before it was saved."""
    c = configured(cells, tmp_path, **{'privacy.updates': 1, 'privacy.seed': '7'})
    save, calls = checkpoint.save, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return save(*args)

    shutil.copytree(finished.workdir / 'public', tmp_path / 'whole' / 'public')
    shutil.copytree(finished.workdir / 'public', tmp_path / 'died' / 'public')
    whole = train(c, tmp_path / 'whole', progress=False)
    monkeypatch.setattr(checkpoint, 'save', dies)
    with pytest.raises(KeyboardInterrupt):
        train(c, tmp_path / 'died', progress=False)
    assert [spent(of, 'training') for of in ledgers_of(tmp_path / 'died')] == [8, 8, 8]
    monkeypatch.setattr(checkpoint, 'save', save)
    again = train(c, tmp_path / 'died', progress=False)
    assert again['seen'] == whole['seen']
    told = again['privacy']
    assert told['epsilon'] == whole['privacy']['epsilon'] and told['spent_before_resume'] == 3
    assert 'simulation' in told['randomness']
    a, b = (checkpoint.server_shared(tmp_path / x) for x in ('whole', 'died'))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_two_runs_of_the_same_settings_never_share_noise(cells, finished, tmp_path):
    """Else the same data and noise under other code would tell the difference exactly."""
    shutil.copytree(finished.workdir / 'public', tmp_path / 'run' / 'public')
    train(finished.config, tmp_path / 'run', progress=False)
    a, b = (read_statistics(x).own for x in (finished.workdir, tmp_path / 'run'))
    assert max(alike(a[name].total, b[name].total) for name in SEEN) < 0.05


def test_a_longer_run_is_refused(finished, run):
    longer = finished.config.copy_and_resolve_references()
    longer.rounds = 3
    before = [f.read_text() for f in sorted((run / 'privacy').iterdir())]
    with pytest.raises(ValueError, match='12 releases, and 8 were calibrated') as error:
        train(longer, run, progress=False)
    assert '\n' not in str(error.value)
    assert before == [f.read_text() for f in sorted((run / 'privacy').iterdir())]


@pytest.mark.parametrize('lost, said', [
    ('secret.key', 'secret of this center is lost'), ('ledger', 'ledger is missing'),
])
def test_a_lost_key_or_ledger_stops_everything(finished, run, tmp_path, lost, said):
    c = finished.config.copy_and_resolve_references()
    keys = shutil.copytree(c.privacy.secrets, tmp_path / 'keys')
    c.privacy.secrets = str(keys)
    gone = ledger_file(run, SEEN[1]) if lost == 'ledger' else keys / SEEN[1] / lost
    gone.unlink()
    before = sorted(p.name for p in run.rglob('*'))
    with pytest.raises(ValueError, match=said) as error:
        train(c, run, progress=False)
    assert '\n' not in str(error.value)
    assert sorted(p.name for p in run.rglob('*')) == before and not gone.exists()


def test_another_key_is_refused(finished, run, tmp_path):
    c = finished.config.copy_and_resolve_references()
    c.privacy.secrets = str(shutil.copytree(c.privacy.secrets, tmp_path / 'keys'))
    other = tmp_path / 'keys' / SEEN[0] / 'secret.key'
    other.write_bytes(bytes(32))
    with pytest.raises(ValueError, match='another secret'):
        train(c, run, progress=False)


REFUSED = [
    ({'privacy.epsilon': 0.0}, 'privacy.epsilon=0.0'),
    ({'privacy.delta': 0.02}, '1 / .10 n. = 0.00833 for the 12 units'),
    ({'privacy.rate': 0.0}, 'privacy.rate=0'),
    ({'privacy.rate': 0.05}, 'below 1, a step is noise alone'),
    ({'privacy.unit': 'hospital'}, 'privacy.unit'),
    ({'privacy.trainable': 'some'}, 'privacy.trainable'),
    ({'privacy.trainable': 'head'}, "fedgen.theta='residual'"),
    ({'privacy.moments_radius': 3.0}, 'moments_radius=3'),
    ({'input.size': 8}, 'input.size=8'),
    ({'privacy.seed': 'guess'}, 'privacy.seed'),
    ({'privacy.descriptor_radius': 0.0}, 'descriptor_radius=0'),
    ({'model.norm': 'batch'}, 'mix its patients'),
    ({'model': {'name': 'efficientnet_lite0'}}, 'which mix its patients'),
    ({'model.last': 'center'}, 'model.last'),
    ({'prevalence': 'balanced'}, 'prevalence'),
    ({'weighting': 'examples'}, 'weighting'),
    ({'loss.prior': 'logits'}, 'loss.prior'),
    ({'input.canonical': 'brightfield'}, 'input.canonical'),
    ({'fedgen.local': 'weights'}, "fedgen.local='weights'"),
    ({'fedgen.base': 'fedprox'}, 'fedgen.base'),
    ({'algorithm': 'scaffold'}, "algorithm='scaffold'"),
    ({'cohort': 2}, 'cohort=2'),
    ({'data.virtual': 4, 'data.virtual_share': 0.5}, 'data.virtual=4'),
    ({'finetune.steps': 2}, 'finetune.steps=2'),
    ({'oracle.steps': 2}, 'oracle.steps=2'),
    ({'data.window': 'center'}, 'data.window=center'),
    ({'start.weights': 'PRIVATE'}, 'no public start'),
]


@pytest.mark.parametrize('changes, said', REFUSED, ids=[' '.join(x) for x, _ in REFUSED])
def test_what_breaks_the_promise_is_refused_and_nothing_is_spent(
    cells, finished, tmp_path, changes, said
):
    c = configured(cells, tmp_path, **changes)
    if c.start.weights:
        c.start.weights = str(finished.workdir)
    with pytest.raises(ValueError, match=said) as error:
        train(c, tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists() and not (tmp_path / 'keys').exists()


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
    file.write_text(kept.replace('"count": 4', '"count": 3'))
    with pytest.raises(ValueError, match='training: 7 releases were charged, and the run has 8'):
        evaluate_run(run)


def test_a_newcomer_of_another_unit_is_told_before_it_is_charged(cells, run, tmp_path):
    folder = newcomer_folder(cells, 'synthetic-3', tmp_path / 'data')  # without patients
    with pytest.raises(ValueError, match='would be the image, and that of the run is the patient'):
        onboard(run, str(folder))
    assert not ledger_file(run, 'synthetic-3').exists()


def test_noise_under_other_weights_is_refused(cells, finished, tmp_path):
    """Their difference would be that of the sums without noise."""
    start = shutil.copytree(finished.workdir / 'public', tmp_path / 'start')
    c = configured(cells, tmp_path, **{'start.weights': str(start), 'rounds': 1})
    run = prepare_to_train(c)
    protect(run, tmp_path / 'run', start)
    shutil.rmtree(tmp_path / 'run' / 'statistics')
    other = configured(cells, tmp_path, **{'data.held_out': 'synthetic-2,synthetic-3'})
    other = public_config(other)
    other.seed = 5
    shutil.rmtree(start)
    train(other, start, progress=False)
    with pytest.raises(ValueError, match='started from other weights'):
        protect(run, tmp_path / 'run', start)


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
    command = [sys.executable, '-m', 'launch.audit', f'--workdir={finished.workdir}']
    command.append('--which=differencing')
    refused = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode and 'pass --to' in refused.stderr
    assert refused.stderr.strip().count('\n') == 0
    subprocess.run([*command, f'--to={tmp_path / "own"}'], check=True, cwd=ROOT)
    assert {x.name for x in (tmp_path / 'own').iterdir()} == {'audit.json', 'audit.html'}
    assert not list(finished.workdir.glob('audit*'))


def test_a_center_that_trained_may_leave(run, capsys):
    onboard(run, remove=SEEN[0])
    with pytest.raises(ValueError, match=f'{SEEN[0]} left the federation') as error:
        train(reopen(run)[0].config, run, progress=False)
    assert '\n' not in str(error.value)
    guard = reopened(reopen(run)[1], run, 2).guard
    assert f'{SEEN[0]} left: scored by the mean' in capsys.readouterr().err
    pooled = descriptor.mean(read_statistics(run).pooled)
    np.testing.assert_array_equal(descriptor.mean(guard.released[SEEN[0]]), pooled)


@pytest.mark.parametrize('asked', [{'prevalence': 'estimate'}, {'adapt': 2}])
def test_what_tells_of_images_is_not_made_for_a_newcomer(cells, run, tmp_path, asked):
    folder = newcomer(cells, tmp_path / 'data', 'synthetic-3')
    with pytest.raises(ValueError, match='is private'):
        onboard(run, folder, **asked)
    assert not ledger_file(run, 'synthetic-3').exists()


@pytest.mark.parametrize('algorithm', ['fedavg', LOCAL])
def test_other_methods_under_the_same_ledger(cells, finished, tmp_path, algorithm):
    public = finished.workdir / 'public'
    c = configured(cells, tmp_path, algorithm=algorithm, **{
        'privacy.unit': 'image', 'start.weights': str(public),
    })
    c.devices = 3 if algorithm == 'fedavg' else 1  # a center on each
    told = train(c, tmp_path / 'run', progress=False)
    assert told['privacy']['unit'] == 'image' and 7 < told['privacy']['epsilon'] <= 8
    (charge,) = told['privacy']['charges']
    assert charge['count'] == 4 and told['privacy']['by_center'][SEEN[0]]['units'] == 23
    assert not (tmp_path / 'run' / 'statistics').exists()
    ledgers = {p.name for p in (tmp_path / 'run' / 'privacy').iterdir()}
    assert ledgers == {f'{file_name(name)}.jsonl' for name in SEEN}
    start = checkpoint.server_shared(public)['theta']
    done, _ = reopen(tmp_path / 'run')
    thetas = done.private_C['theta'] if algorithm == 'local_only' else jax.tree.map(
        lambda x: x[None], done.state.shared['theta']
    )
    gap = {k: np.asarray(thetas[k]['kernel']) - start[k]['kernel'] for k in ('conv_0_0', 'head')}
    assert not gap['conv_0_0'].any() and gap['head'].any()


def test_images_without_patients_are_the_unit(cells, tmp_path):
    """A run that asks for patients where none are known says what it promised."""
    site = site_of(configured(cells, tmp_path), synthetic.centers(1, 20, 16, seed=0)[0])
    assert site.unit == 'image' and re.fullmatch('[0-9a-f]{16}', site.data)


CLIENT = {
    'privacy.unit': 'client', 'privacy.rate': 0.5, 'data.source': 'synthetic', 'data.centers': 9,
    'data.held_out': 'synthetic-8', 'data.examples': 20, 'privacy.clip': 0.5,
}


@pytest.mark.parametrize(
    'algorithm', ['fedgen', pytest.param('fedavg', marks=pytest.mark.extended)]
)
def test_clients_as_units(cells, tmp_path, algorithm):
    """One ledger, of all clients; cohorts are Poisson's, and nothing is released of a center."""
    c = configured(cells, tmp_path, algorithm=algorithm, **CLIENT)
    c.privacy.public, c.rounds = '', 4
    told = train(c, tmp_path / 'run', progress=False)['privacy']
    assert told['unit'] == 'client' and 7.98 < told['epsilon'] <= 8
    assert told['by_center'] == {
        'clients': {'unit': 'client', 'units': 8, 'epsilon': told['epsilon']}
    }
    (charge,) = told['charges']
    assert charge['count'] == 4 and charge['sensitivity'] == 0.5
    assert 'server adds the noise' in told['trust']
    assert not (tmp_path / 'run' / 'statistics').exists()
    if algorithm == 'fedavg':
        again = evaluate_run(tmp_path / 'run')
        assert again['privacy']['epsilon'] == told['epsilon'] and again['seen']['mean']
    else:
        with pytest.raises(ValueError, match='keeps no statistics'):
            onboard(tmp_path / 'run', str(cells))


@pytest.mark.parametrize('changes, said', [
    ({'algorithm': 'local_only'}, 'local_only'), ({'algorithm': 'scaffold'}, 'scaffold'),
    ({'weighting': 'examples'}, 'weighting'), ({'cohort': 4}, 'cohort=4'),
    ({'data.virtual': 8}, 'would have seen them'), ({'privacy.adaptive': True}, 'too few'),
    ({'privacy.delta': 0.02}, 'for the 8 units'),
])
def test_what_breaks_the_promise_to_clients_is_refused(cells, tmp_path, changes, said):
    c = configured(cells, tmp_path, **{**CLIENT, **changes})
    with pytest.raises(ValueError, match=said) as error:
        train(c, tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists() and not (tmp_path / 'keys').exists()


@pytest.mark.extended
def test_drawn_clients_are_units_too(cells, tmp_path):
    """Of eight centers and twelve drawn ones a Poisson cohort is drawn, with an adaptive clip."""
    more = {'data.virtual': 12, 'privacy.public': '', 'privacy.adaptive': True, 'privacy.rate': 0.9}
    c = configured(cells, tmp_path, algorithm='fedavg', **{**CLIENT, **more})
    told = train(c, tmp_path / 'run', progress=False)['privacy']
    assert told['by_center']['clients']['units'] == 20
    (state,) = reopen(tmp_path / 'run')[0].state.protection
    assert float(state['clip']) != 0.5 and float(state['expected']) == pytest.approx(18)
    assert not state['secret'].any()  # the noise could be drawn again
