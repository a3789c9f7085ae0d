"""What stands around a private run on the host: it pays, releases, and tells.

The phases of a run whose unit is a patient or an image:

    0  public start: weights from drawn centers (`RUN/public`), or from `start.weights`; no cost.
    1  release: each center's descriptor once, with noise of its own, under the public psi.
    2  training: private steps at each center (`privacy.dpsgd`), on what `privacy.trainable` names,
       with the released descriptor.
"""

import functools
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.budget import (
    Site,
    account_of,
    check_sites,
    cohort_of,
    data_of,
    key_of,
    known_secret,
    ledger_file,
    ledgers_in,
    name_of,
    own_of,
    plans_of,
    secret_of,
    secrets_of_shares,
    share_variance,
    shares_of,
    sigma_of,
    site_of,
    sites_of,
    together,
)
from fedgen_jax.canonical import change_from, on_canonical
from fedgen_jax.data.check import say
from fedgen_jax.data.examples import Center, of_split
from fedgen_jax.engine.rounds import init_private
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.hypernet.generator import Normal
from fedgen_jax.moments import read_moments, release_moments
from fedgen_jax.named import make_model
from fedgen_jax.privacy.calibrate import check_target
from fedgen_jax.privacy.clients import begin, check_adaptive
from fedgen_jax.privacy.dpsgd import Own
from fedgen_jax.privacy.ledger import (
    Ledger,
    charge,
    check_paid,
    open_ledger,
    other_owner,
    read_ledger,
    spent,
)
from fedgen_jax.privacy.release import release
from fedgen_jax.privacy.secrets import randomness_of
from fedgen_jax.privacy.settings import CONSTANT
from fedgen_jax.privacy.shares import Shares
from fedgen_jax.program import Program
from fedgen_jax.public import check_public, mean_descriptor
from fedgen_jax.run import Restored, Run, client_ids
from fedgen_jax.start import content_of
from fedgen_jax.statistics import Statistics, history, read_statistics, write_statistics

STARTED = ('theta', 'phi', 'psi', 'normal')  # entries of `shared` that the public run gives


class Guard(NamedTuple):
    """A run's privacy; `ledgers` is changed in place as charges are paid.

    steps:    releases of a round: private steps at each center, or the one sum.
    start:    entries of the server's state that training begins with.
    own_C:    each center's `privacy.dpsgd.Own`, stacked.
    released: each center's released statistic; None where no descriptor is used, {} where none
              is ever released (clients).
    moments:  each center's released mean moments, of a run with canonical input; None without.
    cohort:   with the unit client, round -> the numbers of its clients.
    noise:    with it, sigma, q n, and the server's key.
    shares:   how centers add the noise in its place, whose sigma is 0 then.
    others:   ledgers of centers that joined after the training.
    """

    ledgers: dict[str, Ledger]
    steps: int
    start: dict[str, Any]
    own_C: Own | None
    released: dict[str, Statistic] | None
    moments: dict[str, np.ndarray] | None = None
    cohort: Callable[[int], np.ndarray] | None = None
    noise: tuple[float, float, bytes] | None = None
    shares: Shares | None = None
    others: tuple[Ledger, ...] = ()


def check(run: Run) -> None:
    """Raises ValueError for a private run that cannot be; nothing is written or spent."""
    if not run.config.privacy.unit:
        return
    if jax.process_count() > 1:
        raise ValueError('privacy.unit: many processes are not supported: run one')
    c, sites = run.config, sites_of(run.config, run.seen)
    check_sites(c, sites)
    units = {s.unit: s.name for s in sites}
    if len(units) > 1 and (_size(c, run.program, run.key) or run.program.input):
        raise ValueError(
            f'of {units["image"]} no patient is known, and of {units["patient"]} all are: what is '
            'released of them does not add: fill in the column patient, or pass '
            '--config.privacy.unit=image'
        )
    if c.privacy.unit != 'client' and c.statistics not in CONSTANT and _has_statistics(run):
        raise ValueError(
            f'privacy.unit={c.privacy.unit!r} with model.name={c.model.name!r}: it has statistics '
            'of a batch, which mix its patients: --config.model.norm=group, or '
            '--config.statistics=frozen'
        )
    check_public(c)
    if c.secure.distributed_noise:
        share_variance(c, run.program.secure, sigma_of(c, sites, 0, 1))
    if c.privacy.adaptive:
        check_adaptive(sigma_of(c, sites, 0, 1), c.privacy.rate * sites[0].units)


