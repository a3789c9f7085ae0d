"""A deployed run is the simulated one: three hospitals, through bytes alone."""

import json
import shutil
from typing import Any, NamedTuple

import numpy as np
import pytest
from conforming import conforms_to
from hospitals import NAMES, NEW, hospitals, net_of, simulated, tiny
from PIL import Image
from rolling import assert_close, assert_same

from fedgen_jax import checkpoint, schema
from fedgen_jax.deploy import center, server
from fedgen_jax.deploy.change import change
from fedgen_jax.deploy.terms import terms_of
from fedgen_jax.deploy.wire import pack, unpack
from fedgen_jax.engine.rounds import shapes_of_run
from fedgen_jax.interrupt import Failed, MayPass
from fedgen_jax.kept import file_of
from fedgen_jax.loaded import load
from fedgen_jax.onboard import HISTORY, entry_of, onboard
from fedgen_jax.program import build
from fedgen_jax.report.gather import report_run
from fedgen_jax.run import read_federation, restore
from fedgen_jax.statistics import read_statistics
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import train


def sites_in(h, folder, names=NAMES, **more):
    return [center.Site(h.settings, h.own[n], folder / n, **more) for n in names]


def deployed(h, config, folder, scores=True, **more):
    net = net_of(sites_in(h, folder, scores=scores), **more)
    return server.train(config, folder / 'run', NAMES, net, 0.0)


class Both(NamedTuple):
    """A simulated run and a deployed one of the same settings, in folder/sim and folder/run."""

    h: Any
    config: Any
    folder: Any
    summary: dict
    report: dict
    log: list


@pytest.fixture(
    scope='module', params=[pytest.param('fedavg', marks=pytest.mark.extended), 'fedgen']
)
def both(request, tmp_path_factory, drawn_hospitals):
    folder, log = tmp_path_factory.mktemp(request.param), []
    config = tiny(request.param, folder / 'store')
    if request.param == 'fedgen':
        config.input.canonical = 'brightfield'
    h = hospitals(drawn_hospitals, config, folder)
    summary = train(simulated(config, h.root), folder / 'sim', progress=False)
    return Both(h, config, folder, summary, deployed(h, config, folder, log=log), log)


def test_a_deployed_run_is_the_simulated_one(both):
    sim, run = restore(both.folder / 'sim'), restore(both.folder / 'run')
    assert run.round == both.config.rounds
    assert_close(run.state, sim.state)
    assert both.report['seen']['centers'] == both.summary['seen']['centers']
    if both.config.algorithm == 'fedgen':
        own = read_statistics(both.folder / 'sim').own
        for name, s in read_statistics(both.folder / 'run').own.items():
            assert (s.count, s.psi) == (own[name].count, own[name].psi)
            np.testing.assert_array_equal(s.total, own[name].total)


def test_nothing_but_messages_statistics_and_scores_leaves_a_center(both):
    sent = {}
    for action, reply in both.log:
        sent.setdefault(action, set()).update(unpack(reply))
    assert sent.pop('hello') == {
        'name', 'wish', 'images', 'train', 'scored', 'classes', 'arrays',
    }
    fedgen = both.config.algorithm == 'fedgen'
    assert sent.pop('moments', {'statistic'}) == {'statistic'}
    assert sent == {
        'round': {'message'}, 'score': {'scores'},
        'finish': {'scores', 'statistic'} if fedgen else {'scores'},
    }
    image = 20 * 16 * 16 * 3  # bytes of a center's images, all of them
    assert fedgen or all(len(reply) < image for _, reply in both.log)


def test_a_center_has_its_model_where_its_images_are(both):
    """As the simulated run keeps it: for `fedgen_jax.load` and the commands that ask a model."""
    for name in NAMES:
        own, kept = load(both.folder / name / 'model'), load(both.folder / 'sim').model(name)
        assert own.centers == (name,) and own.classes == kept.classes
        found, expected = own.model(name)(both.h.own[name]), kept(both.h.own[name])
        assert found.keys() == expected.keys() and len(found) == 20
        for image, said in found.items():
            np.testing.assert_allclose(
                said['probability'], expected[image]['probability'], atol=1e-5
            )
    with pytest.raises(ValueError, match='centers keep their models themselves') as error:
        load(both.folder / 'run').model(NAMES[0])
    assert '\n' not in str(error.value)


