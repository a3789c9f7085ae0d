"""What goes wrong between hospitals is told in a line, and changes no number in silence."""

import csv
import json
import os
import shutil
import socket
import struct
import threading
import types
from multiprocessing.connection import Client

import jax
import numpy as np
import pytest
from hospitals import NAMES, hospitals, net_of, tiny
from PIL import Image
from rolling import assert_same
from test_deployed import deployed, masks_folder, sites_in, state_in

from fedgen_jax.deploy import center, server
from fedgen_jax.deploy.collect import blank_examples, shapes_of_messages, usable
from fedgen_jax.deploy.deployment import classes_of, told_in
from fedgen_jax.deploy.learner import first_private
from fedgen_jax.deploy.meeting import Hello, greet
from fedgen_jax.deploy.pipe import answer_all, listening
from fedgen_jax.deploy.terms import Refused, check_deployable, check_terms, read_config, terms_of
from fedgen_jax.deploy.wire import pack, unpack
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.evaluate import block
from fedgen_jax.interrupt import Failed, MayPass, Stopped
from fedgen_jax.program import build
from fedgen_jax.report.gather import report_run
from fedgen_jax.run import Trained


@pytest.mark.extended
def test_a_run_goes_on_from_the_checkpoint_before_the_last(scaffold, tmp_path):
    h, config = scaffold

    def away(node, asked, reply):
        return None if asked.get('round') == 2 and node else reply()

    with pytest.raises(Failed, match='2 of 3 centers gave nothing'):
        deployed(h, config, tmp_path / 'a', scores=False, change=away)
    shutil.rmtree(tmp_path / 'a' / 'run' / 'server' / 'checkpoints' / '2')
    deployed(h, config, tmp_path / 'a', scores=False)
    deployed(h, config, tmp_path / 'b', scores=False)
    assert_same(state_in(tmp_path / 'a', config), state_in(tmp_path / 'b', config))
    for name in NAMES:
        kept = sorted(f.name for f in (tmp_path / 'b' / name).rglob('*.msgpack'))
        assert kept == ['1.msgpack', '2.msgpack', '3.msgpack']
        private = tmp_path / 'b' / name / 'private'
        for folder in (private, private.with_name('model')):
            assert folder.stat().st_mode & 0o077 == 0


def test_a_socket_is_for_its_owner_and_its_group(tmp_path):
    tmp_path.chmod(0o2750)
    before = os.umask(0o077)
    try:
        with listening(tmp_path) as listener:
            assert os.stat(listener.address).st_mode & 0o777 == 0o660
            assert (tmp_path / 'net').stat().st_mode & 0o777 == 0o750
    finally:
        os.umask(before)


def test_images_that_are_others_are_left_out(scaffold, tmp_path, capsys):
    h, config = scaffold
    config.max_left_out = 0.5
    h.settings.write_text(json.dumps(config.to_dict(), default=list))
    sites = sites_in(h, tmp_path, scores=False)

    def swapped(node, asked, reply):
        if node == 0 and asked.get('round') == 1:
            return center.answer(sites[1]._replace(folder=sites[0].folder), pack(asked))
        return reply()

    server.train(config, tmp_path / 'run', NAMES, net_of(sites, change=swapped), 0.0)
    assert f"{NAMES[0]} is left out: it is '{NAMES[1]}', and" in capsys.readouterr().err

    root = shutil.copytree(h.own[NAMES[0]], tmp_path / 'copy')
    sites[0] = sites[0]._replace(data=root)
    with open(root / 'manifest.csv', newline='') as file:
        image = root / next(r['image'] for r in csv.DictReader(file) if r['split'] == 'train')
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    config.rounds += 1
    h.settings.write_text(json.dumps(config.to_dict(), default=list))
    with pytest.raises(Failed, match=f'{NAMES[0]}: its images, targets or splits are not those'):
        server.train(config, tmp_path / 'run', NAMES, net_of(sites), 0.0)