def noise_of(run: Run) -> float:
    """The noise multiplier of training.  Raises ValueError where none keeps what is promised."""
    c, size = run.config, _size(run.config, run.program, run.key)
    return sigma_of(c, sites_of(c, run.seen), size, _steps(c, run.program))


def protect(run: Run, workdir: pathlib.Path, public: pathlib.Path | None, sigma: float) -> Run:
    """The run with its guard: keys and ledgers at hand, descriptors released.

    public: the folder of the public run that weights come from, if any.  sigma: of `noise_of`.
    """
    c = run.config
    sites = sites_of(c, run.seen)
    size, steps = _size(c, run.program, run.key), _steps(c, run.program)
    plans = plans_of(c, sigma, sites, size, steps)
    held = secrets_of_shares(c, workdir, [center.name for center in run.seen])
    keys = {s.name: together(held) if held else secret_of(c, workdir, s.name) for s in sites}
    start = start_of(public) if public else {}
    from_ = descriptor.hash_of(start) if public else content_of(c.start.weights)
    accounts = [
        account_of(c, s, keys[s.name], plans[s.name], from_, run.program.mesh.size) for s in sites
    ]
    ledgers = {a.center: open_ledger(ledger_file(workdir, a.center), a) for a in accounts}
    units = {s.unit for s in sites}
    say(f'unit {" and ".join(sorted(units))}; sigma {sigma:.4g} for epsilon {c.privacy.epsilon:g} '
        f'at delta {c.privacy.delta:g}; randomness: {randomness_of(c)}')
    told = read_statistics(public).own.keys() & {s.name for s in sites} if (
        public and (public / 'statistics' / 'pooled.json').is_file()
    ) else ()
    if told:
        say(f'note: {public}/statistics are exact ones of {", ".join(sorted(told))}: whoever reads '
            'them too takes the noise of the descriptors off: keep them from the server')
    if c.privacy.unit == 'client':
        (site,), (ledger,), (secret,) = sites, ledgers.values(), keys.values()
        noise = sigma, c.privacy.rate * site.units, key_of(ledger.account, secret, 'noise')
        cohort = functools.partial(cohort_of, ledger.account, secret, c.privacy.rate)
        made = Guard(ledgers, steps, start, None, {}, None, cohort, noise)
        if held:
            shares = shares_of(c, run.program.secure, sigma, ledger.account, held)
            made = made._replace(noise=(0.0, *noise[1:]), shares=shares)
        return run._replace(guard=made)
    moments = release_moments(run, workdir, sites, ledgers, keys) if run.program.input else None
    released = None
    if size:
        first = run.program.algorithm.init(run.key).shared
        psi_of = {'psi': start.get('psi', first['psi'])}
        released = _release_all(run, workdir, sites, ledgers, keys, psi_of, moments)
        m_CxE = np.stack([descriptor.mean(s) for s in released.values()])
        start['pooled'] = descriptor.mean(descriptor.pool(released.values()))
        start.setdefault('normal', Normal(m_CxE.mean(0), m_CxE.var(0) + np.float32(1e-6)))
    training = {n: key_of(ledgers[n].account, keys[n], 'training') for n in keys}
    own_C = own_of(sites, sigma, training, released)
    return run._replace(guard=Guard(ledgers, steps, start, own_C, released, moments))


def reopened(run: Run, workdir: pathlib.Path, rounds: int) -> Run:
    """A private run of so many rounds: its released statistics, and nothing to draw from.

    Raises ValueError where its ledgers are of other centers, or hold less than was released.
    """
    c = run.config
    if not c.privacy.unit:
        return run
    sites = sites_of(c, run.seen)
    ledgers = {s.name: read_ledger(ledger_file(workdir, s.name)) for s in sites}
    if c.privacy.unit == 'client':
        run = checked(run._replace(guard=Guard(ledgers, 1, {}, None, {})), workdir, rounds)
        _warn_of_other_data(c, workdir, sites, ledgers)
        return run
    released = None
    if _size(c, run.program, run.key):
        kept = read_statistics(workdir)
        # Whoever left has no descriptor here any more, and none is made anew: a mean center's.
        released = {s.name: kept.own.get(s.name, kept.pooled) for s in sites}
        if left := [s.name for s in sites if s.name not in kept.own]:
            say(f'note: {", ".join(left)} left: scored by the mean of the other descriptors')
    own_C = own_of(sites, 0.0, {s.name: bytes(32) for s in sites}, released)
    moments = read_moments(workdir) if run.program.input else None
    guard = Guard(ledgers, _steps(c, run.program), {}, own_C, released, moments)
    run = checked(run._replace(guard=guard), workdir, rounds)
    _warn_of_other_data(c, workdir, sites, ledgers)
    return run