def test_the_server_has_a_page_of_what_its_centers_told(both):
    told = json.loads((both.folder / 'run' / 'summary.json').read_text())
    assert conforms_to(told, schema.Summary)
    assert told['title'] == both.summary['title'] and told['units'] == both.summary['units']
    assert told['cost']['parameters'] == both.summary['cost']['parameters']
    page = report_run(both.folder / 'run').read_text()
    for name, scores in both.summary['seen']['centers'].items():
        assert name in page and f'{scores["balanced_accuracy"]:.3f}' in page
    assert 'What is taken for what' in page and 'data:image/png' not in page
    with pytest.raises(ValueError, match='images lie at its centers: launch.report'):
        evaluate_run(both.folder / 'run')


def masks_folder(folder, center, rng):
    """A folder of one center whose images and masks are larger than what the model sees."""
    lines = ['image,where,split,mask']
    folder.mkdir()
    for i, split in enumerate(['train'] * 4 + ['val', 'test', 'test']):
        mask = np.zeros((24, 20), np.uint8)
        y, x = rng.integers(2, 10, 2)
        mask[y : y + 9, x : x + 7] = 1
        Image.fromarray(mask).save(folder / f'{i}m.png')
        Image.fromarray((60 + 120 * mask).astype(np.uint8)).save(folder / f'{i}.png')
        lines.append(f'{i}.png,{center},{split},{i}m.png')
    (folder / 'manifest.csv').write_text('\n'.join(lines))
    (folder / 'classes.json').write_text('{"mask_classes": ["background", "organ"]}')
    return folder


@pytest.mark.extended
def test_masks_have_the_scores_of_their_own_size_as_in_a_simulated_run(tmp_path):
    """From a table with a header of its own, as --columns has it."""
    rng, names = np.random.default_rng(0), NAMES[:2]
    own = {name: masks_folder(tmp_path / f'own-{name}', name, rng) for name in names}
    whole, lines = tmp_path / 'all', ['image,where,split,mask']
    for name, folder in own.items():
        shutil.copytree(folder, whole / name)
        for line in (folder / 'manifest.csv').read_text().splitlines()[1:]:
            image, *middle, mask = line.split(',')
            lines.append(','.join([f'{name}/{image}', *middle, f'{name}/{mask}']))
    (whole / 'manifest.csv').write_text('\n'.join(lines))
    shutil.copy(own[names[0]] / 'classes.json', whole)
    config = tiny('fedavg', tmp_path / 'store')
    config.task, config.model.name, config.rounds, config.batch_size = 'segmentation', 'unet', 1, 4
    config.data.columns = 'center:where'
    h = hospitals({**own, 'all': whole}, config, tmp_path)
    summary = train(simulated(config, whole), tmp_path / 'sim', progress=False)
    net = net_of(sites_in(h, tmp_path, names))
    report = server.train(config, tmp_path / 'run', names, net, 0.0)
    assert summary['resolution']['size'] == 'own'
    assert report['resolution'] == dict.fromkeys(names, summary['resolution'])
    assert report['seen']['centers'] == summary['seen']['centers']
    config.score_size = 'model'
    small = train(simulated(config, whole), tmp_path / 'sim', progress=False)
    assert small['seen']['centers'] != summary['seen']['centers']