@pytest.mark.parametrize('algorithm', ['ditto', 'scaffold', 'fedavg'])
def test_a_center_that_comes_late_begins_as_one_that_was_there(algorithm, tmp_path):
    program = build(tiny(algorithm, tmp_path), ('a', 'b'), 3)
    ids = np.arange(3, dtype=np.int32)
    _, private_C = init_run(program.algorithm, program.mesh, jax.random.key(7), ids)
    for i in ids:
        assert_same(first_private(program, 7, int(i)), jax.tree.map(lambda x: x[i : i + 1],  # noqa: B023
                                                                  private_C))


def test_settings_are_compared_both_ways_and_so_is_the_release(tmp_path):
    config = tiny('fedavg', tmp_path)
    asked = terms_of(config)
    check_terms(config, asked)
    config.client.lr = 0.5
    for other, message in (
        (asked, 'client.lr=0.5, now 0.05'),
        ({**asked, 'client': {k: x for k, x in asked['client'].items() if k != 'lr'}},
         'knows no client.lr'),
        ({**terms_of(config), 'release': '0.0.1'}, 'release='),
    ):
        with pytest.raises(Refused, match=message):
            check_terms(config, other)


@pytest.mark.parametrize('field, value, message', [
    ('score_on', 'tset', "score_on='tset'"), ('eval_every', 0, 'eval_every=0'),
    ('rounds', 0, 'rounds=0'), ('score_size', 'big', "score_size='big'"),
])
def test_settings_that_no_run_can_have_are_refused(field, value, message, tmp_path):
    config = tiny('fedavg', tmp_path)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message) as error:
        check_deployable(config)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', [
    '[]', '5', '{"rounds": "many"}', '{"client": 3}', '{"client": {"lr": "x"}}', '{'
])
def test_a_settings_file_that_is_none_is_one_line(text, tmp_path):
    file = tmp_path / 'settings.json'
    file.write_text(text)
    with pytest.raises(ValueError, match='settings.json: ') as error:
        read_config(file)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('more', [
    {}, {'terms': '[]'}, {'terms': 5}, {'terms': None}, {'center': 3},
    {'state': 5}, {'round': 'x'}, {'reference': 'x'}, {'session': 1, 'action': 'sum'},
])
def test_nothing_that_a_server_sends_ends_a_center(scaffold, tmp_path, more):
    h, config = scaffold
    site = sites_in(h, tmp_path)[0]
    asked = {
        'action': 'round', 'terms': json.dumps(terms_of(config)), 'classes': [], 'clients': 3,
        'length': 20, 'reference': None, 'run': 'a', 'center': NAMES[0], 'number': 0, 'round': 0,
        'since': None, 'saved': [], 'state': b'',
    }
    for action in ('hello', more.get('action', 'round')):
        reply = unpack(center.answer(site, pack({**asked, **more, 'action': action})))
        assert reply.keys() == {'error'} or action == 'hello'


def test_a_reply_that_is_none_is_left_out(tmp_path):
    program = build(tiny('fedavg', tmp_path), ('a', 'b'), 2)
    blank = blank_examples({'label': [[], 'int32']}, 16)
    shapes = shapes_of_messages(program, blank, 10**9, None)  # of any length: nothing is made
    found, why = usable(shapes, {0: {'message': 5}, 1: {}, 2: {'error': 'away'}})
    assert not found and why.keys() == {0, 1, 2}


@pytest.mark.parametrize('told', [
    '{"accuracy": "high"}', '{"accuracy": null}', '{"accuracy": {"x": 1}}', '{"accuracy": NaN}',
    '{"accuracy": 1e999}', '[' * 10**5, '7', '',
])
def test_scores_that_are_none_spoil_no_mean(scaffold, tmp_path, told):
    _, config = scaffold
    program = build(config, ('a', 'b'), 2)
    trained = Trained(program, None, None, (), (), 1, jax.random.key(0))
    found = block(trained, told_in({'x': {'scores': '{"accuracy": 0.5}'}, 'y': {'scores': told}}))
    assert found['mean'] == found['worst'] == {'accuracy': 0.5}
    assert not found['centers'].get('y')


