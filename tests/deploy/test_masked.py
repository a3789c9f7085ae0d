"""Sums under masks between hospitals: as simulated ones, and no message of a center is seen."""

import json

import jax
import numpy as np
import pytest
from hospitals import NAMES, NEW, hospitals, net_of, simulated, tiny
from rolling import assert_same

from fedgen_jax.deploy import center, secured, server
from fedgen_jax.deploy.wire import pack, unpack
from fedgen_jax.interrupt import Failed
from fedgen_jax.privacy.commit import identity
from fedgen_jax.run import restore
from fedgen_jax.train import train

pytest.importorskip('cryptography', reason='the extra `privacy`')


@pytest.fixture
def masked(tmp_path, drawn_hospitals):
    """(settings, hospitals, sites, the file of identities)."""
    config = tiny('fedavg', tmp_path / 'store')
    config.secure.on, config.privacy.seed = True, '0'  # of the simulation's identities
    h = hospitals(drawn_hospitals, config, tmp_path)
    file = tmp_path / 'identities.json'
    keys = {n: secured.new_identity(tmp_path / n).hex() for n in NAMES}
    file.write_text(json.dumps(keys))
    sites = [center.Site(h.settings, h.own[n], tmp_path / n, '', False, file) for n in NAMES]
    return config, h, sites, file


def test_a_deployed_sum_under_masks_is_the_simulated_one(masked, tmp_path):
    config, h, sites, file = masked
    log, workdir = [], tmp_path / 'run'
    server.train(config, workdir, NAMES, net_of(sites, log=log), 0.0, file)
    train(simulated(config, h.root), tmp_path / 'sim', progress=False)
    assert_same(restore(workdir).state, restore(tmp_path / 'sim').state)
    rounds = [unpack(reply) for action, reply in log if action == 'round']
    assert [set(r) for r in rounds] == [{'advert'}] * (config.rounds * len(NAMES))


def test_nothing_is_summed_where_a_center_is_missing_or_is_another(masked, tmp_path):
    config, h, sites, file = masked

    def silent(node, asked, reply):
        return None if (asked.get('step'), node) == ('masked', 2) else reply()

    with pytest.raises(Failed, match='2 of 3 clients sent their words, and a sum needs 3'):
        server.train(config, tmp_path / 'a', NAMES, net_of(sites, change=silent), 0.0, file)

    listed = json.loads(file.read_text())
    listed[NAMES[0]] = identity(b'x' * 32).hex()  # whom one center takes the first for
    other = tmp_path / 'other.json'
    other.write_text(json.dumps(listed))
    wrong = [*sites[:2], sites[2]._replace(identities=other)]
    with pytest.raises(Failed, match=f'{NAMES[2]}: its keys are not signed for this sum'):
        server.train(config, tmp_path / 'b', NAMES, net_of(wrong), 0.0, file)


def test_a_server_that_sends_centers_different_models_gets_no_sum(masked, tmp_path, capsys):
    config, h, sites, file = masked

    def another_model(requests):
        net = net_of(sites)
        for node, data in requests.items():
            asked = unpack(data)
            if asked['action'] == 'round' and node == 1:
                state = unpack(asked['state'])
                state = jax.tree.map(lambda x: x + np.ones((), x.dtype), state)
                requests = {**requests, node: pack({**asked, 'state': pack(state)})}
        return net.ask(requests)

    net = net_of(sites)._replace(ask=another_model)
    with pytest.raises(Failed, match='something is wrong at the center'):
        server.train(config, tmp_path / 'run', NAMES, net, 0.0, file)
    assert 'another model than this client: nothing is sent' in capsys.readouterr().err


@pytest.mark.parametrize('field', ['length', 'round', 'run', 'reference'])
def test_nor_one_that_tells_centers_anything_else_than_the_others(masked, tmp_path, capsys, field):
    """All of a request that is not one center's own is signed: what a message is made of."""
    config, h, sites, file = masked
    other = {'length': 21, 'round': 1, 'run': 'other', 'reference': np.zeros(3, np.float32)}[field]

    def another(node, asked, reply):
        if asked['action'] == 'round' and node == 1:
            return center.answer(sites[node], pack({**asked, field: other}))
        return reply()

    with pytest.raises(Failed, match='a sum needs 3'):
        server.train(config, tmp_path / 'run', NAMES, net_of(sites, change=another), 0.0, file)
    assert 'another model than this client: nothing is sent' in capsys.readouterr().err


