"""Sweeps cover their grid and skip what is finished."""

import errno
import json
import re
import shutil

import pytest
from PIL import Image
from processes import small_run

from configs.common import METHODS, NAMED, base
from fedgen_jax import sweep
from fedgen_jax.files import write_json
from fedgen_jax.interrupt import Failed, MayPass
from fedgen_jax.run import apart, load_source, names_in, told_of
from fedgen_jax.settings import refusal, settings_of


def test_runs_cover_the_grid_and_stand_by_method():
    runs = sweep.grid({'p': {'rounds': 1}, 'q': {}}, ['x', 'y'], [0, 1])
    assert [r['method'] for r in runs] == ['p'] * 4 + ['q'] * 4
    assert {(r['data.held_out'], r['seed']) for r in runs[:4]} == {
        ('x', 0), ('x', 1), ('y', 0), ('y', 1)
    }


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


def test_fields_of_other_algorithms_do_not_make_a_run_another(tmp_path):
    def differ(algorithm, **changes):
        c = base()
        c.algorithm = algorithm
        made = settings_of(c)
        c.update_from_flattened_dict(changes)
        return bool(refusal(made, settings_of(c), settings_of(base())))

    ditto = {'ditto.mu': 0.7}
    assert [differ(x, **ditto) for x in ('fedavg', 'fedgen', 'ditto')] == [False, False, True]
    assert [differ(x, **{'fedgen.code': 8}) for x in ('fedavg', 'fedgen')] == [False, True]
    on_ditto = {'fedgen.base': 'ditto'}
    assert differ('fedgen', **on_ditto) and not differ('ditto', **on_ditto)
    c = base()
    c.update_from_flattened_dict(on_ditto)
    assert 'ditto' in settings_of(c)  # the base's are its own
    c.algorithm = 'own_file:own'
    assert 'atp' in settings_of(c)  # nobody knows what it reads


def test_a_longer_run_and_one_without_a_score_are_not_finished(tmp_path):
    c = base()
    file = tmp_path / 'fedgen' / 'none' / '0' / 'summary.json'
    file.parent.mkdir(parents=True)

    def waiting(summary, **overrides):
        file.write_text(json.dumps({'config': settings_of(c), **summary}))
        return sweep.unfinished(c, [{'method': 'fedgen', **overrides}], tmp_path, base())

    c.method = 'fedgen'
    assert waiting({}) == []
    assert len(waiting({}, rounds=200)) == 1
    assert len(waiting({'seen': {'mean': {}}})) == 1


def test_runs_that_a_kept_file_knows_are_skipped(tmp_path):
    runs = [{'method': 'fedgen', 'seed': seed} for seed in (0, 1)]
    made = {'method': 'fedgen', 'held_out': '', 'seed': 0, 'config': settings_of(base())}

    def waiting(known, **changes):
        c = base()
        c.update_from_flattened_dict(changes)
        return [w.overrides['seed'] for w in sweep.unfinished(c, runs, tmp_path, base(), [known])]

    made['config'] |= {'method': 'fedgen'}
    assert waiting(made) == [1]
    assert waiting(made | {'method': 'fedavg'}) == [0, 1]
    assert waiting(made, **{'adapt.steps': 5}) == [0, 1]  # it was not scored so
    with pytest.raises(ValueError, match='leave --known out'):
        waiting(made, rounds=7)


def test_folders_of_runs_stay_in_the_sweep_s_and_apart(tmp_path):
    runs = [
        {'method': method, 'data.held_out': held_out}
        for method in ('fedgen, no shifts', '../x', 'a/b', 'A b', 'a b')
        for held_out in ('', '..', '../../evil', 'St/Luke', 'st/luke', 'a,b', 'a_b', 'a b')
    ]
    folders = [w.workdir for w in sweep.unfinished(base(), runs, tmp_path, base())]
    assert len({str(f).casefold() for f in folders}) == len(runs)
    assert all(f.resolve().relative_to(tmp_path).parts[2:] == ('0',) for f in folders)
    assert folders[0] == tmp_path / 'fedgen_no_shifts' / 'none' / '0'  # as it was


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp('data'))