@pytest.mark.parametrize('size', [2**62, 2**64 - 1])
def test_a_size_that_cannot_be_ends_a_connection_alone(tmp_path, size):
    with listening(tmp_path / 'net') as listener:
        threading.Thread(target=answer_all, args=(listener, bytes), daemon=True).start()
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(listener.address)
            raw.sendall(struct.pack('!iQ', -1, size))
            assert raw.recv(1) == b''
        with Client(listener.address, 'AF_UNIX') as pipe:
            pipe.send_bytes(b'abc')
            assert pipe.recv_bytes() == b'abc'
    answer_all(listener, bytes)  # it ends: a loop over a closed socket would take a core for itself


def test_more_images_than_fit_are_refused(scaffold, tmp_path):
    h, config = scaffold
    asked = {
        'action': 'round', 'terms': json.dumps(terms_of(config)), 'classes': [], 'clients': 3,
        'length': 2**31 - 1, 'reference': None, 'run': 'a', 'center': NAMES[0], 'number': 0,
        'round': 0, 'since': None, 'saved': [], 'state': b'',
    }
    reply = unpack(center.answer(sites_in(h, tmp_path)[0], pack(asked)))
    assert 'states 2147483647 images, and ' in reply['error']


HELLO = {
    'name': 'a', 'wish': '', 'images': 3, 'train': 2, 'scored': True, 'classes': ['x'],
    'arrays': {'label': [[], 'int32']},
}


@pytest.mark.parametrize('more', [
    {'arrays': {'label': 5}}, {'arrays': {'label': [[10**9], 'int32']}}, {'images': -1},
    {'arrays': {'label': [[], 'object']}}, {'arrays': 3}, {'classes': [3]}, {'scored': None},
    {'scored': 3}, {'images': 2**62}, {'arrays': {'label': [[2**16] * 3, 'int32']}},
])
def test_a_malformed_greeting_is_met_as_such(more):
    net = types.SimpleNamespace(nodes=lambda: [1], ask=lambda x: {1: pack({**HELLO, **more})})
    assert greet(net, '', {})[1] == 'its greeting is malformed'
    net.ask = lambda x: {1: pack(HELLO)}
    assert greet(net, '', {})[1].name == 'a'


@pytest.mark.extended
def test_a_second_node_of_a_name_stops_nobody(scaffold, tmp_path, capsys):
    h, config = scaffold
    sites = sites_in(h, tmp_path, scores=False)
    twice, rounds = [*sites, sites[0]._replace(folder=tmp_path / 'twice')], []

    def counted(node, asked, reply):
        rounds.append(asked.get('round'))
        return reply()

    net = net_of(twice, change=counted, connected=lambda node: node < 3 or 1 in rounds)
    two = greet(net._replace(nodes=lambda: [0, 3]), json.dumps(terms_of(config)), {})
    assert [isinstance(x, Hello) for x in two.values()] == [True, False]  # met in one look
    assert server.train(config, tmp_path / 'run', NAMES, net, 0.0)['rounds'] == 3
    assert f"says that it is '{NAMES[0]}', as another node does" in capsys.readouterr().err
    assert not (tmp_path / 'twice').exists()


def test_a_center_with_a_wish_is_not_there_to_train(scaffold, tmp_path):
    h, config = scaffold
    sites = sites_in(h, tmp_path)
    sites[1] = sites[1]._replace(wish='update')
    with pytest.raises(MayPass, match=f'{NAMES[1]} came to update'):
        server.train(config, tmp_path / 'run', NAMES, net_of(sites), 0.0)


