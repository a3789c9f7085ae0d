"""Whole runs whose sums are taken under masks, or by a robust rule: trained, resumed, refused."""

import json
import threading

import jax
import numpy as np
import pytest
from drawn import cells_folder

from configs.common import base
from fedgen_jax import budget, checkpoint, interrupt, parties, program, schema
from fedgen_jax.engine import secured, sums
from fedgen_jax.files import file_name
from fedgen_jax.onboard import onboard
from fedgen_jax.privacy import Message, commit
from fedgen_jax.privacy.secrets import FILE, create_secret, stream_key
from fedgen_jax.privacy.shares import Shares
from fedgen_jax.run import prepare
from fedgen_jax.train import train


def config_of(root, **changes):
    c = base()
    c.update_from_flattened_dict({
        'data.root': str(root), 'data.cache': str(root.parent / 'cache'), 'data.image_size': 16,
        'algorithm': 'fedgen', 'rounds': 4, 'model.widths': (8,), 'local_steps': 1,
        'batch_size': 4, 'fedgen.support': 4, 'fedgen.modes': ('film',), 'shifts.acquisition': 0.0,
        'eval_every': 4, 'checkpoint_every': 2, 'secure.on': True,
        'privacy.secrets': str(root.parent / 'keys'), **changes,
    })
    return c


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return cells_folder(tmp_path_factory.mktemp('cells') / 'root', 4, 10, 16)


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('run') / 'whole'
    return workdir, train(config_of(root), workdir, progress=False)


def loss_of(workdir):
    return json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])['loss']


def test_a_run_under_masks_ends_as_the_plain_one_and_tells_what_the_server_saw(
    root, whole, tmp_path
):
    workdir, summary = whole
    plain = train(config_of(root, **{'secure.on': False}), tmp_path / 'plain', progress=False)
    assert 'secure' not in plain
    assert loss_of(workdir) == pytest.approx(loss_of(tmp_path / 'plain'), abs=1e-3)
    assert json.loads((workdir / 'summary.json').read_text())['secure'] == summary['secure']
    told = summary['secure']
    assert told.keys() == schema.SecureSums.__required_keys__
    assert told['a_round'].keys() == schema.SecureRound.__required_keys__
    assert (told['clients'], told['threshold'], told['word']) == (4, 3, 64)
    words = summary['cost']['bytes_up']
    assert words == 2 * plain['cost']['bytes_up']  # 64 bits a number, and float32 without masks
    assert words < told['a_round']['bytes_up'] < words + 4 * 400
    assert min(told['a_round'].values()) > 0


@pytest.mark.extended
def test_a_run_that_is_called_again_ends_to_the_bit(root, whole, tmp_path):
    train(config_of(root, rounds=2, **{'client.schedule': 'constant'}), tmp_path / 'a',
          progress=False)
    longer = config_of(root, **{'client.schedule': 'constant'})
    again = train(longer, tmp_path / 'a', progress=False)
    once = train(longer, tmp_path / 'b', progress=False)
    assert again['seen'] == once['seen']
    assert loss_of(tmp_path / 'a') == loss_of(tmp_path / 'b')
    # Nothing to train any more: what a sum costs is not known, and all else is.
    done = train(longer, tmp_path / 'a', progress=False)
    assert done['secure'] == {**once['secure'], 'a_round': None}


def identities_of(workdir):
    return json.loads((workdir / 'identities.json').read_text())


def test_an_identity_is_the_center_s_own_in_all_runs(root, whole, tmp_path):
    """It comes from the center's secret, so a restart signs as before; each center has its own."""
    workdir, summary = whole
    first = identities_of(workdir)
    assert len(set(first.values())) == 4 == len(first)
    assert summary['secure']['identities'] == parties.SECRET
    for name, public in first.items():
        file = root.parent / 'keys' / file_name(name) / FILE
        assert file.stat().st_mode & 0o777 == 0o600
        assert commit.identity(stream_key(file.read_bytes(), 'identity')).hex() == public
    train(config_of(root, rounds=1, eval_every=1), tmp_path / 'other', progress=False)
    assert identities_of(tmp_path / 'other') == first


