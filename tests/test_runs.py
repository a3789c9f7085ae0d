"""A run called again: on other data, for more rounds; centers of any name; nothing to score."""

import csv
import json
import pathlib
import shutil
import types

import jax
import numpy as np
import pytest
from events import scalars
from PIL import Image
from processes import small_run

from fedgen_jax import answers, checkpoint, terminal
from fedgen_jax.answers import answers_of, scores_by
from fedgen_jax.files import write_json
from fedgen_jax.interrupt import Failed
from fedgen_jax.onboard import onboard
from fedgen_jax.predictions import write_predictions
from fedgen_jax.report.gather import by_section, read_summary
from fedgen_jax.run import reopen, restore
from fedgen_jax.statistics import read_statistics
from fedgen_jax.summary import evaluate_run
from fedgen_jax.terminal import display, scoring
from fedgen_jax.train import begun, prepare_to_train, score_rounds, train


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    c = small_run(tmp_path_factory.mktemp('data'))
    c.rounds, c.eval_every, c.checkpoint_every, c.devices = 4, 3, 2, 1
    c.tracker = 'tensorboard'
    return c


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    train(config, workdir, progress=False)
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / 'run')


def on(config, root, **changes):
    c = config.copy_and_resolve_references()
    c.update_from_flattened_dict({'data.root': str(root), **changes})
    return c


def rows_of(root):
    with open(root / 'manifest.csv', newline='') as file:
        return list(csv.DictReader(file))


def write_rows(root, rows):
    with open(root / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, ('image', 'center', 'split', 'label'))
        writer.writeheader()
        writer.writerows(rows)


def rename_class(root, rows):
    return [{**r, 'label': r['label'].replace('a0', 'z0')} for r in rows]


def rename_center(root, rows):
    return [{**r, 'center': r['center'].replace('east', 'south')} for r in rows]


def add_center(root, rows):
    return rows + [{**r, 'center': 'new', 'image': copy_of(root, r)} for r in rows[:8]]


def add_image(root, rows):
    return rows + [{**rows[0], 'image': copy_of(root, rows[0])}]


def change_pixel(root, rows):
    file = root / rows[0]['image']
    image = np.array(Image.open(file))
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(file)
    return rows


def change_label(root, rows):
    return [{**rows[0], 'label': 'a1' if rows[0]['label'] == 'a0' else 'a0'}, *rows[1:]]


def swap_splits(root, rows):
    i, j = (next(i for i, r in enumerate(rows) if r['split'] == x) for x in ('val', 'test'))
    rows[i]['split'], rows[j]['split'] = rows[j]['split'], rows[i]['split']
    return rows


def copy_of(root, row):
    name = f'new-{row["image"]}'
    shutil.copy(root / row['image'], root / name)
    return name


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (rename_class, 'classes a1, z0, and the run has a0, a1'),
        (rename_center, "other seen centers: 'south' not in the run; 'east' of the run missing"),
        (add_center, "other seen centers: 'new' not in the run"),
        (add_image, "16 images, 9 to train, of center 'east', and the run had 15 images, 8"),
        (change_pixel, "other images, targets or splits of center 'east'"),
        (change_label, "other images, targets or splits of center 'east'"),
        (swap_splits, "other images, targets or splits of center 'east'"),
    ],
)
def test_a_run_on_other_data_is_refused_and_left_alone(config, run, tmp_path, change, message):
    root = shutil.copytree(config.data.root, tmp_path / 'root')
    write_rows(root, change(root, rows_of(root)))
    before = {f: f.read_bytes() for f in run.rglob('*') if f.is_file()}
    with pytest.raises(ValueError, match=message) as error:
        train(on(config, root), run, progress=False)
    assert '\n' not in str(error.value) and str(root) in str(error.value)
    assert {f: f.read_bytes() for f in run.rglob('*') if f.is_file()} == before


def test_the_same_data_elsewhere_and_a_run_that_does_not_tell_its_data_go_on(config, run, tmp_path):
    root = shutil.copytree(config.data.root, tmp_path / 'root')
    summary = train(on(config, root), run, progress=False)
    federation = json.loads((run / 'federation.json').read_text())
    told = federation.pop('data')
    assert set(told) == {'east', 'west'}
    (run / 'federation.json').write_text(json.dumps(federation))
    assert train(config, run, progress=False)['seen'] == summary['seen']
    assert json.loads((run / 'federation.json').read_text())['data'] == told


