"""Skellam noise: its distribution, its sums, its price, and what a center adds to its words."""

import functools

import numpy as np
import pytest
from scipy import stats

from fedgen_jax.privacy import shares
from fedgen_jax.privacy.accounting import (
    WHOLE,
    Charge,
    check_charge,
    epsilon,
    epsilon_rdp,
)
from fedgen_jax.privacy.secrets import stream_key
from fedgen_jax.privacy.shares import bounded, noisy_words, variance_of_share
from fedgen_jax.privacy.skellam import log_poisson, poisson, renyi, skellam

pytest.importorskip('dp_accounting', reason='the extra `privacy`')

SECRET = bytes(range(32))
key = functools.partial(stream_key, SECRET)


@pytest.mark.parametrize('mean', [20.0, 1000.5])
def test_poisson_numbers_have_the_poisson_distribution(mean):
    found = poisson(key('poisson'), mean, 200_000)
    edges = np.unique(stats.poisson.ppf(np.linspace(0, 1, 41)[1:-1], mean))
    share = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]]))
    count = np.bincount(np.searchsorted(edges, found, 'left'), minlength=len(share))
    assert stats.chisquare(count, share * len(found)).pvalue > 1e-3
    # The test sees a mean that is 1 % off.
    other = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, 1.01 * mean), [1]]))
    assert stats.chisquare(count, other * len(found)).pvalue < 1e-3


def test_densities_are_exact_where_terms_cancel():
    k = np.array([1.0, 15.0, 20.0, 40.0])
    np.testing.assert_allclose(log_poisson(k, 20.0), stats.poisson.logpmf(k, 20.0), atol=3e-3)
    np.testing.assert_allclose(
        log_poisson(k[1:] * 50, 1000.0), stats.poisson.logpmf(k[1:] * 50, 1000.0), atol=1e-9)
    # Around the mean 2^47 it is the normal density; k log(mean) - log k! is off by whole numbers.
    mean = 2.0**47
    gap = np.array([-3, 0, 3]) * np.sqrt(mean)
    normal = -0.5 * gap**2 / mean - 0.5 * np.log(2 * np.pi * mean)
    np.testing.assert_allclose(log_poisson(np.rint(mean + gap), mean), normal, atol=1e-6)


@pytest.mark.parametrize('variance', [1e3, 2.0**32, 2.0**48])
def test_the_variance_is_the_declared_one_and_sums_have_its_sum(variance):
    drawn = [skellam(key('of', i), variance, 50_000) for i in range(3)]
    for x in (*drawn, sum(drawn)):
        declared = variance * (3 if x is not drawn[0] and x is not drawn[1] and x is not drawn[2]
                               else 1)
        assert x.var() == pytest.approx(declared, rel=0.03)
        assert abs(x.mean()) < 4 * np.sqrt(declared / len(x))
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.02
    assert stats.kstest(drawn[0] / np.sqrt(variance), 'norm').pvalue > 1e-3 or variance < 1e4
    np.testing.assert_array_equal(drawn[0], skellam(key('of', 0), variance, 50_000))
    for bad in (10, 2.0**50):
        with pytest.raises(ValueError, match='a variance of'):
            skellam(key('x'), bad, 3)


def divergence(alpha, shift, variance):
    """Renyi's, of Skellam and Skellam + shift, summed over all whole numbers that matter."""
    x = np.arange(-60 * int(variance**0.5), 60 * int(variance**0.5))
    p, q = (stats.skellam.logpmf(x - s, variance / 2, variance / 2) for s in (shift, 0))
    use = np.isfinite(p) & np.isfinite(q)
    return np.log(np.exp(alpha * p[use] + (1 - alpha) * q[use]).sum()) / (alpha - 1)


@pytest.mark.parametrize('shift', [1, 5, 20])
@pytest.mark.parametrize('alpha', [2, 8])
def test_the_divergence_is_below_the_closed_bound_and_near_it(alpha, shift):
    variance = 400.0
    rho, xi = renyi(np.sqrt(variance) / shift, np.sqrt(variance))
    true = divergence(alpha, shift, variance)
    assert true <= xi + rho * alpha <= 1.05 * true + 1e-4


def test_the_divergence_at_a_fine_grid_is_that_of_gaussian_noise():
    """At 2^16 whole numbers a clip, of the order 8: 4.0016 at sigma 1, .44462 at sigma 3."""
    for sigma, known in ((1.0, 4.0016), (3.0, 0.44462)):
        rho, xi = renyi(sigma, sigma * 2**16)
        assert 8 / (2 * sigma**2) < xi + 8 * rho <= known
        assert xi + 8 * rho == pytest.approx(known, rel=5e-4)