def test_a_lost_secret_and_another_identity_are_one_line(root, tmp_path):
    def config(rounds=1):
        return config_of(root, rounds=rounds, eval_every=1, algorithm='fedavg', **{
            'client.schedule': 'constant', 'privacy.secrets': str(tmp_path / 'keys')})

    workdir, file = tmp_path / 'run', tmp_path / 'keys' / file_name('synthetic-1') / FILE
    train(config(), workdir, progress=False)
    kept, other = file.read_bytes(), file.parent.with_name(file_name('synthetic-2')) / FILE
    for change, message in (
        (lambda: file.unlink(), 'secret of this center is lost'),
        (lambda: create_secret(file.parent), 'synthetic-1 signs with another identity'),
    ):
        change()
        with pytest.raises(ValueError, match=message) as error:
            train(config(rounds=2), workdir, progress=False)
        assert '\n' not in str(error.value)
    file.write_bytes(kept)
    assert train(config(rounds=2), workdir, progress=False)['rounds'] == 2
    # A list that lies there before a run begins came from elsewhere, and is held to.
    early = tmp_path / 'early'
    early.mkdir()
    listed = identities_of(workdir)
    (early / 'identities.json').write_text(json.dumps({**listed, 'synthetic-3': 32 * '00'}))
    with pytest.raises(ValueError, match='synthetic-3 signs with another identity'):
        train(config(), early, progress=False)
    (early / 'identities.json').write_text(json.dumps(
        {k: v for k, v in listed.items() if k != 'synthetic-3'}))
    with pytest.raises(ValueError, match='synthetic-3 is not on the list'):
        train(config(), early, progress=False)
    other.write_bytes(kept)
    with pytest.raises(ValueError, match='synthetic-2 and synthetic-1 have one secret'):
        train(config(), tmp_path / 'twins', progress=False)


def test_a_simulation_says_that_anybody_can_sign(root, tmp_path):
    config = config_of(root, rounds=1, eval_every=1, algorithm='fedavg', **{
        'privacy.seed': '3', 'privacy.secrets': str(tmp_path / 'none')})
    summary = train(config, tmp_path / 'run', progress=False)
    assert summary['secure']['identities'] == parties.SIMULATION
    assert not (tmp_path / 'none').exists()
    config.privacy.seed = 'often'
    with pytest.raises(ValueError, match="privacy.seed='often'"):
        train(config, tmp_path / 'other', progress=False)


@pytest.mark.extended
def test_drawn_centers_and_cohorts_train_under_masks(root, tmp_path):
    mixed = config_of(root, algorithm='fedavg', **{
        'data.virtual': 9, 'data.virtual_share': 0.5, 'data.virtual_examples': 8})
    summary = train(mixed, tmp_path / 'mixed', progress=False)
    assert (summary['secure']['clients'], summary['secure']['drawn']) == (4, 4)
    cohort = config_of(root, algorithm='fedavg', cohort=3)
    summary = train(cohort, tmp_path / 'cohort', progress=False)
    assert (summary['secure']['clients'], summary['secure']['threshold']) == (3, 3)


def test_a_method_without_a_server_s_model_runs_under_masks_too(root, tmp_path):
    summary = train(config_of(root, algorithm='local_only'), tmp_path / 'run', progress=False)
    assert summary['cost']['bytes_up'] == 0 and np.isfinite(loss_of(tmp_path / 'run'))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data.held_out': 'synthetic-2,synthetic-3'}, 'secure.on: 2 clients'),
        ({'cohort': 2}, 'secure.on: 2 clients'),
        ({'secure.threshold': 0.5}, 'secure.threshold: 2 of 4'),
        ({'secure.word': 16}, 'secure.word'),
    ],
)
def test_what_would_protect_nobody_is_refused_and_leaves_no_folder(
    root, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message) as error:
        train(config_of(root, **changes), tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value) and not (tmp_path / 'run').exists()


def test_a_run_does_not_go_on_in_the_clear(root, whole):
    workdir, _ = whole
    with pytest.raises(ValueError, match='secure.on=True, now False'):
        train(config_of(root, **{'secure.on': False}), workdir, progress=False)


def test_runs_with_and_without_masks_share_no_program(root):
    assert prepare(config_of(root)).program is prepare(config_of(root)).program
    plain = prepare(config_of(root, **{'secure.on': False})).program
    assert plain is not prepare(config_of(root)).program and plain.secure is None