def test_a_finished_run_on_other_data_is_no_run_of_the_sweep(config, tmp_path):
    runs = [{'method': 'local', 'algorithm': 'local_only'}]
    c = config.copy_and_resolve_references()
    c.data.root = str(shutil.copytree(config.data.root, tmp_path / 'images'))
    [waiting] = sweep.unfinished(c, runs, tmp_path / 'runs', base())
    source = load_source(waiting.config)
    told = told_of(waiting.config, source.classes, *apart(waiting.config, source))
    waiting.workdir.mkdir(parents=True)
    write_json(waiting.workdir / 'federation.json', told)
    made = {'config': settings_of(waiting.config)}
    write_json(waiting.workdir / 'summary.json', made)
    sweep.check_finished_data(c, runs, tmp_path / 'runs')
    Image.new('RGB', (16, 16)).save(tmp_path / 'images' / 'west0.png')
    assert sweep.unfinished(c, runs, tmp_path / 'runs', base()) == []
    with pytest.raises(ValueError, match="of center 'west' than the run had .*name a new workdir"):
        sweep.check_finished_data(c, runs, tmp_path / 'runs')
    c.update({'data': {'root': str(tmp_path / 'gone')}})
    with pytest.raises(ValueError, match='gone'):
        sweep.check_finished_data(c, runs, tmp_path / 'runs')


def test_a_grid_by_names(config):
    runs = sweep.named_grid(config, METHODS, 'fedgen,fedgen, no shifts', 'all', 2)
    found = [(r['method'], r['data.held_out'], r['seed']) for r in runs]
    assert found == [
        (m, c, s) for m in ('fedgen', 'fedgen, no shifts') for c in ('east', 'west') for s in (0, 1)
    ]
    assert runs[4]['shifts.acquisition'] == 0.0
    (one,) = sweep.named_grid(config, METHODS, 'fedavg', 'west', 1)
    assert one['data.held_out'] == 'west' and one['algorithm'] == 'fedavg'
    (other,) = sweep.named_grid(config, NAMED, 'fedprox', 'west', 1)
    assert {**one, 'method': 'fedprox', 'algorithm': 'fedprox'} == other  # the same shifts
    either = [sweep.named_grid(config, NAMED, x, 'west', 1) for x in ('local-only', 'local_only')]
    assert either[0] == either[1] and either[0][0]['algorithm'] == 'local_only'
    assert len({name.replace('_', '-') for name in NAMED}) == len(NAMED)


@pytest.mark.parametrize(
    ('methods', 'held_out', 'message'),
    [
        ('fedgen,fedsgd', 'all', "--methods='fedsgd': one of"),
        ('fedgen', 'e', "--held_out='e': one of east"),
    ],
)
def test_a_name_that_is_none_is_refused(config, methods, held_out, message):
    with pytest.raises(ValueError, match=message) as error:
        sweep.named_grid(config, METHODS, methods, held_out, 1)
    assert '\n' not in str(error.value)


def test_the_only_center_cannot_be_held_out(config, monkeypatch):
    source = sweep.load_source(config)
    monkeypatch.setattr(sweep, 'load_source', lambda c: source._replace(centers=source.centers[:1]))
    with pytest.raises(ValueError, match='--held_out=all: .* is the only center'):
        sweep.named_grid(config, METHODS, 'fedgen', 'all', 1)


DONE = {'seen': {'mean': {'accuracy': 0.75}}, 'unseen': {'mean': {'accuracy': 0.5}}}


