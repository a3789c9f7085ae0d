"""Several labels an image, through the whole life of a run: trained, scored, shown, taken in."""

import json

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.answers import answers_of
from fedgen_jax.config import base
from fedgen_jax.onboard import onboard
from fedgen_jax.program import make_algorithm
from fedgen_jax.report.gather import read_summary, report_run
from fedgen_jax.run import prepare
from fedgen_jax.summary import evaluate_run
from fedgen_jax.train import train

CELLS = ('red|blue', 'red', 'blue', 'No Finding')


def folder(root, centers, each, seed):
    """Images with a red spot, a blue one, both or none, each center on a ground of its own."""
    rng, lines = np.random.default_rng(seed), ['image,center,label']
    for c, center in enumerate(centers):
        for i in range(each):
            cell = CELLS[i % 4]
            x = np.full((16, 16, 3), 90 + 20 * c) + rng.integers(-10, 10, (16, 16, 3))
            for name, channel in (('red', 0), ('blue', 2)):
                if name in cell:
                    y0, x0 = rng.integers(0, 10, 2)
                    x[y0 : y0 + 6, x0 : x0 + 6, channel] = 250
            name = f'{center}/{i:02d}.png'
            (root / center).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.astype(np.uint8)).save(root / name)
            lines.append(f'{name},{center},{"" if i % 11 == 10 else cell}')
    (root / 'manifest.csv').write_text('\n'.join(lines))
    (root / 'classes.json').write_text(json.dumps({'classes': ['red', 'blue']}))
    return root


def configuration(root, **changes):
    c = base()
    c.task, c.data.root, c.data.cache = 'multilabel', str(root), str(root.parent / 'store')
    c.data.held_out, c.data.image_size, c.score_on = 'north', 16, 'test'
    c.model.widths, c.rounds, c.local_steps, c.batch_size = (8, 8), 4, 15, 16
    c.fedgen.modes, c.eval_every = ('film',), 4
    c.devices, c.shifts.acquisition, c.client.lr = 1, 0.0, 0.1
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """(a trained run, its summary, the folder it was trained on)."""
    root = folder(tmp_path_factory.mktemp('spots') / 'root', ['east', 'north', 'west'], 40, 0)
    workdir = root.parent / 'run'
    return workdir, train(configuration(root), workdir, progress=False), root


def test_a_run_learns_each_label_and_scores_unseen_centers(made):
    workdir, summary, _ = made
    assert summary['seen']['pooled']['auroc'] > 0.9
    assert list(summary['seen']['mean'])[:3] == ['auroc', 'average_precision', 'f1']
    scores = summary['unseen']['centers']['north']
    assert scores['n'] == 37 and scores['auroc'] > 0.8  # three cells are empty
    assert scores['classes']['red']['known'] == 37
    low, high = summary['unseen']['intervals']['centers']['north']['auroc']
    assert low <= scores['auroc'] <= high
    again = evaluate_run(workdir)
    assert again['unseen'] == summary['unseen']


def test_its_answers_stand_beside_the_truth(made):
    workdir, _, root = made
    rows = [line.split(',') for line in (root / 'manifest.csv').read_text().splitlines()[1:]]
    cells = {path: set(cell.split('|')) for path, _, cell in rows}
    said = list(answers_of(workdir).said)
    assert {x.more['truth'] for x in said} >= {'red', 'blue', 'red|blue', 'No Finding'}
    assert all(set(x.more['truth'].split('|')) == cells[x.name] for x in said)


def test_the_page_shows_what_the_model_says(made):
    page = report_run(made[0]).read_text()
    assert 'AUROC' in page and 'red, blue' in page and 'Average precision' in page
    assert read_summary(made[0])['headline'] == ''


def test_a_new_center_joins_and_its_class_mix_is_refused(made, tmp_path):
    workdir, _, _ = made
    new = folder(tmp_path / 'new', ['south'], 16, 1)
    (new / 'classes.json').unlink()  # the run's classes count, and 'No Finding' is none of them
    for extra, said in (
        ({'prevalence': 'estimate'}, "task='multilabel' has no class mix"),
        ({'adapt': 3}, 'no probabilities of one class'),
    ):
        with pytest.raises(ValueError, match=said):
            onboard(workdir, str(new), **extra)
    entry = onboard(workdir, str(new))['centers']['south']
    assert entry['scores']['auroc'] > 0.7 and entry['scores']['n'] == 15


@pytest.mark.parametrize(('changes', 'said'), [
    ({'task': 'classification'}, r"'red\|blue' holds several labels: learn with task=multilabel"),
    ({'data.source': 'synthetic'}, 'drawn centers have label, mask, box, and no labels'),
    ({'data.virtual': 3, 'data.virtual_share': 0.5}, 'data.virtual: centers are drawn with'),
    ({'model.name': 'unet'}, 'model.name'),
])
def test_what_cannot_be_is_refused(made, changes, said):
    with pytest.raises(ValueError, match=said):
        prepare(configuration(made[2], **changes))


@pytest.mark.parametrize(('field', 'value'), [
    ('loss.prior', 'logits'), ('statistics_mix', 'balanced'),
])
def test_what_needs_one_class_an_image_is_refused(made, field, value):
    with pytest.raises(ValueError, match=f'{field}={value}: task=.multilabel'):
        make_algorithm(configuration(made[2], **{field: value}), 16, ['red', 'blue'], 2)
