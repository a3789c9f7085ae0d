"""Sweeps cover their grid and skip what is finished."""

import json

import pytest

from configs.common import base
from fedgen_jax import sweep
from fedgen_jax.run import settings_of


def test_runs_cover_the_grid_and_stand_by_method():
    runs = sweep.grid({'p': {'rounds': 1}, 'q': {}}, ['x', 'y'], [0, 1])
    assert [r['method'] for r in runs] == ['p'] * 4 + ['q'] * 4
    assert {(r['data.held_out'], r['seed']) for r in runs[:4]} == {
        ('x', 0), ('x', 1), ('y', 0), ('y', 1)
    }  # fmt: skip


def test_parts_cover_the_runs_once_each():
    runs = list(range(7))
    parts = [sweep.part_of(runs, f'{i}/3') for i in (1, 2, 3)]
    assert sorted(sum(parts, [])) == runs


@pytest.mark.parametrize('part', ['0/2', '3/2', '1', 'a/b', '1/0'])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ValueError, match='--part'):
        sweep.part_of([1, 2], part)


def test_finished_runs_are_skipped_and_others_made_by_another_configuration_refused(tmp_path):
    c = base()
    c.data.held_out = 'x'
    folder = tmp_path / 'fedgen' / 'x' / '0'
    folder.mkdir(parents=True)
    made = settings_of(c)
    del made['client']['schedule']  # as if the field were younger than the run
    (folder / 'summary.json').write_text(json.dumps({'config': made}))

    def run(overrides):
        runs = [{'data.held_out': 'x', **overrides}]
        return sweep.unfinished(base(), runs, tmp_path, base())

    assert run({}) == run({'data.root': 'elsewhere'}) == []
    assert [r.workdir for r in run({'seed': 1})] == [tmp_path / 'fedgen' / 'x' / '1']
    with pytest.raises(ValueError, match='rounds=100, now 7'):
        run({'rounds': 7})
    with pytest.raises(ValueError, match="client.schedule='constant', now 'cosine'"):
        run({'client.schedule': 'cosine'})
