"""What labels add after training: a seen center's own model, and the oracle at an unseen one."""

import shutil

import numpy as np
import pytest
from families import configured
from rolling import assert_same

from fedgen_jax import kept
from fedgen_jax.answers import answers_of
from fedgen_jax.data.examples import Examples
from fedgen_jax.kept import file_of
from fedgen_jax.loaded import load, model_as_scored
from fedgen_jax.own import best_of
from fedgen_jax.predictions import row_of, write_predictions
from fedgen_jax.run import after_training, reopen
from fedgen_jax.summary import evaluate_run
from fedgen_jax.tasks.base import Predicted
from fedgen_jax.tasks.classification import classification
from fedgen_jax.train import train


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """(folder, summary) of a small run with canonical input, a choice and an oracle."""
    c = configured({
        'rounds': 2, 'eval_every': 2, 'checkpoint_every': 2, 'algorithm': 'fedavg',
        'input.canonical': 'brightfield', 'data.source': 'synthetic', 'data.centers': 3,
        'data.examples': 20, 'data.held_out': 'synthetic-2', 'finetune.steps': 3,
        'finetune.choose': ('refined', 'finetuned', 'local_only'), 'finetune.lr': 0.1,
        'oracle.steps': 3, 'oracle.lr': 0.1, 'data.cache': str(tmp_path_factory.mktemp('cache')),
    })
    workdir = tmp_path_factory.mktemp('own') / 'run'
    return workdir, train(c, workdir, progress=False)


def test_each_center_s_scores_are_those_of_its_choice(run):
    _, summary = run
    own = summary['own']
    assert set(own['candidates']) == {'refined', 'finetuned', 'local_only'}
    for center, kind in own['chosen'].items():
        assert summary['seen']['centers'][center] == own['candidates'][kind]['centers'][center]
    assert own['generated'] == own['candidates']['refined']
    assert summary['finetuned']['seen'] == own['candidates']['finetuned']


def test_intervals_are_of_what_is_served(run):
    """Of seen centers' chosen models, and of unseen ones' generated ones."""
    _, summary = run
    assert 'intervals' in summary['seen']
    told = summary['unseen']['intervals']['centers']['synthetic-2']
    assert told
    for metric, (low, high) in told.items():
        assert low <= summary['unseen']['centers']['synthetic-2'][metric] <= high


def test_the_oracle_has_every_part(run):
    _, summary = run
    assert set(summary['oracle']) == {'input', 'norms', 'input and norms', 'head', 'all'}
    images = summary['unseen']['centers']['synthetic-2']['n']
    assert all(b['centers']['synthetic-2']['n'] == images for b in summary['oracle'].values())


def test_the_checkpoint_gives_the_same_scores(run):
    workdir, summary = run
    again = evaluate_run(workdir)
    for field in ('seen', 'own', 'unseen', 'oracle', 'finetuned'):
        assert again[field] == summary[field]


def test_the_chosen_model_is_kept_and_its_answers_are_those_that_are_scored(run):
    workdir, summary = run
    loaded = load(workdir)
    answers = answers_of(workdir)
    said = list(answers.said)
    for center, kind in summary['own']['chosen'].items():
        model = loaded.model(center)
        assert model.kind == kind
        place = file_of(workdir, center)
        hidden = place.rename(place.with_suffix('.hidden'))
        assert_same(loaded.model(center).variables, model.variables)
        hidden.rename(place)
    done, opened = reopen(workdir)
    trained = after_training(opened, done.state, done.private_C)
    for i, center in enumerate(opened.seen):  # the page's pictures are of these models too
        shown = model_as_scored(workdir, trained, center, i)
        assert_same(shown, loaded.model(center.name).variables)
    centers = {**summary['seen']['centers'], **summary['unseen']['centers']}
    for center, scores in centers.items():
        of = [x for x in said if x.more['center'] == center]
        rows = [row_of(x, answers.task, answers.classes) for x in of]
        right = [row['predicted'] == row['truth'] for row in rows]
        assert len(rows) == scores['n'] and np.mean(right) == pytest.approx(scores['accuracy'])
        assert all(abs(sum(float(row[k]) for k in answers.classes) - 1) < 1e-4 for row in rows)
    (workdir.parent / 'out').mkdir()
    (written,) = write_predictions(workdir.parent / 'out', said, *answers[1:4])
    assert len(written.read_text().splitlines()) == 1 + len(said)


def test_more_models_than_there_is_room_for_are_not_kept(run, tmp_path, monkeypatch, capsys):
    workdir, _ = run
    copy = shutil.copytree(workdir, tmp_path / 'run')
    shutil.rmtree(copy / 'models')
    monkeypatch.setattr(kept, 'MOST_BYTES', 1000)
    done, opened = reopen(copy)
    kept.save_models(copy, opened, after_training(opened, done.state, done.private_C), {}, {})
    assert 'not written: 2 models take' in capsys.readouterr().err
    assert not (copy / 'models').exists()
    made, read = (load(place).model('synthetic-0').variables for place in (copy, workdir))
    assert_same(made, read)


def test_the_first_stands_unless_another_is_better_by_a_standard_error_of_the_difference():
    task, n = classification(('a', 'b')), np.arange(40)

    def said(right_N):
        label_N = np.arange(len(right_N)) % 2
        probability_NxK = np.eye(2)[np.where(right_N, label_N, 1 - label_N)]
        image_NxHxWx3 = np.zeros((len(label_N), 1, 1, 3), np.uint8)
        examples = Examples(image_NxHxWx3, {'label': label_N}, np.ones(len(label_N)))
        patients = tuple(map(str, range(len(label_N))))
        return Predicted({'probability': probability_NxK}, examples, patients, patients)

    first, better = said(n < 20), said(n < 24)
    assert best_of(task, [first, better]) == 1  # 4 of 40 gained: .10, with an error of .05
    mixed = said((n >= 4) & (n < 25))  # 5 gained and 4 lost: .02, with an error of .07
    assert best_of(task, [first, mixed]) == 0
    assert best_of(task, [first, mixed, better]) == 2
    few = [said(np.arange(4) < k) for k in (0, 4)]
    assert best_of(task, few) == 0  # four patients tell nothing


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'finetune.choose': ('best',)}, "finetune.choose='best': one of"),
        ({'finetune.choose': ('finetuned',)}, 'needs finetune.steps'),
    ],
)
def test_a_choice_that_is_none_is_one_line(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        train(configured(changes), tmp_path / 'run', progress=False)
    assert '\n' not in str(error.value) and not np.any([*tmp_path.iterdir()])
