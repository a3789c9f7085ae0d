"""Noise and draws on the host, from a secret key.

The bits are ChaCha20's keystream under a key of 32 bytes that serves one release alone
(`secrets.stream_key`).  Noise that is added inside a compiled round is JAX's (`dpsgd`).

References:
    Canonne, Kamath, Steinke 2020, The discrete Gaussian for differential privacy (algorithms 1 to
    3, which are exact); RFC 8439 (ChaCha20).
"""

from collections.abc import Callable

import numpy as np

from fedgen_jax.privacy.extra import extra

_CHUNK = 4096  # bytes of the keystream at a time


def stream_bytes(key: bytes, size: int) -> bytes:
    """The first bytes of a key's stream."""
    return _encryptor(key).update(b'\0' * size)


def uniforms(key: bytes, size: int) -> np.ndarray:
    """float64 [size] inside (0, 1), of 53 bits."""
    word = np.frombuffer(stream_bytes(key, 8 * size), '<u8')
    return ((word >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def discrete_gaussian(key: bytes, sigma: int, size: int) -> np.ndarray:
    """int64 [size] with P(x) proportional to exp(-x^2 / (2 sigma^2)), exactly.

    sigma: in whole numbers.
    """
    if sigma < 1 or sigma != int(sigma):
        raise ValueError(f'sigma={sigma}: a whole number above 0')
    below = _below(key)
    return np.array([_gaussian(below, int(sigma)) for _ in range(size)], np.int64)


def _gaussian(below, sigma):
    """Algorithm 3: a discrete Laplace number, accepted as often as makes it Gaussian."""
    t = sigma + 1
    while True:
        y = _laplace(below, t)
        gap = abs(y) * t - sigma**2
        if _bernoulli_exp(below, gap**2, 2 * sigma**2 * t**2):
            return y


def _laplace(below, t):
    """Algorithm 2: P(x) proportional to exp(-|x| / t)."""
    while True:
        u = below(t)
        if not _bernoulli_exp(below, u, t):
            continue
        v = 0
        while _bernoulli_exp(below, 1, 1):
            v += 1
        x = u + t * v
        if below(2):
            return x
        if x:
            return -x


def _bernoulli_exp(below, a, b) -> bool:
    """Algorithm 1: true with probability exp(-a / b), in whole numbers alone."""
    while a > b:
        if not _bernoulli_exp(below, 1, 1):
            return False
        a -= b
    k = 1
    while below(b * k) < a:
        k += 1
    return k % 2 == 1


def _below(key: bytes) -> Callable[[int], int]:
    """n -> a whole number from 0 to n - 1, all alike, from the key's stream."""
    encryptor, zeros = _encryptor(key), b'\0' * _CHUNK
    held = [b'', 0]

    def take(size):
        if held[1] + size > len(held[0]):
            held[0], held[1] = held[0][held[1] :] + encryptor.update(zeros), 0
        held[1] += size
        return int.from_bytes(held[0][held[1] - size : held[1]], 'little')

    def below(n):
        bits = (n - 1).bit_length()
        while True:
            found = take((bits + 7) // 8) & ((1 << bits) - 1)
            if found < n:
                return found

    return below


def _encryptor(key):
    ciphers = extra('cryptography.hazmat.primitives.ciphers', 'noise')
    return ciphers.Cipher(ciphers.algorithms.ChaCha20(key, b'\0' * 16), None).encryptor()
