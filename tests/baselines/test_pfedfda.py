"""pFedFDA: the head that follows from Gaussian features, and who has which Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_same, configured, drawn_clients, roll
from scipy.stats import multivariate_normal

from fedgen_jax.baselines.gaussians import Gaussians, at_stranger, best_mix, folds, lda, own
from fedgen_jax.baselines.heads import features_of, head_of
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm

pytestmark = pytest.mark.extended

RNG = np.random.default_rng(0)
D, K = 4, 3
MEAN = RNG.normal(size=(K, D)).astype(np.float32)
ROOT = RNG.normal(size=(D, D)).astype(np.float32) / 2
TRUE = Gaussians(
    jnp.array(MEAN), jnp.array(ROOT @ ROOT.T + np.eye(D, dtype=np.float32) / 4),
    jnp.array([0.5, 0.3, 0.2]), jnp.ones(2),
)


def drawn(n, shift=0.0):
    """Features of n examples of each class, and their classes."""
    label_N = np.repeat(np.arange(K), n)
    noise = RNG.multivariate_normal(np.zeros(D), TRUE.covariance, len(label_N))
    return jnp.array(MEAN[label_N] + shift + noise, jnp.float32), jnp.array(label_N)


def test_gaussian_features_have_the_closed_form_discriminant():
    z_NxI, _ = drawn(20)
    kernel, bias = lda(TRUE)
    density = np.stack([multivariate_normal(m, TRUE.covariance).pdf(z_NxI) for m in MEAN], 1)
    joint = density * np.asarray(TRUE.share)
    expected = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(z_NxI @ kernel + bias[None]), expected, atol=2e-3)


def test_estimates_are_those_of_numpy_and_rare_classes_are_the_others():
    z_NxI, label_N = drawn(30)
    found = own(z_NxI, jax.nn.one_hot(label_N, K), TRUE, ridge=0.5)
    of = [np.asarray(z_NxI)[label_N == k] for k in range(K)]
    inside = np.concatenate([z - z.mean(0) for z in of])
    np.testing.assert_allclose(
        found.covariance, inside.T @ inside / (len(inside) - 1) + np.eye(D) / 2, atol=1e-4
    )
    chance = jax.nn.one_hot(label_N, K).at[1:30].set(0)  # one example of class 0 is left
    found = own(z_NxI, chance, TRUE, ridge=0.5)
    np.testing.assert_array_equal(found.mean[0], MEAN[0])
    np.testing.assert_allclose(found.mean[1], z_NxI[30:60].mean(0), atol=1e-5)


def test_a_center_far_from_the_others_takes_its_own_and_a_small_like_one_theirs():
    far, small = drawn(200, shift=3.0), drawn(2)
    assert best_mix(*far, TRUE, 0.01, KEY)[0] >= 0.9
    assert (best_mix(*small, TRUE, 0.01, KEY) <= 0.5).all()
    nobody = jnp.full(6, -1)
    np.testing.assert_array_equal(best_mix(small[0], nobody, TRUE, 0.01, KEY), [0, 0])


def test_folds_halve_each_class():
    label_N = jnp.array([2, 0, 1, 1, -1, 0, 2, 1, 1, 2, 0, -1, 0])
    fold_N = folds(label_N, 3, KEY)
    counts = [int(fold_N[label_N == k].sum()) for k in range(3)]
    assert counts[0] == 2 and counts[1] == 2 and counts[2] in (1, 2)


def test_a_stranger_s_means_come_nearer_without_labels():
    z_NxI, _ = drawn(200, shift=0.6)
    weight_N = jnp.ones(len(z_NxI))
    moved = at_stranger(z_NxI, weight_N, TRUE, 0.01, rounds=5)
    assert np.abs(moved.mean - MEAN - 0.6).mean() < 0.4 * 0.6
    assert_same(at_stranger(z_NxI, weight_N, TRUE, 0.01, rounds=0), TRUE)


@pytest.fixture(scope='module')
def rolled():
    clients = drawn_clients()
    algorithm, local = make_algorithm(configured({'algorithm': 'pfedfda'}), 16, synthetic.CLASSES,
                                      3)
    return clients, algorithm, local, roll({'algorithm': 'pfedfda'}, clients, rounds=3)


def test_the_head_never_learns_and_is_that_of_the_gaussians(rolled):
    clients, algorithm, local, (state, private_C, _) = rolled
    shared = state.shared
    kernel, bias = lda(shared['gaussians'])
    np.testing.assert_allclose(shared['theta']['head']['kernel'], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shared['theta']['head']['bias'], bias, rtol=1e-4, atol=1e-5)
    data, private = jax.tree.map(lambda x: x[0], (clients, private_C))
    sent, _, _ = jax.jit(algorithm.client_update)(shared, private, data, KEY)
    assert not any(x.any() for x in jax.tree.leaves(sent['delta']['theta']['head']))
    assert any(x.any() for x in jax.tree.leaves(sent['delta']['theta']['conv_0_0']))
    assert sent['gaussians'].mean.any()


def test_seen_centers_have_their_own_head_and_a_stranger_s_needs_no_labels(rolled):
    clients, algorithm, local, (state, private_C, _) = rolled
    personalize = jax.jit(algorithm.personalize)
    data = jax.tree.map(lambda x: x[0], clients)
    other = data._replace(target={'label': data.target['label'][::-1]})
    assert_same(personalize(state.shared, None, data, None, KEY),
                personalize(state.shared, None, other, None, KEY))
    private = jax.tree.map(lambda x: x[0], private_C)
    seen, labelled = (personalize(state.shared, *args, KEY) for args in (
        (private, data, None), (None, data, data)
    ))
    assert_same(seen, labelled)
    permuted = personalize(state.shared, private, other, None, KEY)
    assert (seen['params']['head']['kernel'] != permuted['params']['head']['kernel']).any()


def test_the_head_reads_what_the_model_gives_it(rolled):
    clients, _, local, (state, _, _) = rolled
    head, image = head_of('pfedfda', local), clients.image[0]
    variables = {'params': state.shared['theta']}
    z_NxI = features_of(local.model, variables, image)
    kernel, bias = head.weights(state.shared['theta'])
    outputs = local.model.apply(variables, image.astype(np.float32) / 255)
    np.testing.assert_allclose(z_NxI @ kernel + bias[None], outputs, atol=1e-4)


def test_a_prior_in_the_loss_is_refused():
    c = configured({'algorithm': 'pfedfda', 'loss.prior': 'logits'})
    with pytest.raises(ValueError, match='loss.prior=logits'):
        make_algorithm(c, 16, synthetic.CLASSES, 3)
