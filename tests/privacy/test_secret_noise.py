"""Noise has the distribution it says, and no two keys share a stream."""

import math

import numpy as np
import pytest

from fedgen_jax.privacy.noise import discrete_gaussian, normals, skellam, stream_bytes, uniforms
from fedgen_jax.privacy.secrets import stream_key

pytest.importorskip('cryptography', reason='the extra `privacy`')

SECRET = bytes(range(32))


def key(*info):
    return stream_key(SECRET, *info)


def test_the_stream_is_chacha20_s():
    """RFC 8439, appendix A.1, test vector 1."""
    assert stream_bytes(bytes(32), 8).hex() == '76b8e0ada0f13d90'


def test_normals():
    x = np.sort(normals(key('a'), 200_000))
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.005
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x[::100]])
    # Kolmogorov and Smirnov's distance; 1.95 / sqrt(n) is met once in a thousand keys.
    assert np.abs(cdf - np.arange(0, len(x), 100) / len(x)).max() < 1.95 / math.sqrt(len(x))
    u = uniforms(key('a'), 200_000)
    assert u.min() > 0 and u.max() < 1


@pytest.mark.parametrize('sigma', [1, 2, 7])
def test_a_discrete_gaussian_is_exact(sigma):
    """Chi-square against the probabilities, on the numbers expected at least five times."""
    x = discrete_gaussian(key('d', sigma), sigma, 20_000)
    value = np.arange(-12 * sigma, 12 * sigma + 1)
    p = np.exp(-(value**2) / (2 * sigma**2))
    expected = 20_000 * p / p.sum()
    often = expected >= 5
    seen = np.array([(x == v).sum() for v in value[often]])
    chi2 = ((seen - expected[often]) ** 2 / expected[often]).sum()
    freedom = often.sum() - 1
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)
    assert np.var(x) == pytest.approx((p * value**2).sum() / p.sum(), rel=0.05)


def test_a_wide_discrete_gaussian_is_normal():
    x = discrete_gaussian(key('wide'), 400_000, 4000) / 400_000
    assert abs(x.mean()) < 4 / math.sqrt(4000) and x.var() == pytest.approx(1, abs=0.1)
    assert np.mean(np.abs(x) < 1) == pytest.approx(0.6827, abs=0.03)


def test_skellam_noise_adds_up():
    parts = sum(skellam(key('s', i), 2.5, 50_000) for i in range(4))
    whole = skellam(key('whole'), 10.0, 50_000)
    for x in (parts, whole):
        assert abs(x.mean()) < 0.06 and x.var() == pytest.approx(10, rel=0.03)
        # The fourth moment of Skellam noise: 3 v^2 + v.
        assert np.mean(x.astype(float) ** 4) == pytest.approx(310, rel=0.06)


def test_streams_are_apart():
    """Two centers, two releases, two data: independent; the same three: the same noise."""
    draws = {
        info: normals(stream_key(secret, *info[1:]), 20_000)
        for secret, info in (
            (SECRET, ('a', 'data', 'release 0')), (SECRET, ('a', 'data', 'release 1')),
            (SECRET, ('a', 'other data', 'release 0')), (SECRET[::-1], ('b', 'data', 'release 0')),
        )
    }
    values = list(draws.values())
    for i, x in enumerate(values):
        for y in values[:i]:
            assert abs(np.mean(x * y)) < 4 / math.sqrt(len(x))
    again = normals(stream_key(SECRET, 'data', 'release 0'), 20_000)
    np.testing.assert_array_equal(again, values[0])


@pytest.mark.parametrize('call, said', [
    (lambda: skellam(key('a'), 0.0, 1), 'variance=0.0'),
    (lambda: discrete_gaussian(key('a'), 0, 1), 'sigma=0'),
    (lambda: discrete_gaussian(key('a'), 1.5, 1), 'sigma=1.5'),
])
def test_no_noise_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
