"""What a new center may have beside the forward pass: steps, with labels or without; its mix."""

import csv
import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import cells_folder, centers, newcomer_folder
from families import configured

from configs.common import base
from fedgen_jax.algorithms.adaptation import uncertainty
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS
from fedgen_jax.evaluate import metrics_in
from fedgen_jax.labelled import labelled_of, tell_empty
from fedgen_jax.loaded import load
from fedgen_jax.newcomer import Wanted, extras
from fedgen_jax.onboard import onboard
from fedgen_jax.program import make_adapt, make_algorithm
from fedgen_jax.run import restore
from fedgen_jax.tasks.prior import reweighted
from fedgen_jax.train import train

NEW = 'synthetic-3'

# The small model of these tests answers few of the classes.
pytestmark = pytest.mark.filterwarnings('ignore:.*the estimated class mix')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return cells_folder(tmp_path_factory.mktemp('cells') / 'root', 4, 40, 16)


@pytest.fixture(scope='module')
def trained_run(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('trained')
    c = base()
    c.data.root, c.data.cache = str(root), str(workdir / 'store')
    c.data.held_out, c.data.image_size = NEW, 16
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 8, 8, 8
    c.devices, c.client.lr, c.fedgen.support, c.shifts.acquisition = 1, 0.1, 8, 0.0
    train(c, workdir / 'run', progress=False)
    return workdir / 'run'


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / 'run')


@pytest.fixture
def new(root, tmp_path):
    return str(newcomer_folder(root, NEW, tmp_path / 'new'))


def joined(run, folder, **options):
    """The new center's entry in the report; the center leaves again."""
    report = onboard(run, folder, **options)
    assert report['others']['weights_before'] == report['others']['weights_after']
    onboard(run, remove=NEW)
    return report['centers'][NEW]


def all_of(run, share):
    """A mix in which the first class has `share`, and the others the rest alike."""
    first, *others = json.loads((run / 'federation.json').read_text())['classes']
    rest = (1 - share) / len(others)
    return ','.join([f'{first}={share}', *(f'{k}={rest:.6f}' for k in others)])


def test_a_stated_mix_enters_the_decisions_and_nothing_else(run, new):
    plain = joined(run, new)
    report = onboard(run, new, prevalence=all_of(run, 1.0))
    entry = report['centers'][NEW]
    assert entry['scores_without'] == plain['scores'] and entry['weights'] == plain['weights']
    told = entry['prevalence']
    assert not told['estimated'] and list(told['mix'].values()) == [1.0, 0.0, 0.0, 0.0, 0.0]
    # All answers are the one class that the center says it has.
    rows = (pathlib.Path(new) / 'manifest.csv').read_text().splitlines()[1:]
    right = [row.endswith(f',{next(iter(told["mix"]))}') for row in rows]
    assert entry['scores']['accuracy'] == pytest.approx(np.mean(right))
    assert entry['scores'] != plain['scores']
    kept = load(run).model(NEW).variables
    p = np.asarray(reweighted(np.full((1, 5), 0.2, np.float32), np.asarray(kept['prior'])))
    np.testing.assert_array_equal(p[0] > 0, [True, False, False, False, False])


def test_the_mix_of_training_is_that_of_the_seen_centers_images(run, root, new):
    told = joined(run, new, prevalence='estimate')['prevalence']
    rows = [r.split(',') for r in (root / 'manifest.csv').read_text().splitlines()[1:]]
    labels = [label for _, center, split, label in rows if center != NEW and split == 'train']
    for name, share in told['trained'].items():
        assert share == pytest.approx(labels.count(name) / len(labels))
    assert told['estimated'] and sum(told['mix'].values()) == pytest.approx(1)


def test_the_mix_of_training_leaves_the_scores_as_they_are(run, new):
    told = joined(run, new, prevalence='estimate')['prevalence']
    same = ','.join(f'{k}={v:.8f}' for k, v in told['trained'].items())
    entry = joined(run, new, prevalence=same)
    with_it, without = entry['scores'], entry['scores_without']
    assert with_it['confusion'] == without['confusion']
    assert metrics_in(with_it) == pytest.approx(metrics_in(without), rel=1e-5)


@pytest.mark.parametrize('options', [{'prevalence': 'estimate'}, {'adapt': 3}])
def test_labels_reach_the_scores_alone(run, root, new, tmp_path, options):
    entry = joined(run, new, **options)
    one = str(newcomer_folder(root, NEW, tmp_path / 'b', order=[0] * 40))  # one label for all
    other = joined(run, one, **options)
    assert other.pop('scores') != entry.pop('scores')
    for x in (entry, other):
        del x['scores_without'], x['seconds']
    assert other == entry


