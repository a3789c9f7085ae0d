"""What centers may spend in a run: their units, their accounts, and the noise that follows.

    RUN/privacy/CENTER.jsonl   a center's ledger; in a deployment it lies with the center
    SECRETS/CENTER/secret.key     its secret, outside of all runs
"""

import hashlib
import json
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.canonical import PRESETS
from fedgen_jax.data.examples import SPLITS, Center
from fedgen_jax.engine.sums import Secure
from fedgen_jax.federation import content_of
from fedgen_jax.files import expand, file_name
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.privacy.accounting import Charge, epsilon
from fedgen_jax.privacy.calibrate import calibrate, check_target
from fedgen_jax.privacy.clients import poisson_cohort
from fedgen_jax.privacy.dpsgd import Own
from fedgen_jax.privacy.ledger import Account, Ledger, read_ledger
from fedgen_jax.privacy.release import descriptor_charge
from fedgen_jax.privacy.secrets import (
    FILE,
    check_secret,
    create_secret,
    read_secret,
    simulated_secret,
    stream_key,
)
from fedgen_jax.privacy.shares import Shares, deviation_of, variance_of_share
from fedgen_jax.privacy.units import cap_of, patient_table
from fedgen_jax.registry import look_up
from fedgen_jax.settings import settings_of

CLIENTS = 'clients'  # the one site of a run whose unit is the client
SECRETS = '~/.fedgen_jax/centers'


class Site(NamedTuple):
    """A center as its ledger has it.

    unit:  'patient', or 'image' where that was asked for or no patient of it is known.
    table: (int32 [P, G], float32 [P, G]), the units' images (`units.patient_table`).
    data:  hash of all its data.
    """

    name: str
    unit: str
    table: tuple[np.ndarray, np.ndarray]
    data: str

    @property
    def units(self) -> int:
        """n, which is public."""
        return len(self.table[0])


def site_of(c: ConfigDict, center: Center, split: str | None = 'train') -> Site:
    """A center's site; split: whose images are used, numbered within it; None: all.

    Raises ValueError where the unit is the patient, who is known of some images alone, or of none
    where these are slices of volumes.
    """
    volume = [path.partition('#')[0] for path in center.path]
    known = [unit not in of for unit, *of in zip(center.unit, center.path, volume)]
    alone = len(set(center.unit)) == len(center.unit)
    if c.privacy.unit == 'patient' and not all(known) and (any(known) or not alone):
        raise ValueError(
            f'{center.name}: of {known.count(False)} of its {len(known)} images no patient is '
            'known: fill in the column patient, or promise less: --config.privacy.unit=image'
        )
    unit = 'patient' if c.privacy.unit == 'patient' and all(known) else 'image'
    used = [True] * len(center.unit) if split is None else center.split == SPLITS.index(split)
    names = [name for name, use in zip(center.unit, used) if use]
    if unit == 'image':
        table = patient_table([f'{i}' for i in range(len(names))], 1)
    else:
        table = patient_table(names, c.privacy.images_per_patient)
    return Site(center.name, unit, table, content_of(center))


def sites_of(c: ConfigDict, seen: Sequence[Center]) -> list[Site]:
    """Whose ledgers a run has: each center's; or with the unit client one, of all clients."""
    if c.privacy.unit != 'client':
        return [site_of(c, center) for center in seen]
    number = len(seen) + c.data.virtual
    data = hashlib.sha256('\0'.join(content_of(center) for center in seen).encode())
    table = np.zeros((number, 1), np.int32), np.ones((number, 1), np.float32)
    return [Site(CLIENTS, 'client', table, data.hexdigest()[:16])]


def check_sites(c: ConfigDict, sites: Sequence[Site]) -> None:
    """Raises ValueError for what a unit's data do not allow; nothing is written or spent."""
    p = c.privacy
    check_target(p.epsilon, p.delta, max(s.units for s in sites))
    for s in sites:
        if p.rate * s.units < 1:
            raise ValueError(
                f'{s.name}: {p.rate * s.units:.2g} of its {s.units} {s.unit}s in a step on average '
                f'(privacy.rate={p.rate}): below 1, a step is noise alone'
            )


def training_charge(c: ConfigDict, sigma: float, units: int, largest: int, steps: int) -> Charge:
    """Of all of a run's private steps at a center; largest: the most units of a center."""
    p = c.privacy
    charge = Charge(
        'training', 'poisson gaussian', sigma, p.clip or 1.0, c.rounds * steps, p.rate
    )
    cap = cap_of(largest, p.rate)
    if c.secure.distributed_noise:
        grain = float(deviation_of(sigma, charge.sensitivity, c.secure.bits))
        return charge._replace(kind='skellam', grain=grain)
    if p.rate == 1:
        return charge._replace(kind='gaussian')
    if cap < units:
        return charge._replace(kind='truncated poisson gaussian', size=units, cap=cap)
    return charge


