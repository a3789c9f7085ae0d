"""Whole runs, end to end and small: resuming, scoring, sharing programs, refusing mistakes."""

import csv
import gc
import json
import shutil
import types
import weakref

import jax
import numpy as np
import pytest
from PIL import Image

from configs.common import base
from fedgen_jax import feed, program
from fedgen_jax.data.examples import take
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.evaluate import halves, model_of, predict_unseen, score, score_stranger
from fedgen_jax.run import after_training, client_ids, prepare, restore
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import next_stop, train

CENTERS = ('east', 'north', 'south', 'west')
SPLITS = ('train', 'train', 'train', 'val', 'test')


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Four centers of 15 images, 16 pixels, whose class is their brightest channel."""
    root = tmp_path_factory.mktemp('folder')
    (root / 'images').mkdir()
    rng = np.random.default_rng(0)
    rows = [('image', 'center', 'split', 'label')]
    for k, center in enumerate(CENTERS):
        for i in range(15):
            image = rng.integers(0, 120, (16, 16, 3))
            image[..., i % 3] += 100 + 10 * k
            name = f'images/{center}-{i}.png'
            Image.fromarray(image.astype(np.uint8)).save(root / name)
            rows.append((name, center, SPLITS[i // 3], 'rgb'[i % 3]))
    with open(root / 'manifest.csv', 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope='session')
def tiny(folder, tmp_path_factory):
    """tiny({'field.name': value, ...}) -> a configuration that trains in a blink."""
    cache = tmp_path_factory.mktemp('store')

    def make(changes):
        c = base()
        c.data.root, c.data.image_size, c.data.cache = str(folder), 16, str(cache)
        c.data.held_out = 'west'
        c.model.widths = (8,)
        c.shifts.acquisition, c.shifts.flips, c.shifts.turns = 0.0, False, False
        c.rounds, c.eval_every, c.checkpoint_every = 4, 2, 2
        c.local_steps, c.batch_size, c.fedgen.support = 2, 4, 4
        c.update_from_flattened_dict(changes)
        return c

    return make


@pytest.fixture(scope='module', params=['fedgen', 'fedavg'])
def whole(request, tiny, tmp_path_factory):
    """(algorithm, summary, workdir) of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp(request.param)
    config = tiny({'algorithm': request.param})
    return request.param, train(config, workdir, progress=False), workdir


def scores(summary):
    """A summary without what differs between two identical runs: the clock."""
    cost = {k: v for k, v in summary['cost'].items() if not k.endswith('seconds')}
    return json.loads(json.dumps({**summary, 'cost': cost}))


def lines(workdir):
    with open(workdir / 'metrics.jsonl') as file:
        return [{**json.loads(x), 'seconds': None} for x in file]


def test_summary_has_what_the_tables_need(whole):
    algorithm, summary, workdir = whole
    assert json.loads((workdir / 'summary.json').read_text()) == json.loads(json.dumps(summary))
    assert set(summary) >= {
        'task', 'algorithm', 'seed', 'held_out', 'rounds', 'device', 'score_on', 'seen',
        'unseen', 'center_model', 'controls', 'cost',
    }
    assert set(summary['seen']['centers']) == {'east', 'north', 'south'}
    assert set(summary['unseen']['centers']) == {'west'}
    assert summary['seen']['centers']['east']['n'] == 3  # its test split
    assert summary['unseen']['centers']['west']['n'] == 15  # all of it, cross-fitted
    for block in (summary['seen'], summary['unseen'], summary['center_model']['seen']):
        per_center = [s['accuracy'] for s in block['centers'].values()]
        assert block['mean']['accuracy'] == pytest.approx(np.mean(per_center))
        assert block['worst']['accuracy'] == min(per_center)
    seen = summary['seen']
    n, right = ([s[k] for s in seen['centers'].values()] for k in ('n', 'accuracy'))
    assert seen['pooled']['n'] == sum(n)
    assert seen['pooled']['accuracy'] == pytest.approx(np.average(right, weights=n))
    cost = summary['cost']
    assert cost['bytes_up'] >= 4 * sum(cost['parameters'].values())
    assert ('generator' in cost['parameters']) == (algorithm == 'fedgen')
    assert (summary['controls']['shuffled'] is not None) == (algorithm == 'fedgen')
    assert (workdir / 'statistics' / 'pooled.json').exists() == (algorithm == 'fedgen')
    assert [x['round'] for x in lines(workdir)] == [2, 4]


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(whole, tiny, tmp_path):
    algorithm, summary, workdir = whole
    shutil.copytree(workdir, tmp_path / 'cut')
    shutil.rmtree(tmp_path / 'cut' / 'checkpoints' / '4')
    (tmp_path / 'cut' / 'summary.json').unlink()
    assert restore(tmp_path / 'cut').round == 2
    resumed = train(tiny({'algorithm': algorithm}), tmp_path / 'cut', progress=False)
    assert scores(resumed) == scores(summary)
    assert lines(tmp_path / 'cut') == lines(workdir)
    a, b = restore(workdir), restore(tmp_path / 'cut')
    assert a.round == b.round == 4
    jax.tree.map(np.testing.assert_array_equal, (a.state, a.private_C), (b.state, b.private_C))


