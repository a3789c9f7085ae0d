"""Ranks and differences over centers and seeds: known values, in both layouts of unseen centers."""

import itertools

import numpy as np
import pytest

from fedgen_jax.report import compare, ranks
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


def test_all_signs_are_flipped():
    assert ranks.sign_flips(np.array([0.1, 0.2, 0.3, 0.1, 0.2])) == pytest.approx(2 / 32)
    # The sums are 3, 5 and their negatives, and none is nearer to 0 than 3.
    assert ranks.sign_flips(np.array([0.4, -0.1])) == pytest.approx(1)


def test_ranks_are_of_scores_of_a_center_and_a_seed_where_each_run_holds_out_one(make):
    rows = compare.rows_of([
        make(method, center, seed, 0.5, score)
        for method, of in (('m', (0.9, 0.2)), ('n', (0.5, 0.5)), ('o', (0.9, 0.1)))
        for center, score in zip('xy', of) for seed in (0, 1)
    ])
    units = ranks.common_units(rows, 'unseen', 'accuracy')
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
    found = ranks.ranks(ranks.common_units(rows, 'unseen', 'accuracy'))
    assert found.mean == {'m': 1.2, 'n': 1.8} and found.units == 5
    assert not found.worst  # one seed has one worst center
    gap = ranks.differences(rows, 'm', 'unseen', 'accuracy')['n']
    assert (gap.mean, gap.p) == pytest.approx((0.06, 12 / 32))  # of 5 signs at most 1 is another


def test_a_seen_center_of_many_folds_counts_once_and_by_the_folds_that_all_have(make):
    runs = [make('m', fold, 0, x, 0.5) for fold, x in (('x', 0.9), ('y', 0.5), ('z', 0.1))]
    rows = compare.rows_of([*runs, *(make('n', fold, 0, 0.4, 0.5) for fold in 'xy')])
    units = ranks.common_units(rows, 'seen', 'accuracy')
    assert units['m'] == pytest.approx({('a', 0): 0.7, ('b', 0): 0.7})


def test_an_interval_is_the_bootstraps_over_centers():
    gap_C = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    ours = {(c, 0): x for c, x in zip(CENTERS, gap_C)}
    found = ranks.difference(ours, dict.fromkeys(ours, 0.0))
    every = [np.mean(x) for x in itertools.product(gap_C, repeat=5)]
    np.testing.assert_allclose(
        (found.low, found.high), np.percentile(every, (2.5, 97.5)), atol=0.21
    )
    assert found.mean == 3 and found.p == pytest.approx(4 / 32)


def test_an_interval_is_over_seeds_too():
    ours = {(c, s): 2.0 * s - 1 for c in CENTERS for s in (0, 1)}
    found = ranks.difference(ours, dict.fromkeys(ours, 0.0))
    assert (found.mean, found.low, found.high, found.p) == (0, -1, 1, 1)


def test_few_centers_have_no_interval_and_one_has_no_p_value():
    for n in (1, 4):
        ours = {(c, 0): 0.1 for c in CENTERS[:n]}
        found = ranks.difference(ours, dict.fromkeys(ours, 0.0))
        assert np.isnan([found.low, found.high]).all() and np.isnan(found.p) == (n == 1)


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
    assert '| theirs, adapted | 2.5 | 1.0 | 2.5 | 1.0 |' in text  # at seen ones a tie
    assert '| theirs, adapted | +5.0 (4 of 2) | 1.000 | -15.0 (4 of 2) |' in text
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
    assert '| theirs | +5.0 (4 of 2) | 0.500 | +5.0 (4 of 2) | 0.500 |' in text
    assert 'other training runs' not in text


def test_runs_without_a_common_score_are_not_ranked(make):
    text = rank_tables([make('m', 'x', 0, 0.5, 0.4), make('n', 'x', 1, 0.5, 0.4)])
    assert 'all methods have 0 scores in common, and nothing is ranked' in text
    assert '| n | – | – | – | – |' in text and '| method |' not in text
    assert 'm is the only method' in rank_tables([make('m', 'x', 0, 0.5, 0.4)])