def test_steps_on_the_code_lower_the_objective_and_change_one_center(run, new):
    plain = joined(run, new)
    entry = joined(run, new, adapt=8)
    assert entry['steps'] == entry['adapted']['steps'] == 8
    assert entry['adapted']['after'] < entry['adapted']['before']
    assert entry['weights'] != plain['weights'] and entry['scores_without'] == plain['scores']


def test_no_step_is_the_plain_model_to_the_bit(run, new):
    plain, zero = joined(run, new), joined(run, new, adapt=0)
    assert {**zero, 'seconds': 0} == {**plain, 'seconds': 0}
    done = restore(run)
    center = centers(4, 40, 16)[3].examples
    data = (done.state.shared, center, jax.random.key(0), None)
    variables, objective = done.program.adapt(*data, steps=0)
    made = done.program.personalize(data[0], None, center, None, *data[2:])
    jax.tree.map(np.testing.assert_array_equal, variables, made)
    assert objective.shape == (1,)


def test_the_most_sure_and_most_various_answers_are_the_best():
    sure, one, even = np.eye(4), np.eye(4)[[0, 0, 0, 0]], np.full((4, 4), 0.25)
    assert uncertainty(jnp.float32(sure)) == pytest.approx(-np.log(4))
    assert uncertainty(jnp.float32(one)) == uncertainty(jnp.float32(even)) == pytest.approx(0)
    pixels = jnp.float32(np.stack([one, even])[None])  # of one image: their entropy alone
    assert uncertainty(pixels) == pytest.approx(np.log(4) / 2)


@pytest.mark.extended
def test_masks_are_adapted_to_and_boxes_are_refused(run):
    def made(task, name):
        classes = synthetic.CLASSES_OF['mask' if task == 'segmentation' else 'box']
        c = configured({'task': task, 'model.name': name, 'model.widths': (8, 8)})
        return make_algorithm(c, 16, classes, 3)

    algorithm, _ = made('segmentation', 'unet')
    state = jax.jit(algorithm.init)(jax.random.key(0))
    # The generator's last layers begin at zero, and the code moves nothing there.
    phi = jax.tree.map(lambda x: x + 0.1 * jnp.sign(jnp.cos(jnp.arange(x.size)).reshape(x.shape)),
                       state.shared['phi'])
    images = centers(1, 8, 16)[0].examples
    adapt = jax.jit(functools.partial(algorithm.adapt, reach=0.1), static_argnums=4)
    _, objective = adapt({**state.shared, 'phi': phi}, images, jax.random.key(1), None, 4)
    assert objective.shape == (5,) and objective[-1] < objective[0]

    algorithm, local = made('detection', 'detector')
    done = restore(run)
    boxes = done._replace(program=done.program._replace(
        task=local.task, algorithm=algorithm, adapt=make_adapt(done.config, algorithm, local)
    ))
    for wanted in (Wanted(adapt=3), Wanted('estimate')):
        with pytest.raises(ValueError, match="task='detection'") as error:
            extras(run, boxes, wanted)
        assert '\n' not in str(error.value)


def test_a_class_mix_that_is_not_kept_is_not_guessed(run):
    done = restore(run)
    done.config.data.virtual = 8
    with pytest.raises(ValueError, match='drawn centers trained too') as error:
        extras(run, done, Wanted('estimate'))
    assert '\n' not in str(error.value)
    done.config.prevalence = 'balanced'
    np.testing.assert_allclose(extras(run, done, Wanted('estimate')).trained.share, 0.2)
    done.config.fedgen.phase = 'after'
    assert 'the base is taken' in extras(run, done, Wanted('estimate')).trained.source


def test_an_older_run_has_a_way_out(run, new):
    file = run / 'federation.json'
    values = json.loads(file.read_text())
    for center in values['data'].values():
        del center['labels']
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match='call launch.train again'):
        onboard(run, new, prevalence='estimate')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'prevalence': 'blast=1'}, "no class 'blast'"),
        ({'prevalence': 'neutrophil=1'}, 'missing'),
        ({'prevalence': 'estimate', 'remove': 'synthetic-0'}, 'not go with --prevalence'),
        ({'adapt': 3, 'remove': 'synthetic-0'}, '--remove does not go with --adapt'),
        ({'finetune': 3, 'remove': 'synthetic-0'}, '--remove does not go with --finetune'),
        ({'adapt': -1}, '--adapt=-1'),
        ({'finetune': -1}, '--finetune=-1'),
        ({'finetune': 3, 'adapt': 3}, '--finetune teaches the model by labels'),
        ({'finetune': 3, 'prevalence': 'estimate'}, '--finetune teaches the model by labels'),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(run, new, options, message):
    before = sorted(f for f in run.rglob('*') if f.name != 'lock')
    data = None if 'remove' in options else new
    with pytest.raises(ValueError, match=message) as error:
        onboard(run, data, **options)
    assert '\n' not in str(error.value)
    assert sorted(f for f in run.rglob('*') if f.name != 'lock') == before