def test_the_ledger_s_price():
    """It is that of Gaussian noise by the same accountant, and grows where the grid is coarse."""
    fine = Charge('training', 'skellam', 8.0, 1.0, 50, grain=8 * 2.0**16)
    gaussian = epsilon_rdp([fine._replace(kind='gaussian', grain=0)], 1e-5)
    cost = epsilon([fine], 1e-5)
    assert cost == epsilon_rdp([fine], 1e-5)
    assert gaussian <= cost <= 1.01 * gaussian
    assert epsilon([fine._replace(kind='gaussian', grain=0)], 1e-5) < cost  # PLD is tighter
    assert epsilon([fine._replace(grain=1e3)], 1e-5) > cost
    by_hand = min(
        50 * (xi + rho * a) - (np.log(1e-5) + np.log(a)) / (a - 1) + np.log((a - 1) / a)
        for a in WHOLE for rho, xi in [renyi(8.0, 8 * 2.0**16)]
    )
    assert cost == pytest.approx(by_hand, rel=1e-6)
    with pytest.raises(ValueError, match='grain|whole numbers'):
        check_charge(fine._replace(grain=100))
    with pytest.raises(ValueError, match='rate=0.5'):
        check_charge(fine._replace(rate=0.5))
    with pytest.raises(ValueError, match='twice'):
        epsilon([fine], 1e-5, 'replace-one')


def contribution(scale, seed=0, size=3000):
    x = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    return {'a': scale * x[:1000], 'b': {'c': scale * x[1000:].reshape(2, -1)}}


def test_what_is_sent_is_no_longer_than_the_clip_after_rounding():
    """The recorder: neighbors are a center's contribution and nothing, in whole numbers."""
    for bits in (8, 12, 16):
        for scale, seed in ((1e-3, 0), (1.0, 1), (1e6, 2)):
            found = bounded(contribution(scale, seed), 0.5, bits)
            norm = np.sqrt(float((found.astype(object) ** 2).sum()))
            assert norm <= 0.5 * 2**bits
            assert scale < 1 or norm > 0.5 * 2**bits - np.sqrt(3000) - 1
    assert not bounded(contribution(0.0), 0.5, 12).any()
    plain = bounded(contribution(1e-3), 0.5, 20) / 2**20
    np.testing.assert_allclose(plain[:1000], contribution(1e-3)['a'], atol=2.0**-21)
    with pytest.raises(ValueError, match='set more'):
        bounded(contribution(1.0), 0.5, 5)
    with pytest.raises(TypeError, match=r"\['n'\]: int"):
        bounded({'n': np.arange(3)}, 0.5, 12)


@pytest.mark.parametrize('dropped', [0, 2])
def test_a_sum_has_the_declared_noise_and_never_less(dropped):
    """Of 6 centers 4 remain at least: then it is sigma, and of all of them more."""
    sigma, clip, bits, honest = 3.0, 0.5, 14, 4
    variance = variance_of_share(sigma, clip, honest, bits, 32, 6)
    trees = [contribution(1.0, i) for i in range(6)]
    words = [noisy_words(t, clip, variance, key('share', i), bits, np.dtype(np.uint32))
             for i, t in enumerate(trees)]
    remain = range(6 - dropped)
    total = np.sum([words[i] for i in remain], axis=0, dtype=np.uint32).view(np.int32)
    exact = sum(bounded(trees[i], clip, bits) for i in remain)
    noise = (total - exact) / 2**bits
    assert noise.std() == pytest.approx(sigma * clip * np.sqrt((6 - dropped) / honest), rel=0.04)
    assert variance * honest >= (sigma * clip * 2**bits) ** 2


@pytest.mark.parametrize(
    ('bits', 'word', 'wanted'),
    [(32, 64, 'secure.bits from 7 to'), (26, 32, 'secure.bits from 7 to'), (3, 64, 'from 7 to')],
)
def test_words_that_do_not_hold_the_noise_are_one_line(bits, word, wanted):
    with pytest.raises(ValueError, match=wanted) as error:
        variance_of_share(10.0, 1.0, 4, bits, word, 6)
    assert '\n' not in str(error.value)
    low, high = (int(x) for x in str(error.value).split('from ')[1].split(' to '))
    for good in (low, high):
        assert variance_of_share(10.0, 1.0, 4, good, word, 6)
    for bad in (low - 1, high + 1):
        with pytest.raises(ValueError, match='secure.bits'):
            variance_of_share(10.0, 1.0, 4, bad, word, 6)
    assert shares.TAIL >= 12