@pytest.fixture
def four(masked, tmp_path):
    """(settings, names, sites, the file of identities) of four, one of whom may be missing."""
    config, h, _, file = masked
    config.secure.threshold, config.secure.min_honest = 0.75, 3
    config.max_left_out = 0.5
    h.settings.write_text(config.to_json())
    names = sorted((*NAMES, NEW))
    keys = {n: secured.new_identity(tmp_path / n).hex() for n in names}
    file.write_text(json.dumps(keys))
    sites = [center.Site(h.settings, h.own[n], tmp_path / n, '', False, file) for n in names]
    return config, names, sites, file


def test_a_center_whose_keys_are_not_its_own_stops_nobody(four, tmp_path):
    config, names, sites, file = four

    def nonsense(node, asked, reply):
        found = reply()
        return pack({'advert': b'no keys'}) if (asked['action'], node) == ('round', 1) else found

    server.train(config, tmp_path / 'a', names, net_of(sites, change=nonsense), 0.0, file)
    with pytest.raises(ValueError, match=f"another one for {names[0]!r} than .*the same --si"):
        center.check_site(sites[0]._replace(folder=sites[1].folder))
    (sites[0].folder / 'secret.key').unlink()
    with pytest.raises(ValueError, match='the secret of this center is lost'):
        center.check_site(sites[0])


def test_words_of_another_length_are_left_out_before_the_others_agree(four, tmp_path, capsys):
    config, names, sites, file = four

    def short(node, asked, reply):
        found = reply()
        if (asked.get('step'), node) != ('masked', 1):
            return found
        return pack({'reply': unpack(found)['reply'][:-8]})

    net = net_of(sites, change=short)
    told = server.train(config, tmp_path / 'a', names, net, 0.0, file)
    assert 'masked words of another length, of centers number 1' in capsys.readouterr().err
    assert told['rounds'] == config.rounds
    # Nobody agreed to a sum with it, so that the same three are asked again and give the same.
    server.train(config, tmp_path / 'again', names, net_of(sites, change=short), 0.0, file)


def test_a_center_agrees_to_one_sum_of_a_round(four, tmp_path):
    """Its message is the same each time: two sums that differ by it alone would give it away."""
    config, names, sites, file = four
    server.train(config, tmp_path / 'a', names, net_of(sites), 0.0, file)
    server.train(config, tmp_path / 'again', names, net_of(sites), 0.0, file)  # over the same

    def silent(node, asked, reply):
        return None if (asked.get('step'), node) == ('masked', 2) else reply()

    with pytest.raises(Failed, match=f'over other centers .*{names[2]}.*bring these back'):
        server.train(config, tmp_path / 'b', names, net_of(sites, change=silent), 0.0, file)


def test_no_other_name_of_a_round_makes_it_another_sum(four, tmp_path):
    """The same round by another type, and the same model by zeros of another sign."""
    config, names, sites, file = four
    server.train(config, tmp_path / 'a', names, net_of(sites), 0.0, file)

    def renamed(node, asked, reply):
        if (asked.get('step'), node) == ('masked', 2):
            return None
        if asked['action'] != 'round':
            return reply()
        state = jax.tree.map(lambda x: np.where(x == 0, -x, x).astype(x.dtype),
                             unpack(asked['state']))
        return center.answer(sites[node], pack({**asked, **more, 'state': pack(state)}))

    for more, message in (({}, 'over other centers'), ({'round': 0.0}, 'round 0.0: there are 2')):
        net = net_of(sites, change=renamed)
        with pytest.raises(Failed, match=message):
            server.train(config, tmp_path / f'b{len(more)}', names, net, 0.0, file)


def test_without_a_list_of_identities_nothing_begins(masked, tmp_path):
    config, h, sites, file = masked
    with pytest.raises(ValueError, match='secure.on: pass --identities'):
        server.train(config, tmp_path / 'run', NAMES, net_of(sites), 0.0)
    with pytest.raises(ValueError, match='secure.on: pass --identities'):
        center.check_site(sites[0]._replace(identities=None))
