"""What a center has spent: a file that is written before anything is released.

    line 1      the account: whose data, under which run, what it may spend (`Account`)
    line 2 ...  a charge each (`accounting.Charge`)

A charge is on disk before what it pays for is computed, so that a run which is killed in between
has spent it.  Releases are numbered, and one whose number stands in the ledger is not charged
twice: its noise comes from the center's secret, so a run that resumes releases the same numbers.
"""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from fedgen_jax.privacy.accounting import Charge, check_charge, epsilon

FORM = 2  # of the file
WEAKEST = ('image', 'patient', 'client')  # units, by what is promised to a person


class Account(NamedTuple):
    """What a ledger is of.  All of it is public but for the data, of which a hash stands here.

    run:    hash of the run's settings.
    data:   hash of the center's data, which nobody without its secret can make.
    secret: hash of the secret that noise is drawn from.
    device: what computes, and under which JAX: another one rounds otherwise, and the same noise
            under other rounding would be another release.
    unit:   'patient', 'image' or 'client'; units: how many there are.
    target: the epsilon at `delta` that `plan`, all that the run may release, was made for.
    devices: over how many the clients of a round are spread; 0: nobody told.  The sum of another
            number rounds otherwise, and is what the next round's gradients are taken at.
    start:  hash of the weights that the run starts from: noise under others would be met twice.
    nonce:  of the ledger; keys of noise are derived for it too, so that a second run of the same
            settings, perhaps by other code, never meets the noise of the first.
    """

    run: str
    center: str
    data: str
    secret: str
    device: str
    unit: str
    units: int
    target: float
    delta: float
    plan: tuple[Charge, ...]
    relation: str = 'zero-out'
    start: str = ''
    nonce: str = ''
    devices: int = 0


class Ledger(NamedTuple):
    """An open ledger, as the file has it; `before`: charges that were there when it was opened."""

    file: pathlib.Path
    account: Account
    charges: tuple[Charge, ...] = ()
    before: int = 0


def open_ledger(file: pathlib.Path, account: Account) -> Ledger:
    """Begins a ledger, or goes on with the one that is there.

    The nonce of one that is there stays.

    Raises ValueError where the plan costs more than its target, or the file is of another run,
    other data, another secret or device, or of a plan that released less.
    """
    check_plan(account)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _append(file, {'form': FORM, **account._asdict()})
        return Ledger(file, account)
    found = read_ledger(file)
    if reason := refusal(found.account, account):
        raise ValueError(f'{file}: {reason}')
    return found


def read_ledger(file: pathlib.Path) -> Ledger:
    """A ledger from its file; a last line that was cut short was never paid for, and is dropped.

    One that lacks nothing but its end is kept: what it pays for may have been released.

    Raises ValueError where the file is missing or damaged.
    """
    if not file.is_file():
        raise ValueError(f'{file}: the ledger is missing: bring it back from a copy')
    text = file.read_text()
    whole = text[: text.rfind('\n') + 1]
    if whole != text and _is_json(text[len(whole) :]):
        whole = text + '\n'
        with open(file, 'a') as out:
            out.write('\n')
            os.fsync(out.fileno())
    elif whole != text:
        with open(file, 'r+') as out:
            out.truncate(len(whole.encode()))
            os.fsync(out.fileno())
    try:
        first, *rest = (json.loads(line) for line in whole.splitlines())
        if (form := first.pop('form')) != FORM:
            raise ValueError(f'form {form}, now {FORM}')
        plan = tuple(Charge(*c) for c in first.pop('plan'))
        account = Account(**first, plan=plan)
        charges = tuple(Charge(**line) for line in rest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{file}: damaged, or of an older version ({type(error).__name__}: {error}), and no '
            'release is possible without it'
        ) from error
    _check_lines(file, account, charges)
    return Ledger(file, account, charges, len(charges))


def _check_lines(file, account: Account, charges: tuple[Charge, ...]) -> None:
    """Raises ValueError where a charge is not of the plan, or one before it is missing."""
    planned, number = {c.name: c for c in account.plan}, dict[str, int]()
    for c in charges:
        if c.name not in planned or c != planned[c.name]._replace(first=c.first, count=c.count):
            raise ValueError(
                f'{file}: {c.name}, release {c.first}: another charge than was planned: the file '
                'was changed: bring it back from a copy'
            )
        if c.first != number.get(c.name, 0):
            raise ValueError(
                f'{file}: {c.name}: release {number.get(c.name, 0)} was never charged, and '
                f'{c.first} was: lines are missing: bring the file back from a copy'
            )
        number[c.name] = c.first + c.count


def other_owner(was: Account, now: Account) -> str:
    """Why a ledger cannot be of a center in a run, whatever its data are now; '' if it can."""
    same = {
        'center': 'of another center', 'run': 'of another run',
        'secret': 'noise came from another secret than the one that is here now',
        'start': 'of a run that started from other weights',
        'device': 'noise was added by another device or JAX, which may round otherwise: go on '
                  'where it was',
        'unit': 'of another unit', 'relation': 'of another relation',
    }
    now = now._replace(device=_told_by(was.device, now.device))
    for field, text in same.items():
        if getattr(was, field) != getattr(now, field):
            return f'{text} ({getattr(was, field)}, now {getattr(now, field)})'
    return ''


def _told_by(was: str, now: str) -> str:
    """A device in words, without those `field=value` that an older ledger did not tell."""
    fields = {part.partition('=')[0] for part in was.split(', ')}
    parts = now.split(', ')
    return ', '.join(x for x in parts if '=' not in x or x.partition('=')[0] in fields)