def checked(run: Run, workdir: pathlib.Path, rounds: int) -> Run:
    """The run and all its ledgers, if they hold what was released; else a ValueError."""
    guard = run.guard
    there = read_statistics(workdir).own if guard.released else {}
    for name, ledger in guard.ledgers.items():
        if ledger.account.center != name and run.config.privacy.unit != 'client':
            raise ValueError(f'{ledger.file}: of {ledger.account.center!r}, and not of {name!r}')
        check_paid(ledger, 'training', rounds * guard.steps)
        if name in there:
            check_paid(ledger, 'descriptor', 1)
        if guard.moments:
            check_paid(ledger, 'moments', 1)
    joined = {name: of for name, of in ledgers_in(workdir).items() if name not in guard.ledgers}
    for name in there.keys() - guard.ledgers.keys():  # who joined has released a descriptor
        check_paid(joined.get(name) or read_ledger(ledger_file(workdir, name)), 'descriptor', 1)
    return run._replace(guard=guard._replace(others=tuple(joined.values())))


def _warn_of_other_data(c, workdir, sites, ledgers):
    """Where the centers' secrets lie here too; nobody else can compare."""
    for s in sites:
        secret, was = known_secret(c, workdir, s.name), ledgers[s.name].account
        if secret and name_of(secret) == was.secret and data_of(s, secret) != was.data:
            warnings.warn(f'{s.name}: other data than the run had: these are scored', stacklevel=3)


def begun(run: Run, state: Any, start: Mapping[str, Any]) -> tuple[Any, Any]:
    """The first state with the entries of `start`, and the private states that follow from it."""
    program, shared = run.program, dict(state.shared)
    for name, value in start.items():
        place = 'first' if name == 'theta' and 'first' in shared else name
        if place in shared:
            shared[place] = _like(shared[place], value, name)
    state = state._replace(shared=shared)
    id_C = client_ids(len(run.seen), program)
    return state, init_private(program.algorithm, program.mesh, state, id_C)


def armed(run: Run, state: Any) -> Any:
    """The state with the server's noise, of a run whose unit is the client."""
    if not (run.guard and run.guard.noise):
        return state
    state = state._replace(protection=(begin(state.protection[0], *run.guard.noise),))
    return jax.device_put(state, NamedSharding(run.program.mesh, PartitionSpec()))


def disarmed(run: Run, state: Any) -> Any:
    """The state as it is saved: without the key of its noise, which no checkpoint may hold."""
    if not (run.guard and run.guard.noise):
        return state
    blank = jax.tree.map(jnp.zeros_like, state.protection[0]['secret'])
    return state._replace(protection=({**state.protection[0], 'secret': blank},))


def pay(guard: Guard, first: int, last: int) -> None:
    """Charges rounds first .. last - 1 at every center, before they are computed."""
    count = (last - first) * guard.steps
    for name, ledger in guard.ledgers.items():
        guard.ledgers[name] = charge(ledger, 'training', first * guard.steps, count)


def released_statistic(
    c: ConfigDict,
    program: Program,
    site: Site,
    image_NxHxWx3: np.ndarray,
    shared: Mapping[str, Any],
    key: bytes,
    sigma: float,
) -> Statistic:
    """A center's statistic as it leaves; its ledger has been charged for it."""
    assert program.describe
    vectors = program.describe(shared, np.asarray(image_NxHxWx3))
    center_E = mean_descriptor(c, program, shared)
    psi = descriptor.hash_of(jax.device_get(shared['psi']))
    radius = c.privacy.descriptor_radius
    return release(vectors, site.table, center_E, radius, sigma, key, psi, site.unit)