def test_centers_join_change_and_leave_as_simulated_ones(both, tmp_path):
    if both.config.algorithm == 'fedavg':
        wish = net_of(sites_in(both.h, tmp_path, [NEW], wish='join'))
        with pytest.raises(ValueError, match='without a learned descriptor'):
            change(both.folder / 'run', wish)
        return
    run, sim = (shutil.copytree(both.folder / x, tmp_path / x) for x in ('run', 'sim'))

    def both_have(told, simulated):
        now, own = read_statistics(run), read_statistics(sim).own
        assert now.own.keys() == own.keys()
        for name, s in now.own.items():
            np.testing.assert_array_equal(s.total, own[name].total)
        weights = simulated['center_model']['weights']
        assert told['center_model']['weights'] == weights

    log = []
    joins = sites_in(both.h, tmp_path, [NEW], wish='join')
    told = change(run, net_of(joins, log=log))
    simulated = onboard(sim, str(both.h.own[NEW]))
    assert told['joined'] == [NEW]
    both_have(told, simulated)
    assert told['scores'][NEW] == simulated['centers'][NEW]['scores']
    assert [set(unpack(r)) for a, r in log if a == 'join'] == [{'statistic', 'scores'}]
    assert load(joins[0].folder / 'model').centers == (NEW,)  # made where its images are
    with pytest.raises(ValueError, match='has joined already'):
        change(run, net_of(joins))
    file_of(run, NAMES[0]).parent.mkdir()
    file_of(run, NAMES[0]).write_bytes(b'a model of images before')

    update = sites_in(both.h, tmp_path, NAMES[:1], wish='update', scores=False)
    told = change(run, net_of(update))
    both_have(told, onboard(sim, str(both.h.own[NAMES[0]]), update=NAMES[0]))
    assert told['updated'] == [NAMES[0]] and told['scores'] == {}
    assert not file_of(run, NAMES[0]).exists() and entry_of(run, NAMES[0]).is_file()

    told = change(run, net_of(sites_in(both.h, tmp_path, [NEW], wish='leave')))
    assert told['left'] == [NEW] and not entry_of(run, NEW).exists()
    both_have(told, onboard(sim, remove=NEW))
    lines = [
        [(x['action'], x['centers']) for x in map(json.loads, text.splitlines())]
        for text in ((folder / HISTORY).read_text() for folder in (run, sim))
    ]
    assert lines[0] == lines[1]

    # The same command as before leaves what changed; more rounds would train on what was before.
    left = change(run, net_of(sites_in(both.h, tmp_path, NAMES[1:2], wish='leave')))
    assert left['left'] == [NAMES[1]]
    before, sites = read_statistics(run), sites_in(both.h, both.folder)
    server.train(both.config, run, NAMES, net_of(sites), 0.0)
    assert read_statistics(run).own.keys() == before.own.keys() == {NAMES[0], NAMES[2]}
    longer = both.config.copy_and_resolve_references()
    longer.rounds += 1
    both.h.settings.write_text(json.dumps(longer.to_dict(), default=list))
    with pytest.raises(ValueError, match=f'{NAMES[1]} left since the training'):
        server.train(longer, run, NAMES, net_of(sites), 0.0)
    both.h.settings.write_text(json.dumps(both.config.to_dict(), default=list))


def state_in(folder, config):
    """The server's state after a run whose centers keep private states."""
    program = build(config, read_federation(folder / 'run')['classes'], len(NAMES))
    state, _ = shapes_of_run(program.algorithm, program.mesh, len(NAMES), program.protection)
    like = state, np.zeros(len(NAMES), np.int32)
    return checkpoint.read(folder / 'run' / 'server', like)