def test_an_evaluation_on_other_images_says_so(config, run, tmp_path):
    root = shutil.copytree(config.data.root, tmp_path / 'root')
    write_rows(root, change_pixel(root, rows_of(root)))
    with pytest.warns(UserWarning, match="of center 'east' than the run had .*these are scored"):
        reopen(run, str(root))
    write_rows(root, rename_center(root, rows_of(root)))
    with pytest.raises(ValueError, match="'south' not in the run"):
        evaluate_run(run, str(root))


def lines(workdir):
    text = (workdir / 'metrics.jsonl').read_text()
    return [{**json.loads(x), 'seconds': 0} for x in text.splitlines()]


def without_seconds(folder):
    return [x for x in scalars(folder) if x[1] != 'seconds']


def test_more_rounds_end_as_a_run_of_that_many_does_and_tell_how_far_they_are(
    config, run, tmp_path, capsys
):
    longer = on(config, config.data.root, rounds=6)
    extended = train(longer, run)
    told = capsys.readouterr().out.splitlines()
    (cost,), (last,) = ([x for x in told if part in x] for part in ('GFLOP', 'round '))
    assert last.startswith('FedGen; round 6 of 6: loss 0.')
    assert 'balanced_accuracy' in last
    assert told[told.index(last) + 1] == 'FedGen: scoring the seen centers ...'
    at_once = train(longer, tmp_path / 'once', progress=False)
    assert capsys.readouterr() == ('', '')
    a, b = restore(run), restore(tmp_path / 'once')
    assert a.round == b.round == 6
    jax.tree.map(np.testing.assert_array_equal, (a.state, a.private_C), (b.state, b.private_C))
    assert {**extended, 'cost': 0} == {**at_once, 'cost': 0}
    assert lines(run) == lines(tmp_path / 'once')  # that of round 4 is gone
    shown, again = (without_seconds(x / 'tensorboard') for x in (run, tmp_path / 'once'))
    assert shown == again and len(shown) == len(set(shown))
    assert {step for step, _, _ in shown} == {x['round'] for x in lines(run)}
    with pytest.raises(ValueError, match='rounds=6, now 4'):
        train(config, run, progress=False)


def test_where_the_rate_follows_the_rounds_their_number_stays(config, run):
    c = on(config, config.data.root, **{'client.schedule': 'cosine'})
    (run / 'config.json').write_text(c.to_json())
    c.rounds = 6
    said = "rounds=4, now 6: .*'cosine'.*restarts=\"\\(4,\\)\""
    with pytest.raises(ValueError, match=said) as error:
        train(c, run, progress=False)
    assert '\n' not in str(error.value)


def test_a_new_run_starts_where_another_ended(config, whole, tmp_path):
    c = on(config, config.data.root, **{
        'client.schedule': 'cosine', 'start.weights': str(whole), 'start.generator': True,
    })
    with checkpoint.manager(tmp_path) as checkpoints:
        first, state, _ = begun(prepare_to_train(c), checkpoints)
    ended = restore(whole).state.shared
    assert first == 0 and {'theta', 'phi', 'psi'} <= ended.keys()
    for name in ('theta', 'phi', 'psi'):
        jax.tree.map(np.testing.assert_array_equal, state.shared[name], ended[name])


def test_what_is_compiled_and_how_long_it_took_last_time(capsys):
    for shown in (True, False):
        with display('a run', shown) as told:
            told.compiling('the rounds', 12.3)
            told.compiling('the scores', None)
    assert capsys.readouterr().out.splitlines() == [
        'a run: compiling the rounds ... (12 s last time)', 'a run: compiling the scores ...'
    ]


def test_a_program_s_first_scores_are_told_and_timed(run):
    done, opened = reopen(run)
    fresh = opened._replace(program=opened.program._replace(rounds=object()))
    told = []
    with display('a run', False) as silent:
        shown = silent._replace(compiling=lambda what, last: told.append((what, last)))
        first = score_rounds(fresh, done.state, done.private_C, run, shown)
        assert score_rounds(fresh, done.state, done.private_C, run, shown) == first
    (what, last), took = told[0], json.loads((run / 'compiled.json').read_text())
    assert len(told) == 1 and what == 'the scores' and last != took['scores'] > 0


