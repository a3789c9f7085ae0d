"""The canonical input of a private run: its centers' mean moments, each released once, with noise.

What a center's images are moved by enters the gradient of each of its patients.  Were it made from
exact moments, one patient's images would change the gradients of all others, and no clip of his own
gradient would bound that.  So the change is made from a release, towards the moments of drawn
smears, and training and the seen center's own scores use the same one.

    RUN/moments.json   {center: its released mean moments [M]}
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from fedgen_jax.budget import Site, key_of
from fedgen_jax.canonical import moments_of
from fedgen_jax.data.examples import of_split
from fedgen_jax.files import read_json, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.privacy.ledger import Ledger, charge
from fedgen_jax.privacy.release import release
from fedgen_jax.run import Run

FILE = 'moments.json'


def release_moments(
    run: Run,
    workdir: pathlib.Path,
    sites: Sequence[Site],
    ledgers: dict[str, Ledger],
    keys: Mapping[str, bytes],
) -> dict[str, np.ndarray]:
    """Each center's mean moments float32 [M], as the folder has them, or released now.

    ledgers: are changed in place.  keys: the centers' secrets.
    """
    if (workdir / FILE).exists():
        return read_moments(workdir)
    assert run.program.input and run.reference is not None
    radius, found = run.config.privacy.moments_radius, {}
    for site, center in zip(sites, run.seen):
        ledger = ledgers[site.name] = charge(ledgers[site.name], 'moments', 0, 1)
        sigma = {x.name: x for x in ledger.account.plan}['moments'].sigma
        key = key_of(ledger.account, keys[site.name], 'moments', 0, site.data)
        vectors_NxM = moments_of(run.program.input, of_split(center, 'train'))
        made = release(
            vectors_NxM, site.table, run.reference, radius, sigma, key, 'moments', site.unit
        )
        found[site.name] = descriptor.mean(made)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / FILE, {name: m.tolist() for name, m in found.items()})
    return found


def read_moments(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Those that `release_moments` wrote."""
    kept = read_json(workdir / FILE)
    return {name: np.array(m, np.float32) for name, m in kept.items()}
