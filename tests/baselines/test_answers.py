"""What defines HyperFedZero and kNN-Per, whose models answer by more than a network's weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_close, assert_same, configured, drawn_clients

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.baselines import hyperfedzero, knnper
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import Examples
from fedgen_jax.export import to_safetensors
from fedgen_jax.loaded import Model
from fedgen_jax.program import build, make_algorithm

pytestmark = pytest.mark.extended


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


def one(data_C, i):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), data_C)


def outputs_of(changes, images, *given):
    """What a model says of images; given: (private, unlabelled, labelled) to make it from."""
    algorithm, local = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    shared = jax.jit(algorithm.init)(KEY).shared
    variables = jax.jit(algorithm.personalize)(shared, *given, KEY)
    apply = algorithm.apply or (lambda v, x: local.model.apply(v, x, train=False))
    return np.asarray(jax.jit(apply)(variables, images_of(images)))


# ------------------------------------------------------------------------------ HyperFedZero


def test_hyperfedzero_s_output_for_an_image_ignores_its_batch_mates(clients):
    data, others = one(clients, 0), one(clients, 1)
    of = {'algorithm': 'hyperfedzero'}
    mates = jnp.concatenate([data.image[:1], others.image[:3]])
    alone = outputs_of(of, mates[:1], None, data, None)
    np.testing.assert_allclose(outputs_of(of, mates, None, data, None)[:1], alone, atol=1e-6)
    algorithm, _ = make_algorithm(configured(of), 16, synthetic.CLASSES, 3)
    shared = jax.jit(algorithm.init)(KEY).shared
    heads = hyperfedzero.Heads((9, 5), 16, 64, 64)
    changes_BxIxK, _ = heads.apply({'params': shared['phi']}, images_of(mates))
    assert np.abs(changes_BxIxK[0] - changes_BxIxK[1]).max() > 1e-4, 'each image has its own head'


def test_a_constant_embedding_gives_all_images_one_head(clients):
    images = images_of(one(clients, 0).image[:4])
    for constant in (False, True):
        heads = hyperfedzero.Heads((9, 5), 16, 64, 64, constant)
        made_BxIxK, _ = heads.apply(heads.init(KEY, images), images)
        assert (np.ptp(made_BxIxK, axis=0).max() == 0) == constant


def test_hyperfedzero_s_penalty_is_least_where_embeddings_are_sure_and_spread():
    sure, same = jnp.eye(4), jnp.tile(jnp.eye(4)[:1], (4, 1))
    flat, ones = jnp.full((4, 4), 0.25), jnp.ones(4)
    assert hyperfedzero.balance(sure, ones, 1.0, 1.0) == 0
    assert hyperfedzero.balance(same, ones, 1.0, 0.0) == pytest.approx(3.0)  # var 3, mean 1
    assert hyperfedzero.balance(flat, ones, 0.0, 1.0) == pytest.approx(np.log(4))
    padded = jnp.concatenate([sure, same])
    weight_B = jnp.array([1.0] * 4 + [0.0] * 4)
    assert hyperfedzero.balance(padded, weight_B, 1.0, 1.0) == 0


def test_hyperfedzero_learns_what_it_generates_and_not_the_head_beneath(clients):
    algorithm, _ = make_algorithm(
        configured({'algorithm': 'hyperfedzero'}), 16, synthetic.CLASSES, 3
    )
    shared = jax.jit(algorithm.init)(KEY).shared
    sent, _, _ = jax.jit(algorithm.client_update)(
        shared, {'id': jnp.int32(0)}, one(clients, 0), KEY
    )
    head, *_ = jax.tree.leaves(sent['delta']['theta']['head'])
    assert not head.any()
    for name in ('extractor', 'noisy', 'chunks', 'out'):
        assert any(x.any() for x in jax.tree.leaves(sent['delta']['phi'][name])), name


def test_hyperfedzero_needs_a_head_of_one_pixel():
    theta = {'head': {'kernel': jnp.zeros((3, 3, 8, 2)), 'bias': jnp.zeros(2)}}
    with pytest.raises(ValueError, match='of one pixel'):
        hyperfedzero.head_shape(theta, lambda path: 'head')
    theta['head']['kernel'] = jnp.zeros((1, 1, 8, 2))
    assert hyperfedzero.head_shape(theta, lambda path: 'head') == (9, 2)


# ----------------------------------------------------------------------------------- kNN-Per


def test_knn_per_of_weight_0_and_without_labels_is_fedavg(clients):
    data = one(clients, 0)
    expected = outputs_of({'algorithm': 'fedavg'}, data.image, None, data, None)
    near = {'algorithm': 'knnper', 'knnper.weight': 0.0}
    seen = outputs_of(near, data.image, {'id': jnp.int32(0)}, data, None)
    assert_close(jax.nn.softmax(seen), jax.nn.softmax(expected), 1e-5)
    unseen = outputs_of({'algorithm': 'knnper'}, data.image, None, data, None)
    np.testing.assert_array_equal(unseen, expected)
    unknown = data._replace(target={'label': jnp.full_like(data.target['label'], -1)})
    unlabelled = outputs_of({'algorithm': 'knnper'}, data.image, None, data, unknown)
    np.testing.assert_array_equal(unlabelled, expected)


def test_knn_per_of_weight_1_and_one_neighbor_remembers_its_own_images(clients):
    data = one(clients, 0)
    own = {'algorithm': 'knnper', 'knnper.weight': 1.0, 'knnper.nearest': 1}
    for given in (({'id': jnp.int32(0)}, data, None), (None, data, data)):
        said = outputs_of(own, data.image, *given).argmax(-1)
        np.testing.assert_array_equal(said, data.target['label'])


def test_votes_weigh_the_nearest_by_the_kernel():
    fields = knnper.defaults()
    fields.nearest = 2
    store = {'z': jnp.array([[0.0, 0.0], [2.0, 0.0], [0.1, 0.0]]), 'label': jnp.array([0, 1, -1])}
    found = knnper.votes(store, jnp.array([[0.5, 0.0]]), fields, 2)[0]
    near, far = np.exp(-(0.5**2) / 2), np.exp(-(1.5**2) / 2)  # I = 2; the unknown one has no vote
    np.testing.assert_allclose(found, [near / (near + far), far / (near + far)], rtol=1e-5)


@pytest.mark.parametrize('wrong', [
    {'knnper.weight': 1.5}, {'knnper.nearest': 0}, {'task': 'segmentation', 'model.name': 'unet'},
])
def test_knn_per_refuses_in_one_line(wrong):
    with pytest.raises(ValueError, match='knnper'):
        make_algorithm(configured({'algorithm': 'knnper', **wrong}), 16, 'ab', 3)


# ------------------------------------------------------------------- what both of them ask


@pytest.mark.parametrize('name', ['hyperfedzero', 'knnper'])
def test_steps_on_weights_that_are_not_the_whole_answer_are_refused(name):
    for field in ('oracle.steps', 'adapt.steps'):
        with pytest.raises(ValueError, match=field):
            build(configured({'algorithm': name, field: 3}), synthetic.CLASSES, 3)


@pytest.mark.parametrize('name', ['hyperfedzero', 'knnper', 'flowdup', 'pfedhn'])
def test_fedgen_refines_no_model_that_is_generated_or_answers_by_more(name):
    with pytest.raises(ValueError, match='fedgen.base'):
        build(configured({'fedgen.base': name}), synthetic.CLASSES, 3)


def test_a_program_answers_as_the_algorithm_does_and_its_weights_alone_are_not_exported(clients):
    c = configured({'algorithm': 'knnper', 'knnper.weight': 1.0, 'knnper.nearest': 1})
    program = build(c, synthetic.CLASSES, 3)
    shared, data = jax.jit(program.algorithm.init)(KEY).shared, one(clients, 0)
    variables = program.personalize(shared, {'id': jnp.int32(0)}, data, None, KEY)
    said = program.predict(variables, np.asarray(data.image))['probability'].argmax(-1)
    np.testing.assert_array_equal(said, data.target['label'])
    blank = Examples(data.image, {}, data.weight)
    assert_same(
        program.personalize(shared, None, data, None, KEY)['params'],
        program.personalize(shared, None, blank, None, KEY)['params'],
    )
    model = Model('here', 'refined', synthetic.CLASSES, 16, program, variables)
    with pytest.raises(ValueError, match='stablehlo or onnx'):
        to_safetensors(model, {})
