"""Tables say what the summaries say."""

import pytest

from fedgen_jax.report import compare, tables
from fedgen_jax.report.ranks import differences
from fedgen_jax.report.words import headline


def test_worst_unseen_is_the_worst_fold_and_sd_is_over_seeds(summaries):
    runs = compare.rows_of(summaries)['theirs']
    for level, expected in (('mean', 0.405), ('worst', 0.305)):
        value = compare.block_value('own', 'unseen', level, 'accuracy')
        assert compare.over_seeds(runs, value) == pytest.approx((expected, 0.01 / 2**0.5, 2))


def test_less_is_better_turns_the_count_round(summaries):
    rows = compare.rows_of(summaries)
    gap = differences(rows, 'ours', 'unseen', 'accuracy', lower=True)['theirs']
    assert gap.mean == pytest.approx(0.05) and gap.better == 0


def test_runs_without_a_partner_are_no_pair(summaries):
    rows = compare.rows_of([s for s in summaries if (s['method'], s['seed']) != ('theirs', 1)])
    assert differences(rows, 'ours', 'unseen', 'accuracy')['theirs'].units == 2
    assert not differences(rows, 'ours', 'seen', 'accuracy', kind='fine-tuned')


def test_tables_show_every_method_center_and_paired_gap(summaries):
    text = tables.tables(summaries)
    assert '8 runs' in text
    assert '| theirs | +5.0 (4 of 4) | +5.0 (4 of 4) |' in text
    assert '| method | x (10 images) | y (10 images) |' in text
    assert '**85.0 ± 0.0**' in text and '**80.0 ± 0.0**' not in text
    assert '| ours | 1,234 | 2 | 1 | 20 | 0.50 | cpu |' in text


def test_the_reference_can_be_chosen(summaries):
    assert '| ours | -5.0 (0 of 4) |' in tables.tables(summaries, 'theirs')
    with pytest.raises(ValueError, match='--reference=nobody: .* ours; theirs'):
        tables.tables(summaries, 'nobody')


def test_fine_tuning_is_a_column(summaries, make):
    assert 'fine-tuned' not in tables.tables(summaries)
    summaries[-1]['finetuned'] = {'seen': make('m', 'x', 0, 0.9, 0.1)['seen']}
    lines = tables.tables(summaries).splitlines()
    head = next(x for x in lines if 'fine-tuned' in x).split(' | ')
    row = next(x for x in lines if x.startswith('| theirs')).split(' | ')
    assert row[head.index('seen, fine-tuned')] == '**90.0**'


def test_a_center_model_is_shown_where_it_is_another_one(summaries, make):
    assert 'center model' not in tables.tables(summaries)
    other = make('m', 'x', 0, 0.61, 0.1)
    summaries[0]['center_model'] = {k: other[k] for k in ('seen', 'unseen')}
    text = tables.tables(summaries)
    assert 'center model: seen' in text and '61.0' in text


def test_lengths_are_worst_and_best_where_they_should_be(summaries):
    for s in summaries:
        s['lower_is_better'], s['units'] = ['accuracy'], {'accuracy': 'pixels'}
    text = tables.tables(summaries)
    assert '| theirs | **0.8 ± 0.0** | **0.8 ± 0.0** | **0.4 ± 0.0** | **0.5 ± 0.0** |' in text


def test_rare_classes_are_named(summaries):
    summaries[0]['unseen']['centers']['x'].update(left_out=['platelet'], boxes={'platelet': 2})
    assert 'platelet at x (2 boxes)' in tables.tables(summaries)


def test_one_run_has_no_spread_interval_or_best(make):
    text = tables.tables([make('m', 'x', 0, 0.5, 0.4)])
    assert '1 run.' in text and '±' not in text and '**' not in text and 'less' not in text
    both = [make(m, 'x', 0, 0.5, 0.4) for m in 'mn']
    assert '| n | +0.0 (0 of 2) | +0.0 (0 of 1) |' in tables.tables(both)


def test_the_overview_has_a_row_for_each_set_and_method(summaries):
    text = tables.overview({'one': summaries, 'two': summaries})
    assert text.count('In brackets') == 1
    lines = [x for x in text.splitlines() if x.startswith('| ')][1:]
    lines = [x for x in lines if '---' not in x]
    assert [x.split(' | ')[1] for x in lines] == 2 * ['ours', 'theirs']
    assert lines[0].startswith('| one: balanced accuracy, 2 centers | ours | **85.0 ± 0.0** |')
    assert lines[3].endswith('| +5.0 | +5.0 |')


