"""Frozen layers: their features are made once, and models are the same as without them."""

import functools
import types

import jax
import numpy as np
import pytest
from frozen_network import FIELDS, OTHER, configured

from fedgen_jax import frozen, recalled
from fedgen_jax.data.examples import of_split
from fedgen_jax.engine.chunks import in_chunks
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.evaluate import model_of, predict_seen, predict_unseen
from fedgen_jax.models import MODELS
from fedgen_jax.newcomer import adapted_model
from fedgen_jax.run import after_training, prepare


def untrained(c):
    """As after training, with first weights, and a generator that changes them."""
    run = prepare(c)
    ids = np.arange(len(run.seen), dtype=np.int32)
    state, private_C = init_run(run.program.algorithm, run.program.mesh, run.key, ids)
    shared = jax.device_get(state.shared)

    def moved(x):
        return x + 0.1 * np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)

    phi = jax.tree.map(moved, shared['phi'])
    return after_training(run, state._replace(shared={**shared, 'phi': phi}), private_C)


def without(trained):
    """The same, with every image passed each time."""
    program = trained.program
    predict = lambda variables, image: in_chunks(program.answer, variables, image)  # noqa: E731
    return trained._replace(program=program._replace(frozen=None, predict=predict))


def assert_alike(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return untrained(configured(tmp_path_factory.mktemp('frozen')))


def test_models_and_what_they_say_are_those_of_the_images(trained):
    plain = without(trained)
    images = of_split(trained.seen[0], 'train')
    made = model_of(trained, images, 0)
    assert_alike(made, model_of(plain, images, 0))
    other = model_of(trained, images, 0, OTHER)
    gap = made['params']['last_features']['scale'] - other['params']['last_features']['scale']
    assert np.abs(gap).max() > 1e-3  # the generator does change something
    found = predict_seen(trained, 0, 'val', made)
    assert_alike(found.predictions, predict_seen(plain, 0, 'val', made).predictions)


@pytest.mark.extended
def test_strangers_and_adapted_models_are_those_of_the_images(trained):
    plain, center = without(trained), trained.unseen[0]
    found = predict_unseen(trained, center, 'test')
    assert_alike(found.predictions, predict_unseen(plain, center, 'test').predictions)
    images = of_split(trained.seen[0], 'train')
    assert_alike(*(adapted_model(t, images, 2) for t in (trained, plain)))


def test_the_layers_see_an_image_once(trained, monkeypatch):
    calls, seen, true_above = [], trained.program.frozen, frozen.above

    def of(variables, image):
        calls.append(len(image))
        return seen.of(variables, image)

    counted = seen._replace(of=of, content=b'a name that nothing was kept under')
    again = trained._replace(program=trained.program._replace(frozen=counted))
    monkeypatch.setattr(frozen, 'above', lambda of, variables: true_above(seen, variables))
    images = of_split(trained.seen[0], 'train')
    model_of(again, images, 0)
    first = len(calls)
    model_of(again, images, 0, OTHER)
    assert first and len(calls) == first


def test_layers_that_a_model_has_otherwise_are_not_recalled(trained):
    """A function that changed them is asked again without features, and from then on at once."""
    images, asked = of_split(trained.seen[0], 'train'), []
    below = trained.program.frozen
    last = {'head': {'bias': np.zeros(5)}}
    as_they_began = {**below.variables, 'params': {**below.variables['params'], **last}}
    kernel = as_they_began['params']['conv_end']['kernel']
    conv_end = {'kernel': np.nextafter(kernel, np.float32(9))}
    changed = {**as_they_began, 'params': {**as_they_began['params'], 'conv_end': conv_end}}
    assert frozen.above(below, as_they_began) == {'params': last}

    def make(made, examples):
        asked.append(examples.features is not None)
        return made

    for made, expected in ((as_they_began, [True, True]), (changed, [True, False, False])):
        fn, asked[:] = functools.partial(make, made), []
        for _ in range(2):
            assert frozen.with_features(below, fn, images, fn) is made
        assert asked == expected
    said = frozen.predicted(lambda variables, x: x, None, below, changed, images.image)
    np.testing.assert_array_equal(said, images.image)


@pytest.mark.extended
def test_a_generator_that_changes_them_is_asked_with_images(tmp_path):
    """It scales each normalization here, frozen or not."""
    trained = untrained(configured(tmp_path, **{'fedgen.modes': ('film',)}))
    images = of_split(trained.seen[0], 'train')
    made = model_of(trained, images, 0)
    assert frozen.above(trained.program.frozen, made) is None
    jax.tree.map(np.testing.assert_array_equal, made, model_of(without(trained), images, 0))
    said = (t.program.predict(made, images.image) for t in (trained, without(trained)))
    jax.tree.map(np.testing.assert_array_equal, *said)


@pytest.mark.parametrize('changes', [{'trained': 'adapters'}, {'source_norms': False}])
def test_a_model_that_learns_below_its_last_layers_has_none(changes):
    local = types.SimpleNamespace(
        model=MODELS['efficientnet_lite0'](3, **{**FIELDS, **changes}), start={'params': {}}
    )
    assert frozen.frozen_below(local) is None


def test_what_was_made_of_the_same_content_is_recalled(monkeypatch):
    calls = []

    def fn(x):
        calls.append(x)
        return x['a'] + 1

    kept = recalled.recalled('test', fn, {'a': np.arange(3)})
    assert recalled.recalled('test', fn, {'a': np.arange(3)}) is kept and len(calls) == 1
    for other in ({'a': np.arange(3.0)}, {'b': np.arange(3)}, {'a': np.arange(3)[None]}):
        recalled.recalled('test', lambda x: calls.append(x) or np.zeros(1), other)
    assert len(calls) == 4
    monkeypatch.setattr(recalled, 'KEPT', 0)
    recalled.recalled('test', fn, {'a': np.arange(4)})  # the others go
    recalled.recalled('test', fn, {'a': np.arange(3)})
    assert len(calls) == 6