@pytest.mark.extended
def test_a_center_whose_message_is_lost_goes_on_from_the_state_that_counted(scaffold, tmp_path):
    h, config = scaffold

    def lost(node, asked, reply):
        data = reply()  # computed, and its private state saved
        return None if (asked['action'], asked.get('round'), node) == ('round', 1, 1) else data

    def never_asked(node, asked, reply):
        return None if (asked['action'], asked.get('round'), node) == ('round', 1, 1) else reply()

    def damaged(node, asked, reply):
        data = reply()
        if (asked['action'], asked.get('round'), node) != ('round', 1, 1):
            return data
        message = unpack(data)['message']
        return pack({'message': message.replace(message[-8:], b'\xff' * 8)})

    ends = []
    for i, change_of in enumerate((lost, never_asked, damaged)):
        deployed(h, config, tmp_path / str(i), scores=False, change=change_of)
        ends.append(state_in(tmp_path / str(i), config))
        assert ends[-1][1][1].tolist() == [3, 3, 3]
    assert_same(ends[0], ends[1])
    assert_same(ends[0], ends[2])
    lines = (tmp_path / '0' / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(lines[-1])['left_out'] == 1


def test_too_few_centers_end_the_run_and_it_goes_on_where_it_was(scaffold, tmp_path):
    h, config = scaffold

    def away(node, asked, reply):
        return None if asked.get('round') == 2 and node > 0 else reply()

    with pytest.raises(Failed, match='round 3: 2 of 3 centers gave nothing usable'):
        deployed(h, config, tmp_path / 'a', scores=False, change=away)
    report = deployed(h, config, tmp_path / 'a', scores=False)
    assert report['rounds'] == 3 and report['seen'] is None
    deployed(h, config, tmp_path / 'b', scores=False)
    assert_same(state_in(tmp_path / 'a', config), state_in(tmp_path / 'b', config))


def test_centers_with_other_settings_or_none_are_told(scaffold, tmp_path, capsys):
    h, config = scaffold
    other = config.copy_and_resolve_references()
    other.client.lr = 0.5
    with pytest.raises(MayPass, match='synthetic-0, synthetic-1, synthetic-2: not connected'):
        server.train(other, tmp_path / 'run', NAMES, net_of(sites_in(h, tmp_path)), 0.0)
    assert 'client.lr=0.05, now 0.5' in capsys.readouterr().err


def test_a_center_does_what_it_came_for_alone(scaffold, tmp_path):
    h, config = scaffold
    for wish, action in (('', 'join'), ('join', 'round'), ('leave', 'round'), ('leave', 'join'),
                         ('', 'images')):
        site = center.Site(h.settings, h.own[NEW], tmp_path / 'site', wish)
        reply = unpack(center.answer(site, pack({'action': action})))
        assert action in reply['error'] and len(reply) == 1


def test_what_is_wrong_with_a_center_s_files_stays_there(scaffold, tmp_path, capsys):
    h, config = scaffold
    broken = shutil.copytree(h.own[NAMES[0]], tmp_path / 'broken')
    rows = (broken / 'manifest.csv').read_text()
    (broken / 'manifest.csv').write_text(rows.replace('train', 'Mrs Miller', 1))
    site = center.Site(h.settings, broken, tmp_path / 'site')
    asked = pack({'action': 'hello', 'terms': json.dumps(terms_of(config)), 'classes': []})
    reply = unpack(center.answer(site, asked))
    assert reply.keys() == {'error'} and 'Miller' not in reply['error']
    assert 'Miller' in capsys.readouterr().err


@pytest.mark.parametrize('field, value', [
    ('privacy.unit', 'patient'), ('secure.distributed_noise', True), ('data.source', 'synthetic'),
    ('data.held_out', 'a'), ('data.cut', 'dirichlet:3:1.0'), ('cohort', 2), ('finetune.steps', 3),
    ('start.generator', True),
])
def test_what_is_simulated_alone_is_refused_on_both_sides(field, value, scaffold, tmp_path):
    h, config = scaffold
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=f'deployed: .*{field}'):
        server.train(config, tmp_path / 'run', NAMES, net_of([]), 0.0)
    assert not (tmp_path / 'run').exists()
    h.settings.write_text(json.dumps(config.to_dict(), default=list))
    with pytest.raises(ValueError, match=f'deployed: .*{field}'):
        center.check_site(sites_in(h, tmp_path)[0])


def test_a_misspelt_setting_is_refused(scaffold, tmp_path):
    h, _ = scaffold
    for made, field in (({'round': 3}, 'round'), ({'client': {'rate': 1}}, 'client.rate')):
        h.settings.write_text(json.dumps(made))
        with pytest.raises(ValueError, match=f'there is no field {field}'):
            center.check_site(sites_in(h, tmp_path)[0])
