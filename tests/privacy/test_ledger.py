"""A ledger is ahead of what it pays for, and pays for no more than was planned."""

import json
import subprocess
import sys

import pytest

from fedgen_jax.privacy.accounting import Charge, epsilon
from fedgen_jax.privacy.ledger import (
    Account,
    block,
    charge,
    check_paid,
    cost,
    open_ledger,
    other_owner,
    read_ledger,
    spent,
)

pytest.importorskip('dp_accounting', reason='the extra `privacy`')

PLAN = (
    Charge('descriptor', 'discrete gaussian', 8.0, 0.1, grain=8e5),
    Charge('training', 'poisson gaussian', 3.0, 1.0, 512, 0.1),
)
ACCOUNT = Account('run', 'a', 'data', 'secret', 'cpu', 'patient', 200, 3.9, 1e-6, PLAN)


def test_charges_survive_and_are_paid_once(tmp_path):
    file = tmp_path / 'a.jsonl'
    ledger = charge(open_ledger(file, ACCOUNT), 'descriptor', 0, 1)
    ledger = charge(ledger, 'training', 0, 100)
    ledger = charge(ledger, 'training', 100, 12)
    again = open_ledger(file, ACCOUNT)
    assert again.charges == ledger.charges and again.before == 3 and ledger.before == 0
    # A run that resumed at step 96 pays for what is new alone.
    assert charge(again, 'training', 96, 16).charges == ledger.charges
    more = charge(again, 'training', 96, 32)
    assert spent(more, 'training') == 128 and more.charges[-1][4] == 16
    assert cost(more) == epsilon([PLAN[0], PLAN[1]._replace(count=128)], 1e-6)


