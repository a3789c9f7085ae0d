"""The centers of a run as parties of its sums under masks (`engine.sums`).

    RUN/identities.json          {center: its public identity}, as server and centers know it
    SECRETS/CENTER/secret.key    a center's secret, outside of all runs (`budget`)

A center's identity is its own in all runs, so that a list of identities can be agreed on without
the server.  A list that lies in a run's folder before it begins is held to, and else it is made as
the run begins, when nobody can tell yet whether a center is who it says.
"""

import pathlib

from fedgen_jax.budget import center_secret
from fedgen_jax.engine.sums import Parties
from fedgen_jax.files import read_json, write_json
from fedgen_jax.privacy.commit import identity
from fedgen_jax.privacy.secrets import stream_key
from fedgen_jax.run import Run

FILE = 'identities.json'
SECRET = "each center's secret, in its own folder"
SIMULATION = 'simulation: identities come from a seed, and whoever knows it can sign as any center'


def parties_of(run: Run, workdir: pathlib.Path) -> Parties | None:
    """Who signs in a run's sums; None: they are taken in the clear.

    The first call of a run writes its list of identities, and later ones hold to it.

    Raises ValueError where a center's secret is lost, or its identity is not the listed one.
    """
    if not run.program.secure:
        return None
    file = workdir / FILE
    known = read_json(file) if file.exists() else {}
    names = [center.name for center in run.seen]
    secrets = {
        i: stream_key(center_secret(run.config, workdir, name, name in known), 'identity')
        for i, name in enumerate(names)
    }
    listed = {name: identity(secrets[i]).hex() for i, name in enumerate(names)}
    check_listed(file, known, listed)
    if not known:
        write_json(file, listed)
    public = {i: bytes.fromhex(listed[name]) for i, name in enumerate(names)}
    return Parties(secrets, public, run.guard and run.guard.shares)


def check_listed(file: pathlib.Path, known: dict[str, str], found: dict[str, str]) -> None:
    """Raises ValueError where a center is not who the list `known` says, or two are one."""
    holder: dict[str, str] = {}
    for name, key in found.items():
        if known and name not in known:
            raise ValueError(f'{file}: {name} is not on the list of identities: nothing is sent')
        if known and known[name] != key:
            raise ValueError(
                f'{file}: {name} signs with another identity than the listed one: bring its '
                'secret back, or agree on a new list in a new run'
            )
        if key in holder:
            raise ValueError(f'{name} and {holder[key]} have one secret: each draws its own')
        holder[key] = name


def told_of_identities(run: Run) -> str:
    """Where the identities of a run come from."""
    return SECRET if run.config.privacy.seed == 'secret' else SIMULATION
