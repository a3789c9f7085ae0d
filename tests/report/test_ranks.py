"""Ranks and differences over centers and seeds: known values, in both layouts of unseen centers."""

import numpy as np
import pytest

from fedgen_jax.report import compare, ranks
from fedgen_jax.report.differences import common_units
from fedgen_jax.report.pages import rewritten
from fedgen_jax.report.rank_tables import rank_tables
from fedgen_jax.report.summaries import to_lines

CENTERS = 'abcde'


def one_split(make, method, scores, seed=0):
    """A run with several unseen centers, each with a score of its own."""
    run = make(method, 'split', seed, 0.5, 0.5)
    centers = {name: {'accuracy': x, 'n': 10} for name, x in scores.items()}
    return {**run, 'unseen': {**run['unseen'], 'centers': centers}}


def test_holms_known_values():
    p_M = [0.01, 0.04, float('nan'), 0.03, 0.005]
    np.testing.assert_allclose(ranks.holm(p_M), [0.03, 0.06, np.nan, 0.06, 0.02])
    assert ranks.holm([0.6, 0.7]).tolist() == [1, 1] and len(ranks.holm([])) == 0


def test_ranks_are_of_scores_of_a_center_and_a_seed_where_each_run_holds_out_one(make):
    rows = compare.rows_of([
        make(method, center, seed, 0.5, score)
        for method, of in (('m', (0.9, 0.2)), ('n', (0.5, 0.5)), ('o', (0.9, 0.1)))
        for center, score in zip('xy', of) for seed in (0, 1)
    ])
    units = common_units(rows, 'unseen', 'accuracy')
    assert list(units['m']) == [('x', 0), ('x', 1), ('y', 0), ('y', 1)]
    found = ranks.ranks(units)
    assert found.mean == {'m': (1.5 + 2) / 2, 'n': (3 + 1) / 2, 'o': (1.5 + 3) / 2}
    assert found.worst == {'m': 2, 'n': 1, 'o': 3} and (found.units, found.seeds) == (4, 2)
    assert ranks.ranks(units, lower=True).worst == {'m': 2.5, 'n': 1, 'o': 2.5}


def test_ranks_of_one_run_with_many_unseen_centers_are_over_the_centers(make):
    rows = compare.rows_of([
        one_split(make, 'm', dict.fromkeys(CENTERS, 0.6) | {'a': 0.4}),
        one_split(make, 'n', dict.fromkeys(CENTERS, 0.5)),
    ])
    found = ranks.ranks(common_units(rows, 'unseen', 'accuracy'))
    assert found.mean == {'m': 1.2, 'n': 1.8} and found.units == 5
    assert not found.worst  # one seed has one worst center
    gap = ranks.differences(rows, 'm', 'unseen', 'accuracy')['n']
    assert (gap.mean, gap.units) == (pytest.approx(0.06), 5)


def test_a_base_alone_that_is_another_row_to_the_bit_is_left_out(summaries, make):
    for s in summaries:
        if s['method'] == 'ours':
            other = make('m', s['held_out'], s['seed'], 0.8, s['unseen']['mean']['accuracy'] - 0.05)
            s['base'] = {k: other[k] for k in ('title', 'seen', 'unseen', 'cost', 'controls')}
    assert list(ranks.compared_rows(summaries, 'accuracy', None)[0]) == ['ours', 'theirs']
    summaries[0]['base']['unseen']['centers']['x']['accuracy'] = 0.3
    rows, reference = ranks.compared_rows(summaries, 'accuracy', 'theirs')
    assert list(rows) == ['ours', 'ours: base alone', 'theirs'] and reference == 'theirs'


def test_a_method_is_ranked_with_its_adapted_models_too(summaries, make):
    for s in summaries:
        if s['method'] == 'theirs':
            accuracy = s['unseen']['mean']['accuracy'] + 0.2
            s['adapted'] = make('m', s['held_out'], s['seed'], 0.5, accuracy)['unseen']
            s['config'] = {**s['config'], 'adapt': {'steps': 20}}
    text = rank_tables(summaries)
    assert '| theirs, adapted | – | 1.0 | – | 1.0 |' in text  # seen ones have no other models
    assert '| theirs, adapted | – | – | -15.0 (4 of 2) | – |' in text
    assert 'among 3 methods (2 at seen centers)' in text
    assert 'after 20 steps at each unseen center' in text
    del summaries[-1]['adapted']  # of one run, they are no row
    assert 'adapted' not in rank_tables(summaries)


def test_a_page_says_what_is_ranked(summaries, tmp_path):
    (tmp_path / 'runs.jsonl').write_text(to_lines(summaries))
    page = tmp_path / 'page.md'
    page.write_text('<!-- ranks runs.jsonl -->\n<!-- end -->')
    text = rewritten(page)[page]
    assert '| ours | 1.0 | 1.0 | 1.0 | 1.0 |' in text and '| theirs | 2.0 |' in text
    assert 'Unseen: the mean rank over the 4 scores' in text and 'over the 2 seeds' in text
    assert '| theirs | +5.0 (4 of 2) | – | +5.0 (4 of 2) | – |' in text
    assert 'none for fewer than 3 centers' in text and 'other training runs' not in text


def test_a_method_with_the_name_of_a_row_that_is_made_is_refused(make):
    for made, block in ((': base alone', 'base'), (', adapted', 'adapted')):
        runs = [make(name, 'x', 0, 0.5, 0.4) for name in ('m', 'm' + made)]
        compare.rows_of(runs)  # no such row is made
        runs[0][block] = make('m', 'x', 0, 0.5, 0.4)['unseen']
        runs[0][block] |= {'cost': runs[0]['cost']}
        with pytest.raises(ValueError, match="name of a row that tables make of 'm'"):
            rank_tables(runs)


def test_runs_without_a_common_score_are_not_ranked(make):
    text = rank_tables([make('m', 'x', 0, 0.5, 0.4), make('n', 'x', 1, 0.5, 0.4)])
    assert 'all methods have 0 scores in common, and nothing is ranked' in text
    assert '| n | – | – | – | – |' in text and '| method |' not in text
    assert 'm is the only method' in rank_tables([make('m', 'x', 0, 0.5, 0.4)])
