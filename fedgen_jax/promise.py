"""What a private run promises, to whom, and what not: the `privacy` block of `summary.json`."""

import importlib.metadata
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fedgen_jax.engine.sums import Secure
from fedgen_jax.files import read_json, write_json
from fedgen_jax.privacy.accounting import INTERVAL, epsilon_rdp, has_skellam
from fedgen_jax.privacy.ledger import Ledger, block, cost
from fedgen_jax.privacy.secrets import randomness_of
from fedgen_jax.privacy.units import cap_of

NOT_COVERED = (
    'hyper-parameters, and runs and seeds that were tried on the same data: their epsilons add up',
    'scores on validation and test images, in metrics.jsonl and summary.json: those of a held-out '
    'center are of all its images, and stay there when it joins',
    'the weights of a file or package that training starts from: they are taken to be public',
    'how many images a center has (federation.json)',
    'which images train, where the split is drawn: without a patient another may change sides',
    "noise of training: threefry in float32, no vetted generator; a descriptor's noise is exact",
    'what a center does with its own images afterwards, and what a model says of an image',
    'a patient at two centers is a unit at each: his loss is at most the sum of the two',
    'metadata: who takes part, and how long a center computes',
)
# How units come into a step, by the kind of its charge.
SAMPLED = {
    'poisson gaussian': 'poisson', 'truncated poisson gaussian': 'poisson, truncated',
    'gaussian': 'none: all units, each time', 'skellam': 'none: all units, each time',
    'discrete gaussian': 'none: it joined after the training',
}
OF_CLIENTS = ('how many clients of a round were left out for numbers that are not finite',)
TRUST_ITSELF = 'each center trusts itself: all noise is added before anything leaves it'
TRUST_SERVER = 'the server adds the noise, and is trusted to keep what clients send to itself'


TRUST_SHARES = (
    'each center adds a share of the noise under masks: no party is trusted alone, but {} honest '
    'centers have to add theirs (secure.threshold, secure.min_honest, secure.colluding)'
)


AUDITED = (
    'lower_bound', 'lower_bound_of_any', 'confidence', 'canaries', 'stated', 'sixth_of_the_noise',
    'refuted',
)


def note_audit(workdir: pathlib.Path, numbers: Mapping[str, Any]) -> None:
    """Writes what canaries found (`audit.canaries`) to the `privacy` block of `summary.json`.

    They use no image and no weight of the run, so nobody has to pay for it.
    """
    file = workdir / 'summary.json'
    summary = read_json(file)
    summary['privacy']['audit'] = {k: numbers[k] for k in AUDITED}
    write_json(file, summary)


def told(c: ConfigDict, ledgers: Sequence[Ledger], secure: Secure | None = None) -> dict:
    """The `privacy` block of `summary.json`; secure: how sums are taken under masks."""
    p = c.privacy
    worst = max(ledgers, key=cost)
    version = importlib.metadata.version('dp-accounting')
    training = {x.name: x for x in worst.account.plan}.get('training', worst.account.plan[-1])
    drawn = f'{p.public_centers} drawn centers' if p.public else 'drawn weights'
    return block(ledgers, {
        'public': ['n, the number of units of each center', 'rate', 'clip', 'shapes'],
        'accountant': f'Renyi divergences, dp-accounting {version}' if has_skellam(worst.charges)
        else f'PLD, dp-accounting {version}, interval {INTERVAL:g}',
        'epsilon_rdp': epsilon_rdp(worst.charges, worst.account.delta),
        'trust': TRUST_SHARES.format(secure.honest) if secure and secure.noisy
        else TRUST_SERVER if p.unit == 'client' else TRUST_ITSELF,
        'sampling': {
            'kind': SAMPLED[training.kind], 'rate': p.rate,
            'cap': cap_of(max(of.account.units for of in ledgers), p.rate),
        },
        'randomness': randomness_of(c),
        'start': c.start.weights or drawn,
        'not_covered': [*NOT_COVERED, *(OF_CLIENTS if p.unit == 'client' else ())],
    })