def test_parts_of_a_long_scoring_are_lines_now_and_then(capsys, monkeypatch):
    clock = iter((0.0, 0.0, 4.0, 14.0, 14.0))
    monkeypatch.setattr(terminal, 'time', types.SimpleNamespace(monotonic=lambda: next(clock)))
    with scoring('a run') as tell:
        for what in ('seen', 'unseen', 'the rest'):
            tell(what)
    assert capsys.readouterr().out.splitlines() == [
        'a run: scoring seen ...', 'a run: scoring the rest ...'
    ]


STRANGE = ('St/Luke', '..', '../../evil', 'pooled', 'Clinic A, Bonn', '007', 'x' * 300, 'ST/LUKE')


def folder_of(root, names, like):
    """A folder of centers of these names, with the rows of `like`'s first center."""
    root.mkdir()
    rows = []
    for i, name in enumerate(names):
        for r in rows_of(pathlib.Path(like))[:15]:
            shutil.copy(pathlib.Path(like) / r['image'], root / f'{i}-{r["image"]}')
            rows.append({**r, 'center': name, 'image': f'{i}-{r["image"]}'})
    write_rows(root, rows)
    return root


def test_centers_of_any_name_train_join_change_and_leave(config, tmp_path):
    root = folder_of(tmp_path / 'root', STRANGE, config.data.root)
    workdir = tmp_path / 'deep' / 'runs' / 'run'
    c = on(config, root, rounds=1, **{'data.held_out': 'Clinic A, Bonn,007'})
    summary = train(c, workdir, progress=False)
    unseen = ['007', 'Clinic A, Bonn']
    assert sorted(summary['unseen']['centers']) == unseen
    seen = sorted(set(STRANGE) - set(unseen))
    assert sorted(summary['seen']['centers']) == sorted(read_statistics(workdir).own) == seen

    for i, name in enumerate(('../evil', 'Clinic A, Bonn')):
        new = folder_of(tmp_path / f'new{i}', [name], config.data.root)
        assert onboard(workdir, str(new))['centers'][name]['images'] == 15
        onboard(workdir, str(new), update=name)
    for name in ('pooled', '..', '../evil', 'St/Luke', 'x' * 300):
        onboard(workdir, remove=name)
    left = {*seen, 'Clinic A, Bonn'} - {'pooled', '..', 'St/Luke', 'x' * 300}
    assert set(read_statistics(workdir).own) == left
    assert {f.name for f in (tmp_path / 'deep').rglob('*') if f.parent != workdir} >= {'run'}
    assert [f.name for f in (tmp_path / 'deep').iterdir()] == ['runs']
    assert [f.name for f in (tmp_path / 'deep' / 'runs').iterdir()] == ['run']
    assert len(list((workdir / 'statistics' / 'centers').iterdir())) == len(left)


def test_statistics_of_the_layout_before_are_read_and_moved(run, config, tmp_path):
    before = read_statistics(run)
    for file in (run / 'statistics' / 'centers').iterdir():
        value = json.loads(file.read_text())
        (run / 'statistics' / f'{value.pop("name")}.json').write_text(json.dumps(value))
        file.unlink()
    (run / 'statistics' / 'centers').rmdir()
    same = read_statistics(run)
    assert same.own.keys() == before.own.keys()
    np.testing.assert_array_equal(same.pooled.total, before.pooled.total)
    onboard(run, remove='east')
    assert sorted(f.name for f in (run / 'statistics').rglob('*.json')) == [
        'pooled.json', 'west.json'
    ]


def test_a_change_that_was_cut_short_is_told(run):
    next((run / 'statistics' / 'centers').iterdir()).unlink()
    with pytest.raises(ValueError, match='do not add up'):
        onboard(run, remove='west')


def test_a_finished_run_that_is_called_again_keeps_the_centers_that_joined(config, run, tmp_path):
    onboard(run, str(folder_of(tmp_path / 'new', ['new'], config.data.root)))
    train(config, run, progress=False)
    assert set(read_statistics(run).own) == {'east', 'new', 'west'}
    with pytest.warns(UserWarning, match='onboard new again'):
        train(on(config, config.data.root, rounds=6), run, progress=False)
    assert set(read_statistics(run).own) == {'east', 'west'}