def release_anew(workdir: pathlib.Path, done: Restored, center: Center) -> Statistic:
    """The released statistic of a center that joins, or whose data changed; charged before.

    It is of all the center's images, under the noise multiplier of the run.  A center that joined
    and has not changed (its onboarding was cut short) releases the same numbers, at no cost; any
    other release counts among `privacy.updates`.

    Raises ValueError, and spends nothing, where these are spent.
    """
    c, shared = done.config, done.state.shared
    if done.program.input:
        raise ValueError(
            f'{workdir}: private, with canonical input: a center that joins or changes would '
            'release its moments too, which no ledger has planned'
        )
    site, file = site_of(c, center, split=None), ledger_file(workdir, center.name)
    check_target(c.privacy.epsilon, c.privacy.delta, site.units)
    changed = (name for line in history(workdir) for name in line['centers'])  # who left too
    known = {*done.seen, *read_statistics(workdir).own, *changed}
    seen = read_ledger(ledger_file(workdir, done.seen[0])).account
    if site.unit != seen.unit:
        raise ValueError(
            f'{center.name}: the unit of its privacy would be the {site.unit}, and that of the run '
            f'is the {seen.unit}, whose statistics do not add: fill in patients as they do'
        )
    secret = secret_of(c, workdir, center.name, new=center.name not in known)
    planned = tuple(x for x in seen.plan if x.name == 'descriptor')
    account = account_of(c, site, secret, planned, seen.start)
    ledger = read_ledger(file) if file.exists() else open_ledger(file, account)
    if reason := other_owner(ledger.account, account):
        raise ValueError(f'{file}: {reason}')
    number, joined = spent(ledger, 'descriptor'), len(ledger.account.plan) == 1
    if joined and number == 1 and account.data == ledger.account.data:
        number = 0
    ledger = charge(ledger, 'descriptor', number, 1)
    key = key_of(ledger.account, secret, 'descriptor', number, site.data)
    sigma = ledger.account.plan[0].sigma
    return released_statistic(c, done.program, site, center.examples.image, shared, key, sigma)


def _release_all(run, workdir, sites, ledgers, keys, shared, moments) -> dict[str, Statistic]:
    """Each center's descriptor, released once: as the folder has it, or now."""
    if (workdir / 'statistics' / 'pooled.json').exists():
        kept = read_statistics(workdir)
        psi = descriptor.hash_of(jax.device_get(shared['psi']))
        if kept.pooled.psi != psi:
            raise ValueError(f'{workdir}/statistics: of another descriptor network than {psi}')
        if left := [s.name for s in sites if s.name not in kept.own]:
            raise ValueError(
                f'{workdir}: {", ".join(left)} left the federation, so that it trains no further: '
                'launch.evaluate scores it'
            )
        return {s.name: kept.own[s.name] for s in sites}
    made = {}
    for site, center in zip(sites, run.seen):
        ledger = ledgers[site.name] = charge(ledgers[site.name], 'descriptor', 0, 1)
        sigma = {x.name: x for x in ledger.account.plan}['descriptor'].sigma
        key = key_of(ledger.account, keys[site.name], 'descriptor', 0, site.data)
        own, seen_by = of_split(center, 'train'), run.program.input
        if moments:
            change = change_from(seen_by, run.reference, moments[site.name])
            own = on_canonical(seen_by, change, own)
        made[site.name] = released_statistic(
            run.config, run.program, site, own.image, shared, key, sigma
        )
    write_statistics(workdir, Statistics(made, descriptor.pool(made.values())))
    return made


def _steps(c: ConfigDict, program: Program) -> int:
    """Releases of a round: private steps, those of base and generator apart; or one sum."""
    both = c.algorithm == 'fedgen' and program.base and c.fedgen.phase == 'with'
    return c.local_steps * (2 if both else 1) if c.privacy.unit != 'client' else 1


def _size(c: ConfigDict, program: Program, key: jax.Array) -> int:
    """E of the descriptor that a center releases; 0: none."""
    if program.describe is None or c.privacy.unit == 'client':
        return 0
    return jax.eval_shape(program.algorithm.init, key).shared['pooled'].shape[0]


def start_of(folder: pathlib.Path) -> dict[str, Any]:
    """Entries of `shared` that another run starts from, of the folder of a finished one."""
    shared = checkpoint.server_shared(folder)
    return {name: shared[name] for name in STARTED if name in shared}


def _has_statistics(run: Run) -> bool:
    """Whether the network has statistics of a batch."""
    model = make_model(run.config, run.program.task)
    x_1xHxWx3 = jax.ShapeDtypeStruct((1, *[run.config.data.image_size] * 2, 3), jnp.float32)
    return bool(jax.eval_shape(model.init, jax.random.key(0), x_1xHxWx3).get('batch_stats'))


def _like(like: Any, found: Any, name: str) -> Any:
    """`found` in the structure, types and places of `like`."""
    leaves, old = jax.tree.leaves(found), jax.tree.leaves(like)
    if [np.shape(x) for x in leaves] != [x.shape for x in old]:
        raise ValueError(f'{name}: has other shapes in the public run than here')
    placed = [jax.device_put(jnp.asarray(x, y.dtype), y.sharding) for x, y in zip(leaves, old)]
    return jax.tree.unflatten(jax.tree.structure(like), placed)