def test_evaluating_a_checkpoint_gives_the_summary_s_scores(whole):
    _, summary, workdir = whole
    assert scores(evaluate_run(workdir)) == scores(summary)


def test_finished_training_is_only_scored_again(whole, tiny, tmp_path):
    algorithm, summary, workdir = whole
    shutil.copytree(workdir, tmp_path / 'copy')
    again = train(tiny({'algorithm': algorithm}), tmp_path / 'copy', progress=False)
    assert scores(again) == scores(summary) and lines(tmp_path / 'copy') == lines(workdir)


@pytest.mark.parametrize(
    ('field', 'value'), [('seed', 1), ('data.held_out', 'east'), ('model.widths', (16,))]
)
def test_a_run_of_another_configuration_is_refused_and_left_alone(
    whole, tiny, tmp_path, field, value
):
    algorithm, summary, workdir = whole
    shutil.copytree(workdir, tmp_path / 'copy')
    other = tiny({'algorithm': algorithm, field: value})
    with pytest.raises(ValueError, match=f'another configuration .{field}=') as error:
        train(other, tmp_path / 'copy', progress=False)
    assert '\n' not in str(error.value)
    assert scores(evaluate_run(tmp_path / 'copy')) == scores(summary)


def test_a_checkpoint_of_another_model_is_refused(whole, tiny, tmp_path):
    algorithm, _, workdir = whole
    shutil.copytree(workdir, tmp_path / 'copy')
    (tmp_path / 'copy' / 'config.json').unlink()
    other = tiny({'algorithm': algorithm, 'model.widths': (16,)})
    with pytest.raises(ValueError, match='saved by another model'):
        train(other, tmp_path / 'copy', progress=False)


def test_an_unseen_center_s_batch_statistics_are_cross_fitted_for_every_model(tiny, tmp_path):
    # FedAvg's one model is its center model too: adapted alike, it scores alike.
    config = tiny({'algorithm': 'fedavg', 'model.norm': 'batch'})
    summary = train(config, tmp_path / 'fedavg', progress=False)
    assert summary['center_model'] == {k: scores_of(summary[k]) for k in ('seen', 'unseen')}
    # No image that is scored may decide how it is scored.
    run = prepare(tiny({'algorithm': 'local_only', 'model.norm': 'batch', 'rounds': 1}))
    id_C = client_ids(len(run.seen), run.program)
    state, private_C = init_run(run.program.algorithm, run.program.mesh, run.key, id_C)
    done = after_training(run, state, private_C)
    center = run.unseen[0]
    first = halves(center)
    image = center.examples.image.copy()
    image[first] = 255 - image[first]
    other = center._replace(examples=center.examples._replace(image=image))
    before, after = (predict_unseen(done, c, 'test', client=1) for c in (center, other))
    for name in set(before.path):
        i, j = before.path.index(name), after.path.index(name)
        same = np.array_equal(
            before.predictions['probability'][i], after.predictions['probability'][j]
        )
        assert not same  # a changed image, or one adapted to changed images
    scored = [set(p) for p in (before.path[: (~first).sum()], before.path[(~first).sum() :])]
    assert scored[0].isdisjoint(scored[1]) and scored[0] | scored[1] == set(center.path)


def scores_of(block):
    return {k: v for k, v in block.items() if k not in ('pooled', 'intervals')}


def test_a_center_too_small_to_split_scores_nothing(tiny):
    run = prepare(tiny({'algorithm': 'fedavg', 'model.norm': 'batch'}))
    id_C = client_ids(len(run.seen), run.program)
    state, private_C = init_run(run.program.algorithm, run.program.mesh, run.key, id_C)
    done = after_training(run, state, private_C)
    center = run.unseen[0]
    one = center._replace(
        examples=take(center.examples, np.arange(1)), split=center.split[:1],
        path=center.path[:1], unit=center.unit[:1],
    )
    assert score_stranger(done, one, 'test') == {'n': 0}
    nothing = take(center.examples, np.arange(0))
    assert score(done, model_of(done, center.examples), nothing) == {'n': 0}


