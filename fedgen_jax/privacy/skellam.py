"""Whole numbers of noise whose sums are again noise of the same kind: Skellam's.

A Skellam number is the difference of two Poisson numbers of one mean, its variance the sum of the
means.  So parties that add shares of variance v to what they send under masks have noise of
variance h v in the sum of h of them, exactly, whoever of them remains.

The bits are ChaCha20's (`noise.uniforms`); a density is evaluated in float64, whose error is below
1e-7 of it.

References:
    Agarwal, Kairouz, Liu 2021, The Skellam mechanism for differentially private federated learning
    (corollary 3.6); Hormann 1993, The transformed rejection method for generating Poisson random
    variables (PTRS); Loader 2000, Fast and accurate computation of binomial probabilities.
"""

import math

import numpy as np

from fedgen_jax.privacy.noise import uniforms
from fedgen_jax.privacy.secrets import stream_key

SMALLEST, LARGEST = 1e3, 2.0**48  # variances of a share


def skellam(key: bytes, variance: float, size: int) -> np.ndarray:
    """int64 [size] of mean 0: `secrets.stream_key` of this release alone, the variance of each."""
    if not SMALLEST <= variance <= LARGEST:
        raise ValueError(f'a variance of {variance:g}: from {SMALLEST:g} to {LARGEST:g}')
    return poisson(stream_key(key, 'up'), variance / 2, size) - poisson(
        stream_key(key, 'down'), variance / 2, size
    )


def poisson(key: bytes, mean: float, size: int) -> np.ndarray:
    """int64 [size] with P(k) = mean^k e^-mean / k!, by PTRS; for means from 10 on."""
    b = 0.931 + 2.53 * math.sqrt(mean)
    a, v_r = -0.059 + 0.02483 * b, 0.9277 - 3.6224 / (b - 2)
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    found = np.zeros(size, np.int64)
    missing, attempt = np.arange(size), 0
    while len(missing):
        u, v = uniforms(stream_key(key, attempt), 2 * len(missing)).reshape(2, -1)
        u = u - 0.5
        near = 0.5 - np.abs(u)
        k = np.floor((2 * a / near + b) * u + mean + 0.43)
        at_once = (near >= 0.07) & (v <= v_r)
        possible = (k >= 1) & ((near >= 0.013) | (v <= near))
        height = np.log(v * inverse_alpha / (a / near**2 + b))
        accepted = at_once | possible & (height <= log_poisson(np.maximum(k, 1), mean))
        found[missing[accepted]] = k[accepted].astype(np.int64)
        missing, attempt = missing[~accepted], attempt + 1
    return found


def log_poisson(k: np.ndarray, mean: float) -> np.ndarray:
    """log P(k) at whole numbers from 1 on, as float64.

    Loader's form: sums of large terms that nearly cancel, as log k! has them, do not occur.
    """
    gap = (k - mean) / mean
    deviance = mean * ((1 + gap) * np.log1p(gap) - gap)
    stirling = 1 / (12 * k) - 1 / (360 * k**3)
    return -stirling - deviance - 0.5 * np.log(2 * math.pi * k)


def renyi(sigma: float, grain: float) -> tuple[float, float]:
    """(rho, xi): the Renyi divergence of a release is at most xi + rho alpha, at whole alpha > 1.

        alpha D2^2 / (2 v) + ((2 alpha - 1) D2^2 + 6 D1) / (4 v^2),    v the variance,

    D1 and D2 the L1 and L2 sensitivities, in whole numbers; D1 <= D2^2 of whole numbers.

    sigma: sqrt(v) / D2.  grain: sqrt(v).
    """
    rho = (1 + 1 / grain**2) / (2 * sigma**2)
    return rho, 5 / (4 * sigma**2 * grain**2)
