"""Private runs on canonical input, and statistics of drawn smears: nothing exact of a center."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import cells_folder, newcomer_folder

from fedgen_jax.algorithms.draws import draw_indices, images_of
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.local import apply_model
from fedgen_jax.budget import ledger_file
from fedgen_jax.canonical import mean_moments
from fedgen_jax.config import base
from fedgen_jax.data.examples import of_split
from fedgen_jax.data.smears import smears
from fedgen_jax.evaluate import change_of
from fedgen_jax.feed import training_examples
from fedgen_jax.guard import noise_of, protect
from fedgen_jax.kept import check_outside
from fedgen_jax.loaded import load
from fedgen_jax.models import MODELS
from fedgen_jax.models.layers import LAST_NORM, last_features
from fedgen_jax.models.start import flat
from fedgen_jax.moments import FILE, read_moments
from fedgen_jax.onboard import onboard
from fedgen_jax.privacy.ledger import read_ledger, spent
from fedgen_jax.program import make_algorithm
from fedgen_jax.public import check_public, public_config
from fedgen_jax.random import stream
from fedgen_jax.run import after_training, reopen
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import prepare_to_train, train

pytest.importorskip('dp_accounting', reason='the extra `privacy`')

SIZE = 16
SEEN = ('synthetic-0', 'synthetic-1')


@pytest.fixture(scope='module')
def cells(tmp_path_factory):
    return cells_folder(tmp_path_factory.mktemp('cells') / 'root', 3, 40, SIZE)


def configured(cells, tmp, **changes):
    c = base()
    c.data.root, c.data.cache = str(cells), str(tmp / 'store')
    c.data.held_out, c.data.image_size, c.devices = 'synthetic-2', SIZE, 1
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8,), 2, 1, 4
    c.eval_every = c.checkpoint_every = 2
    c.weighting, c.fedgen.support, c.fedgen.modes = 'uniform', 4, ('film',)
    c.fedgen.theta, c.data.virtual_examples = 'joint', 16
    c.input.canonical, c.input.reference = 'brightfield', 'drawn'
    c.privacy.update({
        'unit': 'image', 'delta': 1e-3, 'rate': 1.0, 'public_centers': 2, 'public_rounds': 2,
        'trainable': 'base', 'secrets': str(tmp / 'keys'),
    })
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope='module')
def finished(cells, tmp_path_factory):
    tmp = tmp_path_factory.mktemp('private')
    c = configured(cells, tmp)
    return c, tmp / 'run', train(c, tmp / 'run', progress=False)


def test_moments_are_charged_once_and_only_the_released_ones_are_kept(finished):
    c, workdir, told = finished
    assert 7.9 < told['privacy']['epsilon'] <= 8
    names = [x['name'] for x in told['privacy']['charges']]
    assert names == ['moments', 'descriptor', 'training']
    done, run = reopen(workdir)
    kept = read_moments(workdir)
    for center in run.seen:
        ledger = read_ledger(ledger_file(workdir, center.name))
        assert spent(ledger, 'moments') == 1
        planned = ledger.account.plan[0]
        exact = mean_moments(run.program.input, [of_split(center, 'train')])
        gap = np.abs(kept[center.name] - exact)
        assert np.mean(gap == 0) < 0.05
        assert gap.max() < 5 * planned.sigma * planned.sensitivity / ledger.account.units
    # What centers are moved to is public: the same for every run, and no mean of theirs.
    reference = json.loads((workdir / 'reference.json').read_text())['mean']
    public = json.loads((workdir / 'public' / 'reference.json').read_text())['mean']
    wanted = mean_moments(run.program.input, smears(SIZE))
    np.testing.assert_allclose(reference, wanted, atol=1e-6)
    assert public == reference
    assert done.round == 2


def test_it_is_scored_by_what_was_released(finished):
    _, workdir, told = finished
    assert evaluate_run(workdir)['seen'] == told['seen']


def test_models_stay_at_their_centers(finished, cells, tmp_path):
    c, workdir, told = finished
    assert not [*workdir.rglob('models')]
    model = load(workdir).model(SEEN[0])  # made of the center's images, and of what it released
    with open(cells / 'manifest.csv', newline='') as file:
        rows = [r for r in csv.DictReader(file) if (r['center'], r['split']) == (SEEN[0], 'test')]
    found = [model(str(cells / r['image'])).popitem()[1]['probability'].argmax() for r in rows]
    right = [model.classes[k] == r['label'] for k, r in zip(found, rows)]
    assert np.mean(right) == pytest.approx(told['seen']['centers'][SEEN[0]]['accuracy'])
    check_outside(workdir, c, tmp_path / 'there')
    with pytest.raises(ValueError, match="which is the server's"):
        check_outside(workdir, c, workdir / 'export' / 'a.onnx')


def test_nobody_else_is_moved_by_a_patients_images(cells, finished):
    """Of two neighbouring sets, all images but his enter a private step as they were."""
    c, workdir, _ = finished
    run = prepare_to_train(c)
    run = protect(run, workdir, workdir / 'public', noise_of(run))
    own = training_examples(run, 0).image
    center = run.seen[0]
    image = np.array(center.examples.image)
    (i,) = np.flatnonzero(center.split == 0)[:1]
    image[i] = 255 - image[i]
    other = center._replace(examples=center.examples._replace(image=image))
    changed = training_examples(run._replace(seen=(other, *run.seen[1:])), 0).image
    same = (own == changed).reshape(len(own), -1).all(1)
    assert not same[0] and same[1:].all()
    # The control: by exact moments, all others move.
    done = after_training(run, run.program.algorithm.init(run.key), {})
    assert done.moments
    exact = [
        change_of(done._replace(moments=None), of_split(x, 'train'), SEEN[0])
        for x in (center, other)
    ]
    assert np.any(exact[0].colors['gain'] != exact[1].colors['gain'])
    released = [change_of(done, of_split(x, 'train'), SEEN[0]) for x in (center, other)]
    jax.tree.map(np.testing.assert_array_equal, *released)


def test_a_newcomer_is_refused(cells, finished, tmp_path):
    _, workdir, _ = finished
    before = (workdir / FILE).read_text()
    folder = newcomer_folder(cells, 'synthetic-2', tmp_path / 'new')
    with pytest.raises(ValueError, match='which no ledger has planned'):
        onboard(workdir, str(folder))
    assert (workdir / FILE).read_text() == before
    assert not ledger_file(workdir, 'synthetic-2').exists()


def test_a_public_run_on_the_private_centers_mean_is_refused(cells, tmp_path):
    """It trains on drawn centers alone, but moves them to what the private ones look like."""
    c = configured(cells, tmp_path)
    made = public_config(c)
    (tmp_path / 'public').mkdir()
    file = tmp_path / 'public' / 'config.json'
    c.start.weights = str(tmp_path / 'public')
    file.write_text(json.dumps(made.to_dict(), default=list))
    check_public(c)
    made.start.weights = 'fedgen_jax.models.pretrained:efficientnet_lite0'  # public too
    file.write_text(json.dumps(made.to_dict(), default=list))
    check_public(c)
    made.input.reference = 'seen'
    file.write_text(json.dumps(made.to_dict(), default=list))
    with pytest.raises(ValueError, match='canonical input is the mean of the centers') as error:
        check_public(c)
    assert '\n' not in str(error.value)


def test_drawn_statistics_are_those_of_smears_alone(tmp_path):
    """Of the last features under the start weights, on canonical input or without."""
    c = configured('', tmp_path, **{'statistics': 'drawn', 'input.canonical': 'none'})
    c.model.last = 'center'
    model = MODELS['cnn'](5, (8,), last='center')
    start = model.init(jax.random.key(3), jnp.zeros((1, SIZE, SIZE, 3)))
    np.savez(tmp_path / 'start.npz', **flat(start))
    c.start.weights = str(tmp_path / 'start.npz')
    names = ('a', 'b', 'c', 'd', 'e')

    def statistics():
        local = make_algorithm(c, SIZE, names, 2)[1]
        assert local.statistics == 'frozen' and not local.of_center
        return local.start['batch_stats'][LAST_NORM]

    image = np.concatenate([x.image for x in smears(SIZE)])
    features = last_features(model, start, images_of(jnp.asarray(image)), False)[1]
    found = statistics()
    np.testing.assert_allclose(found['mean'], features.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found['var'], features.var(0), rtol=1e-3, atol=1e-7)
    c.seed, c.data.root = 5, 'elsewhere'
    np.testing.assert_array_equal(statistics()['mean'], found['mean'])
    c.input.canonical = 'brightfield'
    assert np.any(statistics()['mean'] != found['mean'])
    c.input.reference = 'seen'
    with pytest.raises(ValueError, match='depend on drawn smears alone'):
        statistics()
    c.start.weights, c.input.reference = '', 'drawn'
    with pytest.raises(ValueError, match='under start.weights'):
        statistics()


def test_own_statistics_may_follow_those_of_smears(tmp_path):
    """With 'drawn+own' training normalizes by constants, a finished model by the center's own."""
    c = configured('', tmp_path, **{'input.canonical': 'none'})
    c.model.last = 'center'
    model = MODELS['cnn'](5, (8,), last='center')
    start = model.init(jax.random.key(3), jnp.zeros((1, SIZE, SIZE, 3)))
    np.savez(tmp_path / 'start.npz', **flat(start))
    c.start.weights = str(tmp_path / 'start.npz')
    image = 128 + smears(SIZE)[0].image // 2
    images = smears(SIZE)[0]._replace(image=jnp.asarray(image))
    params, outputs = start['params'], []
    for kind in ('drawn', 'drawn+own'):
        c.statistics = kind
        local = make_algorithm(c, SIZE, ('a', 'b', 'c', 'd', 'e'), 2)[1]
        outputs.append(apply_model(local, params, images_of(images.image)))
        found = finish(local, params, images, None, jax.random.key(0))['batch_stats'][LAST_NORM]
        smear = local.start['batch_stats'][LAST_NORM]
        assert bool(np.all(found['mean'] == smear['mean'])) == (kind == 'drawn')
    index = draw_indices(local.task, images, stream(jax.random.key(0), 'stats'), 256, None)
    own = last_features(model, start, images_of(images.image[index]), False)[1]
    np.testing.assert_allclose(found['mean'], own.mean(0), rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, *outputs)