def test_a_stated_mix_is_of_one_center(run, root, tmp_path):
    folder = newcomer_folder(root, NEW, tmp_path / 'two')
    text = (folder / 'manifest.csv').read_text().splitlines()
    text[1:20] = [line.replace(NEW + ',', 'another,') for line in text[1:20]]
    (folder / 'manifest.csv').write_text('\n'.join(text))
    with pytest.raises(ValueError, match='states the mix of one'):
        onboard(run, str(folder), prevalence=all_of(run, 0.5))


def relabelled(folder, changes):
    """Rewrites the manifest's rows: changes: row -> {column: value}; split is a column of it."""
    file = pathlib.Path(folder) / 'manifest.csv'
    rows = list(csv.DictReader(file.read_text().splitlines()))
    with open(file, 'w', newline='') as out:
        writer = csv.DictWriter(out, ['image', 'center', 'split', 'label'])
        writer.writeheader()
        writer.writerows({'split': '', **row, **changes(i, row)} for i, row in enumerate(rows))


@pytest.fixture
def half(new):
    """The new center's folder, whose first half trains."""
    relabelled(new, lambda i, row: {'split': 'train' if i < 20 else 'val'})
    return new


def test_a_center_s_own_labels_teach_its_model_and_nobody_elses(run, half):
    report = onboard(run, half, finetune=200)
    assert report['others']['weights_before'] == report['others']['weights_after']
    entry, model = report['centers'][NEW], load(run).model(NEW)
    assert entry['steps'] == 200 and entry['finetuned'] == {'images': 20}
    assert entry['scores']['n'] == entry['scores_without']['n'] == 20 and entry['images'] == 40
    assert model.kind == 'finetuned'
    onboard(run, remove=NEW)
    without = onboard(run, half)['centers'][NEW]
    assert without['weights'] != entry['weights'] and 'finetuned' not in without

    plain = load(run).model(NEW)
    rows = list(csv.DictReader((pathlib.Path(half) / 'manifest.csv').read_text().splitlines()))
    taught = [row for row in rows if row['split'] == 'train']

    def of_truth(model):
        return np.mean([
            model(str(pathlib.Path(half) / row['image']))[row['image'].split('/')[-1]][
                'probability'][model.classes.index(row['label'])] for row in taught
        ])

    assert of_truth(model) > of_truth(plain) + 0.05


def test_labels_that_are_scored_do_not_teach(run, half):
    weights, scores = [], []
    for step in (0, 1):  # the labels of what is scored, moved on by one class
        classes = json.loads((run / 'federation.json').read_text())['classes']

        def moved(i, row, step=step, classes=classes):
            label = classes[(classes.index(row['label']) + step) % len(classes)]
            return {'label': label} if row['split'] == 'val' else {}

        relabelled(half, moved)
        entry = joined(run, half, finetune=5)
        weights.append(entry['weights'])
        scores.append(entry['scores'])
    assert weights[0] == weights[1] and scores[0] != scores[1]
    relabelled(half, lambda i, row: {'label': ''} if row['split'] == 'val' or i % 2 else {})
    entry = joined(run, half, finetune=5)
    assert entry['weights'] != weights[0] and entry['finetuned'] == {'images': 10}
    assert entry['scores'] == entry['scores_without'] == {'n': 0}


def test_without_a_label_to_learn_from_nothing_is_written(run, half):
    relabelled(half, lambda i, row: {'label': ''} if row['split'] == 'train' else {})
    before = {f: f.read_bytes() for f in run.rglob('*') if f.is_file() and f.name != 'lock'}
    with pytest.raises(ValueError, match=f"no image of '{NEW}' has a label and lies in") as error:
        onboard(run, half, finetune=5)
    assert '\n' not in str(error.value)
    assert before == {f: f.read_bytes() for f in run.rglob('*') if f.is_file() and f.name != 'lock'}


def test_images_without_boxes_teach_that_they_show_nothing_and_it_is_told(capsys):
    (center,) = centers(1, 20, 16)
    train_N = center.split == SPLITS.index('train')
    box_class_NxM = np.where(np.arange(20)[:, None] == np.flatnonzero(train_N)[0],
                             center.examples.target['box_class'], -1)
    target = {**center.examples.target, 'box_class': box_class_NxM}
    center = center._replace(examples=center.examples._replace(target=target))
    assert len(labelled_of(center, 'box').weight) == train_N.sum()
    tell_empty(center, 'box')
    assert f'{train_N.sum() - 1} of its {train_N.sum()} training' in capsys.readouterr().err
    tell_empty(center, 'label')
    assert not capsys.readouterr().err