def descriptor_charges(c: ConfigDict, sigma: float, size: int) -> tuple[Charge, ...]:
    """Of a center's descriptor of `size` numbers; none of 0."""
    if not size:
        return ()
    p = c.privacy
    releases = 1 + p.updates
    return (descriptor_charge(p.descriptor_noise * sigma, p.descriptor_radius, size, releases),)


def moments_charges(c: ConfigDict, sigma: float) -> tuple[Charge, ...]:
    """Of a center's moments, of a run with canonical input; none without one."""
    p = c.privacy
    if c.input.canonical == 'none' or p.unit == 'client':
        return ()
    made = descriptor_charge(p.moments_noise * sigma, p.moments_radius, moments_size(c))
    return (made._replace(name='moments'),)


def moments_size(c: ConfigDict) -> int:
    """M, the moments of an image."""
    of = look_up('input.canonical', c.input.canonical, PRESETS)(c.input.area).moments
    image = jax.ShapeDtypeStruct((c.data.image_size, c.data.image_size, 3), np.float32)
    return jax.eval_shape(of, image).shape[0]


def plans_of(
    c: ConfigDict, sigma: float, sites: Sequence[Site], size: int, steps: int
) -> dict[str, tuple[Charge, ...]]:
    """All that each center may release in a run.

    size:  E of a descriptor that is released, else 0.  steps: private steps of a round.
    """
    largest = max(s.units for s in sites)
    return {
        s.name: (
            *moments_charges(c, sigma),
            *descriptor_charges(c, sigma, size),
            training_charge(c, sigma, s.units, largest, steps),
        ) for s in sites
    }


def sigma_of(c: ConfigDict, sites: Sequence[Site], size: int, steps: int) -> float:
    """The noise multiplier of training at which no center spends more than epsilon."""
    p = c.privacy

    def plain(sigma):
        # No center has more than room for its sample here, so that the event is a quick one.
        training = training_charge(c, sigma, 0, 1, steps)
        return (*moments_charges(c, sigma), *descriptor_charges(c, sigma, size), training)

    def worst(sigma):
        plans = set(plans_of(c, sigma, sites, size, steps).values())
        return max(epsilon(plan, p.delta) for plan in plans)

    sigma = calibrate(plain, p.epsilon, p.delta)
    while worst(sigma) > p.epsilon:  # truncated sampling costs a little more
        sigma *= 1.002
    return sigma


def account_of(
    c: ConfigDict, site: Site, secret: bytes, plan: tuple[Charge, ...], start: str,
    devices: int = 0,
) -> Account:
    """A center's account in a run; start: hash of the weights that it starts from.

    devices: that rounds are spread over; 0 of what is no round.
    """
    p = c.privacy
    kind = jax.devices()[0].device_kind
    device = f'{kind}, client_map={c.client_map}, jax={jax.__version__}'
    nonce = secrets.token_hex(16) if p.seed == 'secret' else ''
    return Account(
        run_of(c), site.name, data_of(site, secret), name_of(secret), device, site.unit,
        site.units, p.epsilon, p.delta, plan, start=start, nonce=nonce,
        devices=devices,
    )


def name_of(secret: bytes) -> str:
    """A hash of a secret, which stands for it in a ledger."""
    return stream_key(secret, 'name').hex()[:16]


def data_of(site: Site, secret: bytes) -> str:
    """A hash of a center's data by which nobody else can tell whether an image is among them."""
    return stream_key(secret, 'data', site.data).hex()[:16]


def known_secret(c: ConfigDict, workdir: pathlib.Path, name: str) -> bytes | None:
    """A center's secret, where it lies here."""
    if c.privacy.seed == 'secret' and not (_secrets(c, name) / FILE).exists():
        return None
    return center_secret(c, workdir, name, True)


def ledgers_in(workdir: pathlib.Path) -> dict[str, Ledger]:
    """All ledgers of a run's folder: those of centers that joined or left too."""
    found = map(read_ledger, sorted((workdir / 'privacy').glob('*.jsonl')))
    return {of.account.center: of for of in found}