def test_methods_that_lack_runs_are_named(summaries):
    assert 'Not all runs' not in tables.tables(summaries)
    for text in (tables.tables(summaries[:-1]), tables.overview({'one': summaries[:-1]})):
        assert 'Of 4 pairs of held-out centers and seed, theirs has 3: means' in text


def test_seeds_of_other_centers_are_no_spread_of_one_mean(make):
    runs = [make('m', 'x', 0, 0.5, 0.9), make('m', 'y', 1, 0.5, 0.3)]
    value = compare.block_value('own', 'unseen', 'mean', 'accuracy')
    assert compare.over_seeds(runs, value) == (pytest.approx(0.6), 0, 1)
    runs += [make('m', 'y', 0, 0.5, 0.7)]
    assert compare.over_seeds(runs, value) == (pytest.approx(0.8), 0, 1)
    assert 'Of 4 pairs of held-out centers and seed, m has 3' in tables.tables(runs)
    told = tables.tables(runs[:2])  # other centers with each seed, as they may be meant
    assert 'Not all runs' not in told and 'none has a deviation' in told


def test_scores_of_other_images_are_told(summaries):
    assert 'Other images' not in tables.tables(summaries)
    summaries[0]['unseen']['centers']['x']['n'] = 900
    told = '**Other images.** With one seed, methods were scored on other numbers of them: x: '
    assert told + '900 (ours), 10 (theirs)' in tables.tables(summaries)
    assert told in tables.overview({'one': summaries})


def test_a_method_s_name_breaks_no_row(make):
    text = tables.tables([make(m, 'x', 0, 0.5, 0.4) for m in ('a|b', 'c')])
    assert '| a\\|b | ' in text


def test_a_metric_of_a_part_of_a_method_s_runs_is_told(summaries):
    assert 'Of a part of the runs' not in tables.tables(summaries)
    summaries[0]['seen']['mean']['auroc'] = 0.9
    told = tables.tables(summaries).split('### AUROC')[1].split('###')[0]
    assert '**Of a part of the runs** (ours: 1 of 4).' in told


def test_sets_of_an_overview_have_one_reference(summaries, make):
    other = [make('other', 'x', 0, 0.5, 0.4)]
    with pytest.raises(ValueError, match='other and ours: pass --reference'):
        tables.overview({'one': summaries, 'two': other})


def test_runs_without_any_score_are_refused(summaries):
    for s in summaries:
        s['seen']['mean'] = {}
    for read in (tables.tables, lambda found: headline(found[0])):
        with pytest.raises(ValueError, match='no seen center has a score'):
            read(summaries)


def test_the_base_alone_is_a_row_after_the_method_that_refines_it(summaries, make):
    assert 'base alone' not in tables.tables(summaries)
    for s in summaries:
        other = make('m', 'x', 0, 0.33, 0.22)
        kept = ('title', 'seen', 'unseen', 'center_model', 'controls')
        base = {k: other[k] for k in kept}
        base['cost'] = {'bytes_up': 1, 'bytes_down': 1, 'parameters': {'base': 1}}
        s['base'] = base
    lines = tables.tables(summaries).splitlines()
    names = [x.split(' | ')[0] for x in lines if x.startswith('| ')]
    first = names.index('| ours')
    assert names[first + 1] == '| ours: base alone' and '33.0' in lines[lines.index(
        next(x for x in lines if x.startswith('| ours: base alone'))
    )]
    assert not any('theirs: base' in x for x in names)
    for s in summaries:
        if s['method'] == 'theirs':
            s['held_out'] += ' of another federation'  # no base in the table compares with these
    assert '| theirs: base alone' in tables.tables(summaries)


def test_an_oracle_is_a_table_of_its_own(summaries, make):
    for s in summaries:
        s['oracle'] = {'input': make('m', 'x', 0, 0.1, 0.71)['unseen']}
    text = tables.tables(summaries)
    assert 'with labels: a bound' in text and '71.0' in text


def test_seconds_of_several_devices_are_no_median(make):
    runs = [make('m', x, 0, 0.5, 0.4) for x in 'xy']
    assert '| 0.50 | cpu |' in tables.tables(runs)
    assert '| – | cpu, other |' in tables.tables([runs[0], {**runs[1], 'device': 'other'}])