@pytest.mark.extended
@pytest.mark.parametrize('rule', ['krum', 'bound'])
def test_a_run_by_a_robust_rule_trains_and_says_so(root, tmp_path, rule):
    plain = config_of(root, weighting='uniform', **{'secure.on': False})
    attackers = 0 if rule == 'krum' else 1
    plain.algorithm = 'fedavg' if rule == 'krum' else 'fedgen'
    config = plain.copy_and_resolve_references()
    config.robust.rule, config.robust.attackers = rule, attackers
    summary = train(config, tmp_path / 'run', progress=False)
    assert summary['privacy']['robust'] == {'rule': rule, 'attackers': attackers, 'bound': 1.0}
    assert 'secure' not in summary and np.isfinite(loss_of(tmp_path / 'run'))
    with pytest.raises(ValueError, match=r'another configuration \(robust\.'):
        train(plain, tmp_path / 'run', progress=False)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'secure.on': True}, 'secure.on hides them'),
        ({'weighting': 'examples'}, 'must be uniform'),
        ({'robust.attackers': 2}, 'median holds against 1'),
    ],
)
def test_a_rule_that_could_not_hold_is_refused(root, tmp_path, changes, message):
    config = config_of(root, **{
        'secure.on': False, 'weighting': 'uniform', 'robust.rule': 'median', **changes})
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


@pytest.mark.extended
def test_private_steps_go_under_masks(root, tmp_path, monkeypatch):
    """Noise of each center's own, and a sum that hides whose: neither changes the other."""
    pytest.importorskip('dp_accounting', reason='the extra `privacy`')
    private = {
        'algorithm': 'fedavg', 'weighting': 'uniform', 'client.schedule': 'constant',
        'privacy.unit': 'image', 'privacy.public': '', 'privacy.delta': 1e-3, 'privacy.rate': 0.5,
        'privacy.seed': '7', 'privacy.secrets': str(tmp_path / 'keys'),
    }
    # Runs of other settings draw other noise; here both draw the same.
    monkeypatch.setattr(budget, 'run_of', lambda config: 'of both')
    weights, spent = {}, {}
    for on in (False, True):
        workdir = tmp_path / f'{on}'
        summary = train(config_of(root, **private, **{'secure.on': on}), workdir, progress=False)
        weights[on], spent[on] = checkpoint.server_weights(workdir), summary['privacy']['epsilon']
    assert spent[True] == spent[False] <= 8
    for name, x in weights[False].items():
        np.testing.assert_allclose(weights[True][name], x, atol=1e-6, err_msg=name)


def shared_noise(root, tmp_path, **changes):
    """Of clients: each adds a share of the noise, and nobody is trusted."""
    return config_of(root, **{
        'weighting': 'uniform', 'client.schedule': 'constant', 'privacy.unit': 'client',
        'privacy.rate': 1.0, 'privacy.public': '', 'privacy.delta': 1e-2, 'privacy.clip': 0.5,
        'privacy.seed': '7', 'privacy.secrets': str(tmp_path / 'keys'), 'secure.bits': 20,
        'secure.distributed_noise': True, **changes,
    })