def test_seeds_and_held_out_centers_share_one_program(whole, tiny, tmp_path):
    algorithm, summary, workdir = whole
    shared = restore(workdir).program
    compiled = len(feed._COMPILED)
    other = tiny({'algorithm': algorithm, 'seed': 1, 'data.held_out': 'north'})
    assert prepare(other).program is shared
    different = train(other, tmp_path, progress=False)
    assert len(feed._COMPILED) == compiled
    assert set(different['unseen']['centers']) == {'north'}
    assert prepare(tiny({'algorithm': algorithm, 'client.lr': 0.01})).program is not shared


def test_in_development_an_unseen_center_s_test_images_stay_unopened(whole, tiny, folder, tmp_path):
    """`score_on='val'`: spoiling the unseen center's test images and labels changes no score."""
    algorithm, test, _ = whole
    spoiled = shutil.copytree(folder, tmp_path / 'spoiled')
    with open(spoiled / 'manifest.csv', newline='') as file:
        rows = list(csv.reader(file))
    for row in rows[1:]:
        if row[1:3] == ['west', 'test']:
            Image.new('RGB', (16, 16)).save(spoiled / row[0])
            row[3] = 'r'
    with open(spoiled / 'manifest.csv', 'w', newline='') as file:
        csv.writer(file).writerows(rows)

    def scored(root, score_on):
        changes = {'algorithm': algorithm, 'score_on': score_on, 'data.root': str(root)}
        workdir = tmp_path / f'{root.name}-{score_on}'
        return scores(train(tiny(changes), workdir, progress=False))

    val = scored(folder, 'val')
    assert val['unseen']['centers']['west']['n'] == 3
    assert scored(spoiled, 'val') == val
    assert scored(spoiled, 'test')['unseen'] != test['unseen']  # and these are the scored images


def test_a_compilation_keeps_its_program_alive():
    """Else a later program could take the address of one that is gone, and its compilation."""
    rounds = jax.jit(lambda x, first, last: x + first + last)
    alive = weakref.ref(rounds)
    assert feed.compiled(types.SimpleNamespace(rounds=rounds), (np.int32(0),)) in (
        feed._COMPILED.values()
    )
    del rounds
    gc.collect()
    assert alive() is not None


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('data.held_out', 'wets', "data.held_out='wets': one of east, north, south, west"),
        ('data.held_out', ','.join(CENTERS), 'leave at least one'),
        ('data.source', 'http', "data.source='http': one of"),
        ('data.root', '', 'data.root is empty'),
        ('data.root', '/nowhere', '/nowhere'),
        ('score_on', 'train', "score_on='train': one of test, val"),
        ('rounds', 0, 'rounds=0: at least 1'),
        ('cohort', 4, 'cohort=4'),
        ('task', 'regression', "task='regression': one of"),
        ('algorithm', 'fedsgd', "algorithm='fedsgd': one of"),
        ('client_map', 'all', "client_map='all': one of"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(tiny, tmp_path, field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        train(tiny({field: value}), tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('length', 'stops'), [(100, [4, 6, 8, 11]), (3, [3, 4, 6, 8, 11]), (1, [*range(1, 12)])]
)
def test_dispatches_end_at_evaluations_checkpoints_and_the_last_round(tiny, length, stops):
    c = tiny({'eval_every': 4, 'checkpoint_every': 6, 'rounds': 11})
    found = [next_stop(0, length, c)]
    while found[-1] < c.rounds:
        found.append(next_stop(found[-1], length, c))
    assert found == stops


def test_programs_do_not_depend_on_the_run(tiny):
    """What `program.build` leaves out of its key changes no compiled function."""
    first = program.build(tiny({}), 'abc', 3)
    other = tiny({
        'seed': 9, 'eval_every': 3, 'score_on': 'val', 'data.held_out': 'north',
        'privacy.secrets': 'elsewhere', 'privacy.seed': '7',
    })
    assert program.build(other, 'abc', 3) is first
    assert program.build(tiny({}), 'abc', 2) is not first
    assert program.build(tiny({'model.norm': 'instance'}), 'abc', 3) is not first
