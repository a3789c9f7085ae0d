"""Private runs from end to end: what they spend, what they leave, and what they refuse."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from private import SEEN, alike, configured, ledgers_of

from fedgen_jax import checkpoint
from fedgen_jax.budget import ledger_file, site_of
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import of_split
from fedgen_jax.evaluate import statistic_of
from fedgen_jax.files import file_name
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import onboard
from fedgen_jax.privacy.accounting import epsilon
from fedgen_jax.privacy.ledger import spent
from fedgen_jax.report.gather import report_run
from fedgen_jax.run import after_training, reopen
from fedgen_jax.statistics import read_statistics
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import train

pytest.importorskip('dp_accounting', reason='the extra `privacy`')



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


def test_a_secret_that_cannot_be_read_is_told_before_the_public_start(cells, tmp_path):
    c = configured(cells, tmp_path)
    file = tmp_path / 'keys' / SEEN[0] / 'secret.key'
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(32))
    file.chmod(0o644)
    with pytest.raises(ValueError, match='chmod 600'):
        train(c, tmp_path / 'run', progress=False)
    c.privacy.secrets = str(tmp_path / 'run' / 'keys')
    with pytest.raises(ValueError, match='keys'):
        train(c, tmp_path / 'run', progress=False)
    c.privacy.update({'secrets': str(tmp_path / 'others'), 'descriptor_noise': 1e-4})
    with pytest.raises(ValueError, match='raise privacy.descriptor_noise'):
        train(c, tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run' / 'public').exists() and not (tmp_path / 'others').exists()


def test_private_weights_are_no_public_start_by_way_of_another_run(cells, finished, tmp_path):
    """Whatever its folder is called: a colon is no function's."""
    private = shutil.copytree(finished.workdir, tmp_path / 'wbc:seed0')
    between = configured(cells, tmp_path, **{
        'privacy.unit': '', 'algorithm': 'fedavg', 'rounds': 1, 'data.virtual': 3,
        'data.virtual_share': 1.0, 'start.weights': str(private),
    })
    train(between, tmp_path / 'between', progress=False)
    c = configured(cells, tmp_path, **{'start.weights': str(tmp_path / 'between')})
    with pytest.raises(ValueError, match='has seen .*wbc:seed0, so it is no public start'):
        train(c, tmp_path / 'run', progress=False)


@pytest.mark.extended
@pytest.mark.parametrize('algorithm', ['fedavg', 'local_only'])
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


@pytest.mark.extended
@pytest.mark.parametrize('algorithm', ['fedgen', 'fedavg'])
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