def trained_with(monkeypatch, tmp_path, *errors, methods='m', beginnable=False):
    """Seeds of the runs that a sweep begins, where each ends with an error or (None) well.

    methods: a letter a run, or one for all.  beginnable: whether the last one could begin.
    """
    begun = []

    def train(config, *_, title, **__):
        begun.append((config.seed, title))
        if errors[config.seed]:
            raise errors[config.seed]
        return DONE

    def prepare(config):
        assert config.seed == len(errors) - 1
        if not beginnable:
            raise ValueError('no')

    monkeypatch.setattr(sweep, 'train', train)
    monkeypatch.setattr(sweep, 'prepare_to_train', prepare)
    methods = methods * (len(errors) if len(methods) == 1 else 1)
    runs = [{'seed': i, 'method': m, 'data.held_out': 'x'} for i, m in enumerate(methods)]
    waiting = sweep.unfinished(base(), runs, tmp_path, base())
    try:
        sweep.run_sweep(waiting)
    except Exception as error:
        return begun, error
    return begun, None


@pytest.mark.parametrize(
    ('errors', 'number', 'kind', 'message'),
    [
        ([None, None], 2, type(None), 'None'),
        ([ValueError('no folder'), None], 1, ValueError, 'no folder'),  # all would fail alike
        ([Failed('NaN'), None], 2, ValueError, '1 of 2 runs failed; the first: .*/0: NaN'),
        ([None, ValueError('bad'), None], 3, ValueError, '1 of 3 runs failed'),
        ([OSError('odd file'), OSError('b'), None], 3, ValueError, '2 of 3 .*odd file'),
        ([MayPass('locked'), None], 2, MayPass, '1 of 2 .*locked'),
        ([None, OSError(errno.ENOSPC, 'No space left'), None], 2, OSError, 'No space left'),
    ],
)
def test_which_failures_end_a_sweep(monkeypatch, tmp_path, errors, number, kind, message):
    begun, error = trained_with(monkeypatch, tmp_path, *errors)
    assert len(begun) == number
    assert isinstance(error, kind)
    assert begun[0] == (0, f'run 1 of {len(errors)}: m, held out x, seed 0')
    assert re.search(message, str(error))


def inner_run(method, pair, seen, unseen):
    return {
        'method': method, 'held_out': ','.join(pair), 'lower_is_better': [], 'headline': '',
        'score_on': 'val', 'config': {'client': {'lr': 1.0 if method.endswith('p') else 2.0}},
        'seen': {'mean': {'accuracy': seen}},
        'unseen': {'centers': dict(zip(pair, ({'accuracy': u} for u in unseen)))},
    }


def inner_runs(of_p, of_q):
    """Runs of a method's trials p and q on the ring a, b, c: {center: its score when unseen}."""
    pairs = (('a', 'b'), ('b', 'c'), ('c', 'a'))
    return [
        inner_run(f'm, {trial}', pair, 0.5, [of[x] for x in pair])
        for trial, of in (('p', of_p), ('q', of_q)) for pair in pairs
    ]


TRIALS = {'m': {'p': {'client.lr': 1.0}, 'q': {'client.lr': 2.0}}}


def test_a_center_gets_the_trial_that_is_best_at_the_others():
    of_p, of_q = {'a': 0.9, 'b': 0.2, 'c': 0.2}, {'a': 0.1, 'b': 0.3, 'c': 0.3}
    runs = sweep.nested(TRIALS, inner_runs(of_p, of_q), ['a', 'b'], [0, 1])
    assert [(r['data.held_out'], r['seed'], r['client.lr']) for r in runs] == [
        ('a', 0, 2.0), ('a', 1, 2.0), ('b', 0, 1.0), ('b', 1, 1.0)
    ]
    assert {r['method'] for r in runs} == {'m'}
    assert [r['trial'] for r in runs] == ['q', 'q', 'p', 'p']
    # Its own scores have no part in it.
    worse = sweep.nested(TRIALS, inner_runs({**of_p, 'a': 1.0}, {**of_q, 'a': 0.0}), ['a'], [0])
    assert worse == runs[:1]


