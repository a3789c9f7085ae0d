"""Noise has the distribution it says, and no two keys share a stream."""

import math

import numpy as np
import pytest

from fedgen_jax.privacy.noise import discrete_gaussian, stream_bytes, uniforms
from fedgen_jax.privacy.secrets import stream_key

pytest.importorskip('cryptography', reason='the extra `privacy`')

SECRET = bytes(range(32))


def key(*info):
    return stream_key(SECRET, *info)


def test_the_stream_is_chacha20_s():
    """RFC 8439, appendix A.1, test vector 1."""
    assert stream_bytes(bytes(32), 8).hex() == '76b8e0ada0f13d90'


def test_uniforms():
    u = np.sort(uniforms(key('a'), 200_000))
    # Kolmogorov and Smirnov's distance; 1.95 / sqrt(n) is met once in a thousand keys.
    assert np.abs(u - np.arange(len(u)) / len(u)).max() < 1.95 / math.sqrt(len(u))
    assert u[0] > 0 and u[-1] < 1


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


def test_streams_are_apart():
    """Two centers, two releases, two data: independent; the same three: the same noise."""
    draws = {
        info: uniforms(stream_key(secret, *info[1:]), 20_000)
        for secret, info in (
            (SECRET, ('a', 'data', 'release 0')), (SECRET, ('a', 'data', 'release 1')),
            (SECRET, ('a', 'other data', 'release 0')), (SECRET[::-1], ('b', 'data', 'release 0')),
        )
    }
    values = list(draws.values())
    for i, x in enumerate(values):
        for y in values[:i]:
            assert abs(np.corrcoef(x, y)[0, 1]) < 4 / math.sqrt(len(x))
    again = uniforms(stream_key(SECRET, 'data', 'release 0'), 20_000)
    np.testing.assert_array_equal(again, values[0])


@pytest.mark.parametrize('call, said', [
    (lambda: discrete_gaussian(key('a'), 0, 1), 'sigma=0'),
    (lambda: discrete_gaussian(key('a'), 1.5, 1), 'sigma=1.5'),
])
def test_no_noise_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