def refusal(was: Account, now: Account) -> str:
    """Why an account cannot go on as another, in a line; '' if it can."""
    if found := other_owner(was, now):
        return found
    for field, text in (('data', 'of other data'), ('units', 'of other units')):
        if getattr(was, field) != getattr(now, field):
            return f'{text} ({getattr(was, field)}, now {getattr(now, field)})'
    if was.devices and now.devices and was.devices != now.devices:
        return (
            f'its rounds were summed over {was.devices} devices, now {now.devices}, which round '
            f'otherwise: pass --config.devices={was.devices}'
        )
    before = {c.name: c for c in was.plan}
    for c in now.plan:
        if c.name not in before:
            return f'{c.name}: was not planned, so nothing was calibrated for it'
    pairs = [(c, before[c.name]) for c in now.plan]
    for worse, text in (
        (lambda c, old: c.count > old.count, '{0.count} releases, and {1.count} were calibrated'),
        (lambda c, old: c.rate > old.rate,
         'samples {0.rate} of the units, and {1.rate} were calibrated'),
        (lambda c, old: c.sigma < old.sigma, 'sigma {0.sigma:.4g}, and {1.sigma:.4g} was'),
        (lambda c, old: c != old, 'another release than was calibrated'),
    ):
        for c, old in pairs:
            if worse(c, old):
                said = text.format(c, old)
                return f'{c.name}: {said}: start a new run, whose releases add to these'
    if was.target != now.target or was.delta != now.delta:
        return f'epsilon {was.target} at delta {was.delta}, now {now.target} at {now.delta}'
    return ''


def check_plan(account: Account) -> None:
    """Raises ValueError where what is planned costs more than it may."""
    for c in account.plan:
        check_charge(c)
    if len({c.name for c in account.plan}) < len(account.plan):
        raise ValueError('a ledger\'s plan names each kind of release once')
    cost = epsilon(account.plan, account.delta, account.relation)
    if cost > account.target * (1 + 1e-6):
        raise ValueError(
            f'{account.center}: what is planned costs epsilon {cost:.4g}, above {account.target}'
        )


def spent(ledger: Ledger, name: str) -> int:
    """How many releases of a name have been charged."""
    return max((c.first + c.count for c in ledger.charges if c.name == name), default=0)


def charge(ledger: Ledger, name: str, first: int, count: int) -> Ledger:
    """Pays for releases first .. first + count - 1 of a name, before they are computed.

    Those that stand in the ledger are not paid again.  Raises ValueError, and pays nothing, where
    the plan does not hold them.
    """
    planned = {c.name: c for c in ledger.account.plan}.get(name)
    if planned is None:
        raise ValueError(f'{ledger.file}: {name}: not planned, so nothing was calibrated for it')
    if count < 1 or first < 0:
        raise ValueError(f'{name}: count={count}: a charge is of at least 1 release')
    if first + count > planned.count:
        raise ValueError(
            f'{ledger.file}: {name}: {first + count} releases, and {planned.count} were calibrated '
            f'for epsilon {ledger.account.target}: nothing more is released'
        )
    begin = max(first, spent(ledger, name))
    if begin > spent(ledger, name):
        raise ValueError(f'{ledger.file}: {name}: release {spent(ledger, name)} was never charged')
    if first + count <= begin:
        return ledger
    new = planned._replace(first=begin, count=first + count - begin)
    _append(ledger.file, new._asdict())
    return ledger._replace(charges=(*ledger.charges, new))


def check_paid(ledger: Ledger, name: str, releases: int) -> None:
    """Raises ValueError where fewer releases were charged than there are."""
    if spent(ledger, name) < releases:
        raise ValueError(
            f'{ledger.file}: {name}: {spent(ledger, name)} releases were charged, and the run has '
            f'{releases}: lines are missing: bring the file back from a copy'
        )


def cost(ledger: Ledger) -> float:
    """Epsilon of all that has been charged."""
    return epsilon(ledger.charges, ledger.account.delta, ledger.account.relation)


def _is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _append(file: pathlib.Path, line: dict) -> None:
    """On disk when this returns."""
    text = json.dumps(line) + '\n'
    with open(file, 'a') as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    if os.name == 'posix':  # the name of a new file lies in its folder
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def block(ledgers: Iterable[Ledger], more: dict) -> dict:
    """The `privacy` block of `summary.json`.

    Centers have units of their own, so the run's epsilon is that of the center that spent most.
    A charge has what it costs alone, and what all others cost without it.

    more: fields that the ledgers do not know.
    """
    ledgers = tuple(ledgers)
    by_center = {
        of.account.center: {
            'unit': of.account.unit, 'units': of.account.units, 'epsilon': cost(of)
        } for of in ledgers
    }
    worst = max(ledgers, key=cost)
    account = worst.account

    def price(charges):
        return epsilon(charges, account.delta, account.relation)

    told = []
    for planned in account.plan:
        own = [c for c in worst.charges if c.name == planned.name]
        if own:
            others = [c for c in worst.charges if c.name != planned.name]
            told.append({
                'name': planned.name, 'kind': planned.kind, 'sigma': planned.sigma,
                'sensitivity': planned.sensitivity, 'count': sum(c.count for c in own),
                'epsilon_alone': price(own), 'epsilon_without': price(others),
            })
    return {
        'unit': min((of.account.unit for of in ledgers), key=WEAKEST.index),
        'relation': account.relation,
        'delta': account.delta,
        'epsilon': by_center[account.center]['epsilon'],
        'epsilon_target': account.target,
        'charges': told,
        'by_center': by_center,
        'spent_before_resume': max(of.before for of in ledgers),
        **more,
    }