def test_a_choice_needs_both_inner_runs_of_a_center():
    runs = inner_runs({'a': 0.9, 'b': 0.2, 'c': 0.2}, {'a': 0.1, 'b': 0.3, 'c': 0.3})
    for short in (runs[:-1], [*runs[:-1], {**runs[-3], 'seed': 1}]):  # a seed more is no pair more
        with pytest.raises(ValueError, match='m, q: 1 of 2 inner runs hold a out'):
            sweep.nested(TRIALS, short, ['a'], [0])


@pytest.mark.parametrize(('change', 'message'), [
    ({'score_on': 'test'}, 'held out a,b: scored on test: a choice takes validation images'),
    ({'config': {'client': {'lr': 77.0}}}, 'made with client.lr=77.0, and its trial has 1.0'),
    ({'headline': 'auroc', 'seen': {'mean': {'auroc': 0.5}}}, 'out a,b: no auroc of the other'),
])
def test_an_inner_run_of_other_images_or_settings_chooses_nothing(change, message):
    first, *others = inner_runs(dict.fromkeys('abc', 0.5), dict.fromkeys('abc', 0.5))
    with pytest.raises(ValueError, match=message):
        sweep.nested(TRIALS, [{**first, **change}, *others], ['a'], [0])


@pytest.mark.parametrize(
    ('errors', 'methods', 'number', 'message'),
    [
        # The last one can begin: it was the first one's own fault.
        ([ValueError('no test image'), None, None], 'm', 3, '1 of 3 runs failed'),
        ([OSError('odd file'), OSError('odd file'), None], 'm', 2, '2 runs failed alike, and 1 '),
        ([Failed('NaN'), Failed('NaN'), None, None], 'mmnn', 4, '2 of 4'),  # n may go well
        ([Failed('NaN'), Failed('NaN'), None], 'mnn', 2, '2 runs failed alike, and 1 were left'),
        ([MayPass('locked'), MayPass('locked'), None], 'mno', 3, '2 of 3'),
        ([None, OSError('odd'), OSError('odd'), None], 'm', 4, '2 of 4'),
    ],
)
def test_only_what_all_runs_share_ends_a_sweep(
    monkeypatch, tmp_path, errors, methods, number, message
):
    begun, error = trained_with(
        monkeypatch, tmp_path, *errors, methods=methods, beginnable=True
    )
    assert len(begun) == number and message in str(error)


def test_a_sweep_tells_of_each_run_and_of_the_time_left(monkeypatch, tmp_path, capsys):
    begun, _ = trained_with(monkeypatch, tmp_path, None, OSError('odd'), None)
    told = capsys.readouterr()
    assert begun[1][1].startswith('run 2 of 3, about 0 s left: m, held out x')
    assert 'run 1 of 3: m, held out x, seed 0: done, accuracy: seen 0.750, unseen 0.500' in told.out
    assert 'held out x, seed 1: failed: odd' in told.err


@pytest.mark.parametrize(
    ('seconds', 'done', 'remaining', 'told'),
    [(50, 0, 3, ''), (60, 2, 1, ', about 30 s left'), (600, 1, 2, ', about 20 min left'),
     (3600, 1, 5, ', about 5 h left')],
)
def test_the_time_left_is_that_of_the_runs_before(seconds, done, remaining, told):
    assert sweep.time_left(seconds, done, remaining) == told


@pytest.mark.parametrize(
    ('text', 'names', 'found'),
    [
        ('a,b', 'ab', ['a', 'b']),
        ('', 'ab', []),
        ('a, b', 'ab', ['a', 'b']),
        ('Clinic A, Bonn', ['Clinic A, Bonn', 'b'], ['Clinic A, Bonn']),
        ('b,Clinic A, Bonn,c', ['Clinic A, Bonn', 'b', 'c'], ['b', 'Clinic A, Bonn', 'c']),
        ('a,b', ['a,b', 'a', 'b'], ['a,b']),
        ('b,a', ['a,b', 'a', 'b'], ['b', 'a']),
        ('x,y', ['a,b,c'], ['x', 'y']),
    ],
)
def test_names_may_hold_commas(text, names, found):
    assert names_in(text, names) == found