@pytest.mark.extended
def test_a_server_that_is_told_to_stop_goes_on_where_it_was(scaffold, tmp_path):
    h, config = scaffold
    stop = types.SimpleNamespace(is_set=lambda: 1 in rounds)
    sites, rounds = sites_in(h, tmp_path / 'a', scores=False), []

    def counted(node, asked, reply):
        rounds.append(asked.get('round'))
        return reply()

    net = net_of(sites, change=counted)
    with pytest.raises(Stopped, match='stopped at round 2'):
        server.train(config, tmp_path / 'a' / 'run', NAMES, net, 0.0, stop=stop)
    server.train(config, tmp_path / 'a' / 'run', NAMES, net_of(sites), 0.0)
    deployed(h, config, tmp_path / 'b', scores=False)
    assert_same(state_in(tmp_path / 'a', config), state_in(tmp_path / 'b', config))


@pytest.mark.extended
def test_a_page_says_how_many_centers_told_scores(scaffold, tmp_path):
    h, config = scaffold
    silent, *others = sites_in(h, tmp_path)
    some = net_of([silent._replace(scores=False), *others])
    none = net_of(sites_in(h, tmp_path, scores=False))
    server.train(config, tmp_path / 'run', NAMES, some, 0.0)
    page = report_run(tmp_path / 'run').read_text()
    assert 'between 3 centers: the scores are those that 2 of them told' in page
    server.train(config, tmp_path / 'run', NAMES, none, 0.0)  # finished again, and none tells
    with pytest.raises(ValueError, match='summary.json: missing: .* no center told'):
        report_run(tmp_path / 'run')


def test_nothing_to_score_is_told_before_the_rounds(scaffold, tmp_path):
    h, config = scaffold
    own = {}
    for name in NAMES:
        own[name] = shutil.copytree(h.own[name], tmp_path / f'{name}-data')
        table = own[name] / 'manifest.csv'
        table.write_text(table.read_text().replace(',test,', ',val,'))
    h = h._replace(own={**h.own, **own})
    with pytest.raises(ValueError, match='no center has an image of the test split'):
        deployed(h, config, tmp_path / 'x')


def test_targets_that_do_not_fit_the_task_are_told(scaffold, tmp_path):
    h, config = scaffold

    def others(node, asked, reply):
        found = unpack(reply())
        return pack({**found, 'arrays': {}} if asked['action'] == 'hello' else found)

    with pytest.raises(ValueError, match=r'synthetic-0: what it tells of its targets \(none\)'):
        deployed(h, config, tmp_path / 'x', change=others)


def test_masks_need_one_list_of_classes():
    hellos = {
        name: Hello(name, '', 3, 2, True, classes, {'mask': [[8, 8], 'uint8']})
        for name, classes in (('a', ('background', 'tumor')), ('b', ('background', 'stroma')))
    }
    with pytest.raises(ValueError, match='give all one classes.json'):
        classes_of(hellos)
    labels = {name: h._replace(arrays={'label': [[], 'int32']}) for name, h in hellos.items()}
    assert classes_of(labels) == ('background', 'stroma', 'tumor')


def test_centers_with_other_labels_of_several_train_together(tmp_path):
    """Each of its own images: the classes are those of both."""
    own, names = {}, NAMES[:2]
    for name, labels in zip(names, (('edema', 'fracture|edema'), ('edema', 'nodule|edema'))):
        own[name] = masks_folder(tmp_path / f'own-{name}', name, np.random.default_rng(0))
        (own[name] / 'classes.json').unlink()
        rows = ['image,center,split,label']
        for i, split in enumerate(['train'] * 4 + ['val', 'test', 'test']):
            rows.append(f'{i}.png,{name},{split},{labels[i % 2]}')
        (own[name] / 'manifest.csv').write_text('\n'.join(rows))
    config = tiny('fedavg', tmp_path / 'store')
    config.task, config.rounds, config.batch_size = 'multilabel', 1, 4
    h = hospitals({**own, 'all': tmp_path}, config, tmp_path)
    report = server.train(
        config, tmp_path / 'run', names, net_of(sites_in(h, tmp_path, names)), 0.0
    )
    assert set(report['seen']['centers']) == set(names)