@pytest.mark.extended
def test_centers_add_the_noise_of_a_sum_by_themselves(root, tmp_path, monkeypatch):
    """A round's noise is sigma C of three honest centers, and 4 / 3 of its variance of all four."""
    pytest.importorskip('dp_accounting', reason='the extra `privacy`')
    met = []

    def looking(secure, message_C, *rest):
        met.append((message_C, sums.summed(secure, message_C, *rest)[0]))
        return sums.summed(secure, message_C, *rest)

    monkeypatch.setattr(secured, 'summed', looking)
    program._build.cache_clear()  # rounds of these settings may have been built
    workdir = tmp_path / 'run'
    summary = train(shared_noise(root, tmp_path), workdir, progress=False)
    told, sigma = summary['privacy'], summary['privacy']['charges'][0]['sigma']
    assert told['charges'][0]['kind'] == 'skellam' and told['charges'][0]['count'] == 4
    assert 7.9 < told['epsilon'] <= 8 and told['accountant'].startswith('Renyi')
    assert '3 honest centers' in told['trust'] and summary['secure']['distributed_noise']
    assert len(met) == 4
    for message_C, total in met:
        sent_C, found = message_C.contribution['sent'], total.contribution['sent']
        noise = jax.tree.map(lambda x_C, x: np.ravel(x - x_C.astype(np.float64).sum(0)),
                             sent_C, found)
        noise = np.concatenate(jax.tree.leaves(noise))
        assert noise.std() == pytest.approx(sigma * 0.5 * np.sqrt(4 / 3), rel=0.05)
    # A run that resumes ends to the bit; its ledger had paid for the rounds before.
    part, stop, whole = tmp_path / 'part', threading.Event(), checkpoint.server_weights(workdir)

    def stopping(*args):
        stop.set()
        return sums.summed(*args)

    monkeypatch.setattr(secured, 'summed', stopping)
    program._build.cache_clear()
    with pytest.raises(interrupt.Stopped):
        train(shared_noise(root, tmp_path), part, progress=False, stop=stop)
    monkeypatch.undo()
    program._build.cache_clear()
    again = train(shared_noise(root, tmp_path), part, progress=False)
    assert again['privacy']['spent_before_resume'] == 1
    assert again['privacy']['epsilon'] == told['epsilon']
    for name, x in checkpoint.server_weights(part).items():
        np.testing.assert_array_equal(x, whole[name], err_msg=name)
    # A join, whose difference of two pools such noise would not cover, is refused.
    with pytest.raises(ValueError, match='privacy.unit=client keeps no statistics'):
        onboard(workdir, root, 'synthetic-3')


def test_a_left_out_client_is_not_seen_in_a_noisy_sum():
    """It sends its share alone, so the sum has everybody's noise."""
    secure = sums.Secure(4, 0, 4, 3, 3, 0, 16, 32, noisy=True)
    secret_of = {n: bytes([n + 1]) * 32 for n in range(4)}
    listed = {n: commit.identity(s) for n, s in secret_of.items()}
    made = Shares(0.5, 2**28, lambda n, r, model: stream_key(secret_of[n], r, model))
    zeros = {'sent': np.zeros((4, 5000), np.float32)}
    message_C = Message(zeros, {}, np.array([1, 1, 0, 1], np.float32))
    own = sums.Parties(secret_of, listed, made)
    total, _ = sums.summed(secure, message_C, np.arange(4), {}, 2, own)
    assert total.took_part == 3
    noise = total.contribution['sent'] * 2**16
    assert noise.std() == pytest.approx(2 * 2**14, rel=0.05)
    for round_, model in ((3, {}), (2, {'other': np.ones(1)})):  # each has noise of its own
        other = sums.summed(secure, message_C, np.arange(4), model, round_, own)[0]
        assert abs(np.corrcoef(other.contribution['sent'], total.contribution['sent'])[0, 1]) < .06
    with pytest.raises(ValueError, match='without a share'):
        sums.summed(secure, message_C, np.arange(4), {}, 2, own._replace(shares=None))
    with pytest.raises(ValueError, match='without a share'):
        sums.summed(secure._replace(first_drawn=3), message_C._replace(took_part=np.ones(4)),
                    np.arange(4), {}, 2, own)
    with pytest.raises(ValueError, match='metrics have no bound'):
        sums.summed(secure, message_C._replace(metrics={'loss': np.ones(4)}), np.arange(4), {}, 2,
                    own)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'secure.on': False}, 'secure.on=False: shares go under masks'),
        ({'privacy.unit': 'patient'}, 'local steps are no linear release'),
        ({'privacy.unit': 'image', 'local_steps': 3}, 'local steps are no linear release'),
        ({'privacy.unit': ''}, 'nothing bounds'),
        ({'privacy.rate': 0.9}, 'sampling hides nobody'),
        ({'privacy.adaptive': True}, 'the clip is fixed'),
        ({'data.virtual': 4}, 'drawn centers add no noise'),
        ({'secure.distributed_noise': False}, 'off, or secure.distributed_noise'),
        ({'secure.bits': 32}, 'set secure.bits from'),
        ({'weighting': 'examples'}, 'each client counts the same'),
    ],
)
def test_shares_of_noise_that_protect_nobody_are_refused(root, tmp_path, changes, message):
    pytest.importorskip('dp_accounting', reason='the extra `privacy`')
    with pytest.raises(ValueError, match=message) as error:
        train(shared_noise(root, tmp_path, **changes), tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value) and not (tmp_path / 'run').exists()
