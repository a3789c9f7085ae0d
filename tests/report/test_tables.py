"""Tables say what the summaries say."""

import json

import pytest

from fedgen_jax.report import tables
from fedgen_jax.report.page import headline


def block(x, names=('a', 'b')):
    centers = {n: {'balanced_accuracy': x, 'accuracy': x, 'n': 10} for n in names}
    level = {'balanced_accuracy': x, 'accuracy': x}
    return {'mean': level, 'worst': level, 'centers': centers}


def summary(method, held_out, seed, seen, unseen):
    both = {'seen': block(seen), 'unseen': block(unseen, (held_out,))}
    return {
        'method': method, 'task': 'classification', 'held_out': held_out, 'seed': seed,
        'device': 'cpu', 'score_on': 'test', 'lower_is_better': [], **both,
        'center_model': both, 'controls': {'shuffled': None},
        'cost': {
            'bytes_up': 1024, 'bytes_down': 2048, 'round_seconds': 0.5, 'compile_seconds': 1.0,
            'parameters': {'base': 1, 'generator': 2, 'descriptor': 3},
        },
    }  # fmt: skip


@pytest.fixture
def summaries():
    return [
        summary(method, held_out, seed, 0.8 + gain, 0.5 + gain + drop + seed / 100)
        for method, gain in (('fedgen', 0.05), ('fedavg', 0.0))
        for held_out, drop in (('x', 0.0), ('y', -0.2))
        for seed in (0, 1)
    ]


def test_worst_unseen_is_the_worst_fold_and_sd_is_over_seeds(summaries):
    runs = tables.rows_of(summaries)['fedavg']
    mean = tables.over_seeds(runs, tables.block_value('unseen', 'mean', 'accuracy'))
    worst = tables.over_seeds(runs, tables.block_value('unseen', 'worst', 'accuracy'))
    assert mean == pytest.approx((0.405, 0.01 / 2**0.5, 2))
    assert worst == pytest.approx((0.305, 0.01 / 2**0.5, 2))


def test_tables_show_every_method_center_and_paired_gap(summaries):
    text = tables.tables(summaries)
    assert '8 runs' in text
    assert '| fedavg | +5.0 ± 0.0 (4 of 4) | +5.0 ± 0.0 (4 of 4) |' in text
    assert 'x (n = 10)' in text and 'y (n = 10)' in text
    assert '| fedgen | 1 | 2 | 0.50 | 1 | 2 | 3 | cpu |' in text


def test_fine_tuning_is_a_row_of_its_own(summaries):
    summaries[-1]['finetuned'] = {'seen': block(0.9), 'unseen': summaries[-1]['unseen']}
    rows = tables.rows_of(summaries)
    assert rows['fedavg + fine-tuning'][0]['seen']['mean']['accuracy'] == 0.9


def test_text_is_written_between_its_marks(tmp_path):
    file = tmp_path / 'RESULTS.md'
    file.write_text('above\n<!-- here -->\nold\n<!-- end -->\nbelow\n')
    tables.write_between(file, 'here', 'new')
    assert file.read_text() == 'above\n<!-- here -->\nnew\n<!-- end -->\nbelow\n'
    with pytest.raises(ValueError, match='<!-- there -->'):
        tables.write_between(file, 'there', 'new')


def test_fine_tuning_has_no_center_model_of_its_own(summaries):
    summaries[0]['finetuned'] = {'seen': block(0.9), 'unseen': None}
    (tuned,) = tables.rows_of(summaries)['fedgen + fine-tuning']
    assert tuned['center_model'] is None and tuned['controls'] == {'shuffled': None}


def test_lengths_are_worst_where_they_are_highest(summaries):
    for s in summaries:
        s['lower_is_better'] = ['accuracy']
    assert '| fedavg | 0.8 ± 0.0 | 0.8 ± 0.0 | 0.4 ± 0.0 | 0.5 ± 0.0 |' in tables.tables(summaries)


def test_rare_classes_are_named(summaries):
    summaries[0]['unseen']['centers']['x'].update(left_out=['platelet'], boxes={'platelet': 2})
    assert 'platelet at x (2 boxes)' in tables.tables(summaries)


def test_runs_without_any_score_are_refused(summaries):
    for s in summaries:
        s['seen']['mean'] = {}
    for read in (tables.tables, lambda found: headline(found[0])):
        with pytest.raises(ValueError, match='no seen center has a score'):
            read(summaries)


def test_runs_of_two_kinds_are_not_mixed(summaries, tmp_path):
    for i, split in enumerate(('val', 'test')):
        (tmp_path / str(i)).mkdir()
        content = {**summaries[i], 'score_on': split}
        (tmp_path / str(i) / 'summary.json').write_text(json.dumps(content))
    assert len(tables.read_summaries([tmp_path / '0'])) == 1
    with pytest.raises(ValueError, match='score_on is test and val'):
        tables.read_summaries([tmp_path])
