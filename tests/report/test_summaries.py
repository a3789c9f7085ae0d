"""Runs are read alike from folders and from JSON lines, and runs of two kinds are refused."""

import json

import pytest

from fedgen_jax.report.summaries import from_lines, in_order, read_summaries, to_lines


def write(folder, summaries):
    for i, s in enumerate(summaries):
        (folder / str(i)).mkdir(parents=True)
        (folder / str(i) / 'summary.json').write_text(json.dumps(s))
    return folder


def test_lines_hold_what_the_folder_holds(summaries, make, tmp_path):
    other = make('m', 'x', 0, 0.1234567, 0.1)
    summaries[0]['center_model'] = {
        k: {name: other[k][name] for name in ('mean', 'worst', 'centers')}
        for k in ('seen', 'unseen')
    }
    for s in summaries:
        s['config']['client'] = {'lr': 0.1 * (s['method'] == 'ours'), 'modes': [], 'clip': 1.0}
    folder = write(tmp_path / 'runs', summaries)
    read = read_summaries([folder])
    file = tmp_path / 'runs.jsonl'
    file.write_text(to_lines(read))
    again = read_summaries([file])
    assert len(again) == len(summaries) == len(file.read_text().splitlines()) - 1
    assert again[0]['center_model']['seen']['mean']['accuracy'] == 0.123457  # six decimals
    read[0]['center_model'] = again[0]['center_model'] = None
    assert again == read


def test_settings_that_all_runs_share_are_written_once(summaries):
    text = to_lines(summaries)
    assert text.count('client.lr') == text.count('lower_is_better') == text.count('"cpu"') == 1
    assert from_lines(text)[3]['config'] == summaries[3]['config']


def test_methods_come_in_the_configurations_order(make):
    names = ['b', 'a + c', 'a, half', 'z', 'a']
    found = in_order([make(n, 'x', 0, 0.1, 0.1) for n in names], ['a', 'b', 'a + c'])
    assert [s['method'] for s in found] == ['a', 'a, half', 'b', 'a + c', 'z']


@pytest.mark.parametrize(('change', 'message'), [
    ({'score_on': 'val'}, 'score_on is test and val'),
    ({'task': 'detection'}, 'task is classification and detection'),
    ({'held_out': 'x', 'seed': 0}, "two runs have method='ours', data.held_out='x' and seed=0"),
    ({'config': {'client': {'lr': 0.2}}}, 'have client.lr=0.1 and 0.2: give'),
])
def test_runs_that_a_table_would_mix_are_refused(summaries, tmp_path, change, message):
    folder = write(tmp_path, [summaries[0], {**summaries[1], **change}])
    with pytest.raises(ValueError, match=message):
        read_summaries([folder])


def test_rates_that_inner_runs_chose_may_differ_between_centers_and_not_within_one(make, tmp_path):
    def run(held_out, seed, rate):
        made = make('m', held_out, seed, 0.5, 0.5)
        return {**made, 'config': {'trial': f'rate {rate}', 'client': {'lr': rate}}}

    chosen = [run('x', 0, 0.1), run('y', 0, 0.2), run('x', 1, 0.1)]
    assert len(read_summaries([write(tmp_path / 'a', chosen)])) == 3
    chosen[2]['config']['client']['lr'] = 0.2
    with pytest.raises(ValueError, match='have client.lr=0.1 and 0.2: give'):
        read_summaries([write(tmp_path / 'b', chosen)])


def test_lines_leave_out_what_no_table_has(make):
    run = make('m', 'x', 0, 0.5, 0.5)
    name, center = next(iter(run['seen']['centers'].items()))
    center.update({'confusion': [[1]], 'reliability': [], 'classes': {'a': {'n': 1}}})
    run['seen']['pooled'] = {'classes': {'a': {'n': 1}}, 'confusion': [[1]]}
    (short,) = from_lines(to_lines([run]))
    assert short['seen']['pooled'] == {'classes': {'a': {'n': 1}}}
    assert set(short['seen']['centers'][name]) == set(center) - {
        'confusion', 'reliability', 'classes'
    }