def own_of(
    sites: Sequence[Site],
    sigma: float,
    training: Mapping[str, bytes],
    released: Mapping[str, Statistic] | None,
) -> Own:
    """What centers' private steps need, [C, ...], padded to one shape.

    training: each center's key.  released: its descriptor; None where none is used.
    """
    rows, columns = (max(s.table[0].shape[axis] for s in sites) for axis in (0, 1))

    def grown(x):
        return np.pad(x, ((0, rows - x.shape[0]), (0, columns - x.shape[1])))

    return Own(
        np.stack([grown(s.table[0]) for s in sites]),
        np.stack([grown(s.table[1]) for s in sites]),
        np.array([s.units for s in sites], np.float32),
        np.stack([np.frombuffer(training[s.name][:8], np.uint32) for s in sites]),
        np.full(len(sites), sigma, np.float32),
        () if released is None else np.stack([descriptor.mean(released[s.name]) for s in sites]),
    )


def run_of(c: ConfigDict) -> str:
    """A hash of all that decides what noise is added to, but for the number of rounds."""
    settings = settings_of(c)
    del settings['rounds']
    # What leaves no trace in what a center releases.
    for field in ('method', 'eval_every', 'checkpoint_every', 'score_on', 'max_left_out'):
        del settings[field]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def key_of(account: Account, secret: bytes, *release: str | int) -> bytes:
    """The key of a release's noise, which no other run, data or release has."""
    return stream_key(secret, account.nonce, account.run, account.data, account.start, *release)


def ledger_file(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """A center's ledger."""
    return workdir / 'privacy' / f'{file_name(name)}.jsonl'


def secret_of(c: ConfigDict, workdir: pathlib.Path, name: str, new: bool = False) -> bytes:
    """A center's secret; it is drawn before its first ledger, and never again.

    new: whether the center may have joined after the run began.

    Raises ValueError where it is lost, or where a run has begun and its ledger is.
    """
    if not new and (workdir / 'config.json').exists() and not ledger_file(workdir, name).exists():
        raise ValueError(
            f'{ledger_file(workdir, name)}: the ledger is missing: bring it back from a copy'
        )
    return center_secret(c, workdir, name, ledger_file(workdir, name).exists())


def center_secret(c: ConfigDict, workdir: pathlib.Path, name: str, used: bool) -> bytes:
    """A center's secret, from its own folder, or drawn there; of simulations from their seed.

    used: whether it was used in this run before, so that it must be there.

    Raises ValueError where it is lost.
    """
    if c.privacy.seed != 'secret':
        return simulated_secret(int(c.privacy.seed), name)
    folder = _secrets(c, name)
    if used or (folder / FILE).exists():
        return read_secret(folder, workdir)
    return create_secret(folder, workdir)


def _secrets(c, name):
    return expand(c.privacy.secrets or SECRETS) / file_name(name)


def check_secrets(c: ConfigDict, workdir: pathlib.Path, names: Sequence[str]) -> None:
    """Raises ValueError where a center's secret could not be used; none is drawn."""
    if c.privacy.seed != 'secret':
        return
    one = c.privacy.unit == 'client'  # ledger, and secret too unless each adds its share
    for name in [CLIENTS] if one and not c.secure.distributed_noise else names:
        ledger = ledger_file(workdir, CLIENTS if one else name)
        check_secret(_secrets(c, name), workdir, ledger.exists())


def secrets_of_shares(
    c: ConfigDict, workdir: pathlib.Path, names: Sequence[str]
) -> list[bytes]:
    """The centers' secrets, where each adds a share of a sum's noise; else none."""
    if not c.secure.distributed_noise:
        return []
    used = ledger_file(workdir, CLIENTS).exists()
    return [center_secret(c, workdir, name, used) for name in names]


def together(secrets: Sequence[bytes]) -> bytes:
    """What the one ledger of all clients knows their secrets by."""
    return hashlib.sha256(b''.join(secrets)).digest()


def cohort_of(account: Account, secret: bytes, rate: float, round_: int) -> np.ndarray:
    """The numbers of a round's clients, which only the server can draw."""
    key = key_of(account, secret, 'cohort', round_)
    return poisson_cohort(key, account.units, rate, cap_of(account.units, rate))


def shares_of(
    c: ConfigDict, secure: Secure | None, sigma: float, account: Account, secrets: Sequence[bytes]
) -> Shares:
    """How centers add noise to a run's sums; secrets: of each center, by number."""
    def key(number, round_, model):
        return stream_key(key_of(account, secrets[number], 'share', round_), model)

    return Shares(c.privacy.clip or 1.0, share_variance(c, secure, sigma), key)


def share_variance(c: ConfigDict, secure: Secure | None, sigma: float) -> int:
    """`privacy.shares.variance_of_share` of a configuration."""
    assert secure  # the settings are refused without it
    clip = c.privacy.clip or 1.0
    return variance_of_share(sigma, clip, secure.honest, secure.bits, secure.word, secure.own)