def test_a_killed_run_has_spent_what_it_charged(tmp_path):
    """Killed between the charge and the dispatch, by the system."""
    file = tmp_path / 'a.jsonl'
    open_ledger(file, ACCOUNT)
    code = (
        'import os, signal, pathlib, sys\n'
        'from fedgen_jax.privacy.ledger import charge, read_ledger\n'
        'charge(read_ledger(pathlib.Path(sys.argv[1])), "training", 0, 64)\n'
        'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    assert subprocess.run([sys.executable, '-c', code, str(file)]).returncode == -9
    assert spent(open_ledger(file, ACCOUNT), 'training') == 64


def test_a_line_that_was_cut_short_was_never_paid_for(tmp_path):
    file = tmp_path / 'a.jsonl'
    ledger = charge(open_ledger(file, ACCOUNT), 'training', 0, 64)
    whole = file.read_text()
    file.write_text(whole + json.dumps(PLAN[1]._asdict())[:30])
    assert read_ledger(file).charges == ledger.charges
    assert file.read_text() == whole
    charge(read_ledger(file), 'training', 64, 1)
    assert spent(read_ledger(file), 'training') == 65


def test_a_line_that_lacks_its_end_alone_was_paid_for(tmp_path):
    file = tmp_path / 'a.jsonl'
    ledger = charge(open_ledger(file, ACCOUNT), 'training', 0, 64)
    whole = file.read_text()
    file.write_text(whole[:-1])
    assert read_ledger(file).charges == ledger.charges and file.read_text() == whole
    check_paid(ledger, 'training', 64)
    with pytest.raises(ValueError, match='64 releases were charged, and the run has 65'):
        check_paid(ledger, 'training', 65)


@pytest.mark.parametrize('damage', [
    lambda text: text[1:], lambda text: '', lambda text: text.replace('"sigma"', '"sigm"'),
    lambda text: text.replace('"form": 2', '"form": 1'),
])
def test_a_damaged_ledger_releases_nothing(tmp_path, damage):
    file = tmp_path / 'a.jsonl'
    charge(open_ledger(file, ACCOUNT), 'training', 0, 64)
    file.write_text(damage(file.read_text()))
    with pytest.raises(ValueError, match='damaged'):
        open_ledger(file, ACCOUNT)
    file.unlink()
    with pytest.raises(ValueError, match='missing'):
        read_ledger(file)


def test_other_rounding_is_another_owner():
    of = [
        ACCOUNT._replace(device=f'cpu{x}')
        for x in ('', ', client_map=map', ', client_map=map, jax=1', ', client_map=map, jax=2')
    ]
    vmap = ACCOUNT._replace(device='cpu, client_map=vmap, jax=1')
    for i, was in enumerate(of):
        for now in of[i : 3 if i < 3 else 4]:
            assert not other_owner(was, now), (was.device, now.device)
    for was, now in ((of[1], vmap), (of[2], vmap), (of[2], of[3])):
        assert 'may round otherwise' in other_owner(was, now)
    assert 'may round otherwise' in other_owner(ACCOUNT._replace(device='gpu'), of[2])


@pytest.mark.parametrize('change, said', [
    (lambda lines: [*lines[:1], *lines[2:]], 'release 0 was never charged, and 64 was'),
    (lambda lines: [*lines[:2], *lines[3:]], 'release 64 was never charged, and 128 was'),
    (lambda lines: [*lines[:2], lines[1], *lines[2:]], 'release 64 was never charged, and 0 was'),
    (lambda lines: [*lines[:3], lines[3].replace('3.0', '30.0')], 'another charge than was'),
    (lambda lines: [*lines[:3], lines[3].replace('"training"', '"tr"')], 'another charge than was'),
])
def test_lines_that_are_missing_or_changed_are_told(tmp_path, change, said):
    file = tmp_path / 'a.jsonl'
    ledger = open_ledger(file, ACCOUNT)
    for first in (0, 64, 128):
        ledger = charge(ledger, 'training', first, 64)
    lines = change(file.read_text().splitlines())
    file.write_text('\n'.join(lines) + '\n')
    with pytest.raises(ValueError, match=said) as error:
        read_ledger(file)
    assert '\n' not in str(error.value) and 'bring' in str(error.value)


@pytest.mark.parametrize('name, first, count, said', [
    ('training', 0, 513, '513 releases, and 512 were calibrated'),
    ('training', 512, 1, '513 releases'),
    ('descriptor', 1, 1, '2 releases, and 1 were'),
    ('counts', 0, 1, 'not planned'),
    ('training', 0, 0, 'count=0'),
    ('training', 5, 1, 'release 0 was never charged'),
])
def test_more_than_was_planned_is_refused_and_not_spent(tmp_path, name, first, count, said):
    file = tmp_path / 'a.jsonl'
    ledger = open_ledger(file, ACCOUNT)
    before = file.read_text()
    with pytest.raises(ValueError, match=said) as error:
        charge(ledger, name, first, count)
    assert '\n' not in str(error.value) and file.read_text() == before


def planned(**change):
    return {'plan': (PLAN[0], PLAN[1]._replace(**change)), 'target': 100.0}


@pytest.mark.parametrize('change, said', [
    ({'run': 'another'}, 'of another run'),
    ({'data': 'others'}, 'of other data'),
    ({'secret': 'new'}, 'another secret'),
    ({'device': 'gpu'}, 'another device'),
    ({'center': 'b'}, 'of another center'),
    ({'units': 201}, 'of other units'),
    ({'unit': 'image'}, 'of another unit'),
    ({'start': 'others'}, 'started from other weights'),
    (planned(count=513), '513 releases, and 512'),
    (planned(rate=0.2), 'samples 0.2 of the units, and 0.1'),
    (planned(sigma=2.9), 'sigma 2.9, and 3'),
    (planned(sensitivity=0.5), 'another release'),
    ({'target': 100.0}, 'epsilon 3.9 at'),
    ({'target': 100.0, 'plan': (*PLAN, PLAN[0]._replace(name='counts'))}, 'was not planned'),
])
def test_a_run_that_would_spend_more_does_not_go_on(tmp_path, change, said):
    file = tmp_path / 'a.jsonl'
    open_ledger(file, ACCOUNT)
    before = file.read_text()
    with pytest.raises(ValueError, match=said) as error:
        open_ledger(file, ACCOUNT._replace(**change))
    assert '\n' not in str(error.value) and file.read_text() == before


def test_a_plan_above_its_target_is_no_ledger(tmp_path):
    with pytest.raises(ValueError, match='above 3.5'):
        open_ledger(tmp_path / 'a.jsonl', ACCOUNT._replace(target=3.5))
    assert not list(tmp_path.iterdir())


def test_the_block_tells_what_the_descriptor_costs(tmp_path):
    a = charge(open_ledger(tmp_path / 'a.jsonl', ACCOUNT), 'training', 0, 512)
    b = open_ledger(tmp_path / 'b.jsonl', ACCOUNT._replace(center='b'))
    b = charge(charge(b, 'descriptor', 0, 1), 'training', 0, 512)
    told = block([a, b], {'trust': 'each center trusts itself'})
    descriptor, training = told['charges']
    assert told['epsilon'] == pytest.approx(3.820, abs=2e-3) == told['by_center']['b']['epsilon']
    assert told['by_center']['a'] == {
        'unit': 'patient', 'units': 200, 'epsilon': descriptor['epsilon_without']
    }
    assert told['epsilon'] - descriptor['epsilon_without'] == pytest.approx(0.05, abs=5e-3)
    assert descriptor['epsilon_alone'] == training['epsilon_without']
    assert training['count'] == 512 and training['epsilon_alone'] == pytest.approx(3.7697, abs=2e-3)
    assert told['epsilon_target'] == 3.9 and told['trust'] and told['unit'] == 'patient'