def test_what_is_no_summary_is_one_line_with_the_file(summaries, tmp_path):
    with pytest.raises(ValueError, match='nowhere: no summary.json below'):
        read_summaries([tmp_path / 'nowhere'])
    file = tmp_path / 'cut.jsonl'
    file.write_text(''.join(to_lines(summaries).splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match='cut.jsonl: .*7 runs, the first line says 8'):
        read_summaries([file])
    (tmp_path / 'summary.json').write_text('{"method": "m"}')
    with pytest.raises(ValueError, match="summary.json: .*'config'"):
        read_summaries([tmp_path])


def test_runs_whose_masks_are_scored_at_two_sizes_are_refused(make, tmp_path):
    for i, size in enumerate(('own', 'model')):
        resolution = {'size': size, 'pixels': 48, 'why': ''}
        one = make('m', 'x', i, 0.1, 0.1, resolution=resolution)
        (tmp_path / size).mkdir()
        (tmp_path / size / 'summary.json').write_text(json.dumps(one))
    assert len(read_summaries([tmp_path / 'own'])) == 1
    with pytest.raises(ValueError, match='own size in some runs .*--config.score_size'):
        read_summaries([tmp_path])


@pytest.mark.parametrize('first', ['adapt', 'none'])
def test_runs_are_compared_with_all_others_of_their_method(make, tmp_path, first):
    """A run that was made before a field was there has the field's default."""
    runs = [make('m', 'x', seed, 0.5, 0.4) for seed in (0, 1, 2)]
    for s in runs:
        s['algorithm'] = 'fedavg'
    for s, steps in zip(runs, (None, 20, 0) if first == 'none' else (20, None, None)):
        s['config'] = {**s['config'], **({} if steps is None else {'adapt': {'steps': steps}})}
    with pytest.raises(ValueError, match='adapt.steps=.* and .*: give different runs'):
        read_summaries([write(tmp_path, runs)])
    for s in runs:
        s['config']['adapt'] = {'steps': 0}
    for s, weight in zip(runs, (0.3, 0.4, 0.5)):  # of an algorithm that is not the run's
        s['config']['ditto'] = {'weight': weight}
    assert len(read_summaries([write(tmp_path / 'again', runs)])) == 3
    for s in runs:
        s['algorithm'] = 'file.py:Mine'  # which may read any field
    with pytest.raises(ValueError, match='ditto.weight=0.3 and 0.4'):
        read_summaries([write(tmp_path / 'mine', runs)])


def test_seeds_of_two_choices_are_no_seeds_of_one(make, tmp_path):
    runs = [make('m', 'x', seed, 0.5, 0.4) for seed in (0, 1)]
    for s, trial, lr in zip(runs, ('fast', 'slow'), (0.1, 0.01)):
        s['config'] = {**s['config'], 'trial': trial, 'client': {'lr': lr}}
    with pytest.raises(ValueError, match="trial='fast' and 'slow': they are seeds of one choice"):
        read_summaries([write(tmp_path, runs)])


def test_a_center_may_have_any_name(make):
    run = make('m', 'confusion', 0, 0.5, 0.4)
    run['seen']['centers'] = {'classes': {**run['seen']['centers']['a'], 'confusion': [[1]]}}
    (again,) = from_lines(to_lines([run]))
    assert list(again['unseen']['centers']) == ['confusion']
    assert list(again['seen']['centers']) == ['classes']
    assert 'confusion' not in again['seen']['centers']['classes']


def test_the_public_run_inside_a_private_one_is_no_row(make, tmp_path):
    private = write(tmp_path / 'runs', [make('m', 'x', seed, 0.5, 0.4) for seed in (0, 1)])
    for i in (0, 1):
        (private / str(i) / 'public').mkdir()
        (private / str(i) / 'public' / 'summary.json').write_text(
            json.dumps(make('public start', 'x', 0, 0.5, 0.4))
        )
    assert [s['method'] for s in read_summaries([private])] == ['m', 'm']
    assert read_summaries([private / '0' / 'public'])[0]['method'] == 'public start'


@pytest.mark.parametrize('lacking', ['seen', 'method', 'task', 'score_on', 'cost'])
def test_a_summary_that_lacks_a_part_is_named(make, tmp_path, lacking):
    run = make('m', 'x', 0, 0.5, 0.4)
    del run[lacking]
    with pytest.raises(ValueError, match=rf'summary.json: not a summary .*{lacking}'):
        read_summaries([write(tmp_path, [run])])


def test_a_file_that_was_cut_is_named(tmp_path):
    (tmp_path / 'summary.json').write_text('{"seed"')
    with pytest.raises(ValueError, match=r'summary.json: not JSON, or cut') as error:
        read_summaries([tmp_path])
    assert '\n' not in str(error.value)
