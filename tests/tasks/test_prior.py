"""The class mix in a decision: Bayes' rule on densities that are known, and its estimate."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.tasks.prior import estimate, log_ratio, reweighted, stated, trained_mix

ABC = ('a', 'b', 'c')
TRAINED = np.array([0.5, 0.3, 0.2])
CENTER = np.array([0.1, 0.15, 0.75])


def density(x_N):
    """p(x|k) of three unit Gaussians about -1, 0 and 2, [N, 3], but for a constant."""
    return np.exp(-0.5 * (x_N[:, None] - np.array([-1.0, 0.0, 2.0])[None]) ** 2)


def posterior(x_N, share_K):
    joint_NxK = density(x_N) * share_K
    return joint_NxK / joint_NxK.sum(1, keepdims=True)


def drawn(share_K, n, seed=0):
    rng = np.random.default_rng(seed)
    label_N = rng.choice(3, n, p=share_K)
    return rng.normal(size=n) + np.array([-1.0, 0.0, 2.0])[label_N], label_N


def ratio(share_K, trained_K=TRAINED):
    return log_ratio(share_K, trained_K, ABC)


def test_reweighting_is_bayes_rule_under_the_center_s_mix():
    x_N = np.linspace(-6, 6, 50)
    found = reweighted(jnp.float32(posterior(x_N, TRAINED)), ratio(CENTER))
    np.testing.assert_allclose(found, posterior(x_N, CENTER), rtol=1e-4, atol=1e-6)


def test_the_mix_of_training_changes_nothing():
    p_NxK = jnp.float32(posterior(np.linspace(-4, 4, 20), TRAINED))
    np.testing.assert_allclose(reweighted(p_NxK, ratio(TRAINED)), p_NxK, rtol=1e-5)


def test_a_class_of_share_zero_is_never_answered_however_sure_the_model_is():
    p_NxK = jnp.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], jnp.float32)
    found = np.asarray(reweighted(p_NxK, ratio(np.array([0.0, 0.5, 0.5]))))
    assert np.isfinite(found).all() and not found[:, 0].any()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_the_true_mix_raises_accuracy_and_lowers_balanced_accuracy():
    x_N, label_N = drawn(CENTER, 20_000)
    p_NxK = jnp.float32(posterior(x_N, np.full(3, 1 / 3)))
    with_mix = reweighted(p_NxK, ratio(CENTER, np.full(3, 1 / 3)))

    def recalls(p):
        right_N = np.asarray(p).argmax(1) == label_N
        return right_N.mean(), np.mean([right_N[label_N == k].mean() for k in range(3)])

    (accuracy, balanced), (accuracy_too, balanced_too) = recalls(p_NxK), recalls(with_mix)
    assert accuracy_too > accuracy + 0.02 and balanced_too < balanced - 0.02


@pytest.mark.parametrize('share', [CENTER, TRAINED, [1 / 3] * 3, [0.02, 0.49, 0.49]])
def test_the_estimate_finds_the_mix_of_calibrated_probabilities(share):
    x_N, _ = drawn(np.array(share), 20_000, seed=1)
    found = estimate(posterior(x_N, TRAINED), TRAINED, ABC)
    np.testing.assert_allclose(found.share, share, atol=0.02)
    assert found.share.sum() == pytest.approx(1) and not found.doubt
    again = estimate(posterior(x_N[::-1], TRAINED), TRAINED, ABC)
    np.testing.assert_allclose(again.share, found.share, rtol=1e-9)


def test_the_estimate_is_the_likeliest_mix():
    x_N, _ = drawn(CENTER, 300)
    p_NxK = posterior(x_N, TRAINED)
    best_K = estimate(p_NxK, TRAINED, ABC).share

    def likelihood(share_K):
        return np.log((p_NxK / TRAINED * share_K).sum(1)).mean()

    rng = np.random.default_rng(0)
    others = [0.9 * best_K + 0.1 * rng.dirichlet(np.ones(3)) for _ in range(50)]
    assert likelihood(best_K) > max(likelihood(o) for o in others) - 1e-4
    assert likelihood(best_K) > likelihood(TRAINED)


def test_a_class_that_is_lost_is_doubted_but_stays_possible():
    p_NxK = np.tile([0.98, 0.01, 0.01], (40, 1))
    found = estimate(p_NxK, np.full(3, 1 / 3), ABC)
    assert 'b, c' in found.doubt and (found.share > 0).all() and found.share[0] > 0.95


def test_a_class_that_training_lacked_stays_at_zero():
    p_NxK = np.tile([0.6, 0.4, 0.0], (40, 1))
    assert estimate(p_NxK, np.array([0.5, 0.5, 0.0]), ABC).share[2] == 0
    with pytest.raises(ValueError, match="'c': no training image"):
        log_ratio(CENTER, np.array([0.5, 0.5, 0.0]), ABC)


def test_shares_are_read_in_the_order_of_the_classes():
    np.testing.assert_allclose(stated('c=.7, a=0.1,b=0.2', ABC), [0.1, 0.2, 0.7])
    np.testing.assert_allclose(stated('a=0.333,b=0.333,c=0.333', ABC), [1 / 3] * 3)
    odd = ('cells, small', 'a=b')
    np.testing.assert_allclose(stated('a=b=0.25,cells, small=0.75', odd), [0.75, 0.25])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a=1', 'b, c missing'),
        ('a=0.5,b=0.3,c=0.1', 'sum to 0.9'),
        ('a=0.5,b=0.6,c=-0.1', 'c=-0.1'),
        ('a=0.5,b=0.3,d=0.2', "no class 'd'; there are a, b, c"),
        ('a=0.5,b=0.3,a=0.2', "'a' is told twice"),
        ('a=0.5,b=0.3,c=nan', 'c=nan'),
        ('a=many,b=0.3,c=0.2', "a='many'"),
        ('estimated', "'estimated': write CLASS=SHARE"),
    ],
)
def test_what_is_no_mix_is_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        stated(text, ABC)
    assert '\n' not in str(error.value)


LABELS = [{'a': 30, 'b': 10, 'c': 0}, {'a': 0, 'b': 5, 'c': 5}, {}]


@pytest.mark.parametrize(
    ('weighting', 'expected'),
    [('examples', [0.6, 0.3, 0.1]), ('uniform', [0.375, 0.375, 0.25])],
)
def test_the_mix_of_training_is_weighted_as_the_clients_are(weighting, expected):
    mix = trained_mix('natural', 'none', weighting, LABELS, [40, 10, 99], ABC)
    np.testing.assert_allclose(mix.share, expected)
    assert mix.natural


@pytest.mark.parametrize(
    ('prevalence', 'prior'), [('balanced', 'none'), ('mixed', 'none'), ('natural', 'logits')]
)
def test_the_mix_of_training_is_uniform_where_training_takes_it_out(prevalence, prior):
    mix = trained_mix(prevalence, prior, 'examples', [], [], ABC)
    np.testing.assert_allclose(mix.share, [1 / 3] * 3)
    assert not mix.natural
    with pytest.raises(ValueError, match='call launch.train again'):
        trained_mix('natural', 'none', 'examples', [{}, {}], [3, 4], ABC)