def test_a_run_that_could_not_be_scored_does_not_begin(config, tmp_path):
    root = shutil.copytree(config.data.root, tmp_path / 'root')
    write_rows(root, [{**r, 'split': 'train'} for r in rows_of(root)])
    with pytest.raises(ValueError, match='no seen center has an image of the test split') as error:
        train(on(config, root), tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value) and not (tmp_path / 'run').exists()


BLIND = '''
from fedgen_jax.tasks import classification

def task(classes):
    """Classification that never has a score."""
    return classification(classes)._replace(metrics=lambda *_: {'n': 0})
'''


def test_a_run_with_no_score_ends_as_a_failure(config, tmp_path, monkeypatch):
    (tmp_path / 'blind.py').write_text(BLIND)
    monkeypatch.syspath_prepend(tmp_path)
    c = on(config, config.data.root, task='blind:task', rounds=1, algorithm='fedavg')
    with pytest.raises(Failed, match='trained, but no score') as error:
        train(c, tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value)
    assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['seen']['mean'] == {}


def with_columns(config, root):
    """The data with further columns, of a scanner, a number of each image, and our own names."""
    shutil.copytree(config.data.root, root)
    rows = rows_of(root)
    header = ('image', 'center', 'split', 'label', 'scanner', 'number', 'truth')
    lines = [
        [*(r[k] for k in header[:4]), ('A', 'B', '')[i % 3], str(i), 'x']
        for i, r in enumerate(rows)
    ]
    with open(root / 'manifest.csv', 'w', newline='') as file:
        csv.writer(file).writerows([header, *lines])
    return root


def test_further_columns_go_with_predictions_and_tell_groups_of_scores(config, run, tmp_path):
    root = with_columns(config, tmp_path / 'root')
    found = answers_of(run, str(root))
    (file,) = write_predictions(tmp_path / 'out', found.said, *found[1:4])
    with open(file, newline='') as text:
        rows = list(csv.DictReader(text))
    table = {r['image']: r for r in rows_of(root)}
    for row in rows:
        own = table[row['image']]
        assert (row['scanner'], row['number']) == (own['scanner'], own['number'])
        assert row['truth'] == own['label'] and row['truth (table)'] == 'x'

    by = scores_by(run, 'scanner', str(root))
    seen = set(json.loads((run / 'summary.json').read_text())['seen']['centers'])
    groups = {'seen': by['seen'], 'unseen': by['unseen'] or {}}
    assert by['column'] == 'scanner' and set(by['seen']) == {'A', 'B', '(empty)'}
    for group, of in groups.items():
        for value, scores in of.items():
            own = [
                r for r in rows if (r['scanner'] or '(empty)') == value
                and (r['center'] in seen) == (group == 'seen')
            ]
            right = [r['predicted'] == r['truth'] for r in own]
            assert scores['n'] == len(own) and scores['accuracy'] == pytest.approx(np.mean(right))
    write_json(run / 'evaluation.json', {**evaluate_run(run, str(root)), 'by': by})
    summary = read_summary(run)
    (section,) = by_section(run, 'FedGen', summary, 'balanced_accuracy')
    assert 'scanner' in section.text
    rows = [r[:2] for r in section.table.rows if r[1] == 'seen']
    assert rows == [[value, 'seen'] for value in by['seen']]
    for change in (
        {'rounds': 99},
        {'config': {**summary['config'], 'score_on': 'val'}},
        {'config': {**summary['config'], 'seed': summary['seed'] + 1}},
        {'seen': {**summary['seen'], 'mean': {'accuracy': 0.123}}},  # evaluated on other images
    ):
        assert by_section(run, 'FedGen', {**summary, **change}, 'balanced_accuracy') == []


@pytest.mark.parametrize(('column', 'message'), [
    ('number', '--by=number: has 30 values, and 29 can be told apart'),
    ('site', '--by=site: no such column .* the further ones are scanner, number, truth'),
])
def test_a_column_that_tells_no_groups_is_refused(
    config, run, tmp_path, monkeypatch, column, message
):
    monkeypatch.setattr(answers, 'MOST_VALUES', 29)
    root = with_columns(config, tmp_path / 'root')
    with pytest.raises(ValueError, match=message) as error:
        scores_by(run, column, str(root))
    assert '\n' not in str(error.value)
