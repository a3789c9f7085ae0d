"""One run, many canaries: a lower bound on what private steps really cost.

A canary is a patient whose gradient is as large as the clip lets it be, in a direction that no one
else has.  A fair coin decides for each whether he takes part; the rest is the run's own code: T
private steps of `algorithms.learning`, with its Poisson sample, clip and noise.  Who took part
is then guessed from the weights.  Guesses that are right too often refute the stated epsilon.

No image and no weight of the run is used, and nothing of the audit is released.

References:
    Steinke, Nasr, Jagielski 2023, Privacy auditing with one (1) training run; Mahloujifar, Melis,
    Chaudhuri 2024, Auditing f-differential privacy in one run (the bounds); Nasr et al. 2023, Tight
    auditing of differentially private machine learning (Dirac canaries).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedgen_jax.algorithms.learning import Learning, learn
from fedgen_jax.algorithms.local import Local
from fedgen_jax.data.examples import Examples
from fedgen_jax.privacy.accounting import Charge, epsilon
from fedgen_jax.privacy.dpsgd import Own, Private
from fedgen_jax.privacy.extra import extra
from fedgen_jax.privacy.units import cap_of
from fedgen_jax.shifts.base import chain

CONFIDENCE = 0.95
ROUND = 64  # steps of a dispatch


class Mechanism(NamedTuple):
    """T private steps: the noise multiplier, the rate q of the sample, and T."""

    sigma: float
    rate: float
    steps: int
    clip: float = 1.0
    multiplicity: int = 1


class Scores(NamedTuple):
    """How much like a member each canary looks: those that took part, and the others."""

    inside: np.ndarray
    outside: np.ndarray


def stated(m: Mechanism, canaries: int, delta: float) -> float:
    """Epsilon of the mechanism on `canaries` patients, as the ledger has it."""
    cap = cap_of(canaries, m.rate)
    plain = Charge('training', 'gaussian', m.sigma, m.clip, m.steps)
    if m.rate < 1:
        plain = plain._replace(
            kind='truncated poisson gaussian', rate=m.rate, size=canaries, cap=cap
        )
    return epsilon([plain], delta)


def play(m: Mechanism, local: Local, canaries: int, seed: int, noise: float = 1.0) -> Scores:
    """Trains weights [canaries] on those canaries that take part.

    local: the run's; its steps, sample, clip and noise are used, and not its model.
    noise: of the stated, that is really added; below 1 in controls.
    """
    rng = np.random.default_rng(seed)
    inside = rng.random(canaries) < 0.5
    private = Private(m.clip, m.rate, lambda path: True, m.multiplicity)
    steps = next(n for n in range(min(ROUND, m.steps), 0, -1) if m.steps % n == 0)
    local = local._replace(
        private=private, plain=chain(), shift=chain(), optimizer=optax.sgd(1.0), steps=steps,
        decay=0.0, prior=False,
    )
    own = Own(
        jnp.arange(canaries, dtype=jnp.int32)[:, None],
        jnp.asarray(inside, jnp.float32)[:, None],
        jnp.float32(canaries),
        jnp.asarray(rng.integers(0, 2**32, 2, dtype=np.uint32)),
        jnp.float32(noise * m.sigma),
    )
    # A canary's label is his number, and his loss is steep in that weight alone.
    data = Examples(
        jnp.zeros((canaries, 1, 1, 3), jnp.uint8), {'label': jnp.arange(canaries)},
        jnp.ones(canaries), own,
    )

    def loss(params, batch, tau, key):
        return -10 * m.clip * params['canary'][batch.target['label'][0]]

    @jax.jit
    def round_(params, key):
        return learn(Learning(local, params, 1.0, loss=loss), data, key).params

    params, key = {'canary': jnp.zeros(canaries)}, jax.random.key(seed)
    for r in range(m.steps // steps):
        params = round_(params, jax.random.fold_in(key, r))
    score = np.asarray(params['canary'], np.float64)
    return Scores(score[inside], score[~inside])


def lower_bound(
    scores: Scores, delta: float, confidence: float = CONFIDENCE, gaussian: bool = True
) -> float:
    """The epsilon below which the scores refute, with this confidence.

    gaussian: of a mechanism whose trade-off between false alarms and misses is a Gaussian's, as
        that of many noisy steps nearly is (Mahloujifar et al. 2024); else of any mechanism
        (Steinke et al. 2023), which is less.
    """
    auditor = extra('jax_privacy.auditing', 'an audit').CanaryScoreAuditor(*scores)
    bound = auditor.epsilon_one_run_fdp if gaussian else auditor.epsilon_one_run
    return float(bound(1 - confidence, delta))
