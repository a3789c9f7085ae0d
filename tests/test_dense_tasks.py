"""Segmentation and detection: the path of classification, with other targets."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from drawn import cells_folder, dense_folder
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fedgen_jax.answers import answers_of
from fedgen_jax.config import base, complete
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.inputs import in_own_pixels
from fedgen_jax.data.source import load
from fedgen_jax.data.targets import Frame
from fedgen_jax.loaded import load as load_run
from fedgen_jax.onboard import onboard
from fedgen_jax.predictions import Said, coco_of, write_predictions
from fedgen_jax.report.gather import report_run
from fedgen_jax.run import prepare
from fedgen_jax.summary import evaluate_run
from fedgen_jax.tasks.coco_metrics import ids_of
from fedgen_jax.train import train

SETS = {
    'segmentation': ('mask', 'unet', ('dice', 'iou', 'hd95', 'assd')),
    'detection': ('box', 'detector', ('ap50', 'ap75', 'map', 'froc')),
}
EACH = 10  # images a center
OWN = 48  # pixels of an image with a mask, which the model sees at 32


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """{task: a folder of drawn centers}."""
    made = {}
    for task, (target, _, _) in SETS.items():
        size = OWN if task == 'segmentation' else 32
        made[task] = dense_folder(tmp_path_factory.mktemp(task) / 'root', target, 3, 3 * EACH, size)
    return made


def subset(source, folder, centers=None, labelled=True):
    """A folder of the first images of each center (of detection: of each split)."""
    folder.mkdir()
    with open(source / 'manifest.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    kept, count = [], {}
    for row in rows:
        key = row['center'], row['split']
        count[key] = count.get(key, 0) + 1
        if count[key] <= EACH and row['center'] in (centers or [row['center']]):
            kept.append(row if labelled else {**row, 'mask': ''} if 'mask' in row else row)
    for row in kept:
        for path in filter(None, (row['image'], row.get('mask'))):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, folder / path)
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    if (source / 'classes.json').exists():
        shutil.copy(source / 'classes.json', folder)
    if labelled and (source / 'annotations.json').exists():
        truth = json.loads((source / 'annotations.json').read_text())
        names = {r['image'] for r in kept}
        truth['images'] = [x for x in truth['images'] if x['file_name'] in names]
        ids = {x['id'] for x in truth['images']}
        truth['annotations'] = [x for x in truth['annotations'] if x['image_id'] in ids]
        (folder / 'annotations.json').write_text(json.dumps(truth))
    return folder


@pytest.fixture(scope='module', params=SETS)
def run(request, sources, tmp_path_factory):
    """(task, folder, workdir, summary) of a small federation of drawn centers."""
    task = request.param
    return train_on(task, sources[task], 'synthetic-2', tmp_path_factory.mktemp(task))


@pytest.fixture(scope='module')
def real_run(data_root, tmp_path_factory):
    """The same of detection on real images."""
    root = data_root / 'blood_det'
    return train_on('detection', root, 'bcdd', tmp_path_factory.mktemp('real'))


def train_on(task, source, unseen, tmp):
    c = base()
    c.task, c.model.name, c.model.widths = task, SETS[task][1], (8, 8)
    c.data.root = str(subset(source, tmp / 'data'))
    c.data.cache, c.data.held_out, c.data.image_size = str(tmp / 'store'), unseen, 32
    c.rounds, c.eval_every, c.local_steps, c.batch_size = 2, 2, 2, 4
    c.fedgen.support, c.fedgen.modes = 4, ('film',)
    summary = train(c, tmp / 'run', progress=False)
    return task, tmp / 'data', tmp / 'run', summary


def test_summary_has_the_task_s_metrics_for_every_model(run):
    check_summary(*run)


@pytest.mark.real
@pytest.mark.extended
def test_so_has_that_of_real_images(real_run):
    check_summary(*real_run)


def check_summary(task, folder, workdir, summary):
    blocks = [summary, summary['center_model'], summary['controls']['shuffled']]
    for block in (b[group] for b in blocks for group in ('seen', 'unseen')):
        assert tuple(block['mean']) == SETS[task][2]
        assert all(s['n'] > 0 and s['classes'] for s in block['centers'].values())
    seen = summary['seen']
    worst = {'hd95': max, 'assd': max}
    for metric in SETS[task][2]:
        each = [s[metric] for s in seen['centers'].values()]
        assert seen['mean'][metric] == pytest.approx(np.mean(each))
        assert seen['worst'][metric] == worst.get(metric, min)(each)
    assert json.loads((workdir / 'summary.json').read_text())['seen'] == seen
    assert evaluate_run(workdir)['seen'] == seen


@pytest.mark.extended
@pytest.mark.parametrize('run', ['segmentation'], indirect=True)
def test_two_runs_stand_side_by_side(run, tmp_path):
    _, _, workdir, _ = run
    config = complete(json.loads((workdir / 'config.json').read_text()))
    config.algorithm = 'fedavg'
    train(config, tmp_path / 'fedavg', progress=False)
    page = report_run(workdir, beside=tmp_path / 'fedavg').read_text()
    columns = page.count('truth')
    assert page.count('data:image/png;base64,') == 3 * columns
    assert page.count('FedGen: Dice') == page.count('FedAvg + shifts: Dice') == columns
    assert '<td>FedGen, refined</td>' in page and '<td>FedAvg + shifts</td>' in page
    config.data.held_out = 'synthetic-1'
    train(config, tmp_path / 'other', progress=False)
    with pytest.raises(ValueError, match='has not the images'):
        report_run(workdir, beside=tmp_path / 'other')


def test_report_shows_truth_beside_prediction(run):
    task, _, workdir, summary = run
    page = report_run(workdir).read_text()
    columns = page.count('truth')
    assert columns >= len(summary['seen']['centers'])
    assert page.count('data:image/png;base64,') == 2 * columns
    for metric in ('Dice', 'HD95') if task == 'segmentation' else ('AP50', 'mAP'):
        assert metric in page


def test_a_center_joins_with_and_without_targets(run, sources, tmp_path):
    task, _, workdir, summary = run
    source, name = sources[task], 'synthetic-2'
    scored = []
    for labelled in (True, False):
        copy = shutil.copytree(workdir, tmp_path / f'run{labelled}')
        report = onboard(copy, str(subset(source, tmp_path / f'new{labelled}', [name], labelled)))
        scored.append(report['centers'][name])
        assert report['others']['weights_before'] == report['others']['weights_after']
    assert scored[0]['weights'] == scored[1]['weights']  # what is known of targets changes nothing
    assert scored[0]['scores']['n'] >= EACH and scored[1]['scores'] == {'n': 0}


@pytest.mark.parametrize('run', ['segmentation'], indirect=True)
def test_masks_that_are_written_are_those_that_are_scored(run, tmp_path):
    _, folder, workdir, summary = run
    answers = answers_of(workdir)
    write_predictions(tmp_path / 'found', answers.said, *answers[1:4])
    with open(folder / 'manifest.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    for group in ('seen', 'unseen'):
        for name, scores in summary[group]['centers'].items():
            of = [
                r for r in rows
                if r['center'] == name and (group == 'unseen' or r['split'] == 'test')
            ]
            found, truth = (
                np.stack([np.asarray(Image.open(root / r[key])) for r in of])
                for root, key in ((tmp_path / 'found' / 'masks', 'image'), (folder, 'mask'))
            )
            again = answers.task.metrics({'mask': found}, {'mask': truth}, np.ones(len(of)))
            assert found.shape[1:] == truth.shape[1:] == (OWN, OWN)
            assert again['n'] == scores['n']
            for metric in SETS['segmentation'][2]:
                assert again[metric] == pytest.approx(scores[metric])
    assert summary['resolution'] == {'size': 'own', 'pixels': 32, 'why': ''}
    with pytest.raises(ValueError, match='holds files already'):
        write_predictions(tmp_path / 'found', answers.said, *answers[1:4])


@pytest.mark.parametrize('run', ['detection'], indirect=True)
def test_detections_are_read_by_pycocotools_against_the_folder_s_own_file(run):
    _, folder, workdir, summary = run
    answers = answers_of(workdir)
    said, scored = list(answers.said), answers.truth
    results = coco_of(said, answers.classes, answers.ids)['detections.json']
    truth = COCO(str(folder / 'annotations.json'))
    found = truth.loadRes(results)
    centers = {
        truth.imgs[i]['file_name'].split('/')[1] for i in {r['image_id'] for r in results}
    }
    assert centers == set(summary['seen']['centers']) | set(summary['unseen']['centers'])
    assert len(found.anns) == len(results) > 0
    for i, a in enumerate(scored['annotations'], start=1):  # the folder's own may lack them
        assert (a['id'], a['iscrowd'], a['area']) == (i, 0, a['bbox'][2] * a['bbox'][3])
    # On the images that were scored, their scores are the summary's.
    own = COCO()
    own.dataset = scored
    own.createIndex()
    run = COCOeval(own, own.loadRes(results), 'bbox')
    names = set(summary['seen']['centers'])
    run.params.imgIds = [x['id'] for x in scored['images'] if x['file_name'].split('/')[1] in names]
    run.evaluate()
    run.accumulate()
    for category in scored['categories']:
        k = run.params.catIds.index(category['id'])
        ap50 = float(run.eval['precision'][0, :, k, 0, -1].mean())
        assert ap50 == pytest.approx(
            summary['seen']['pooled']['classes'][category['name']]['ap50'], abs=1e-3
        )


@pytest.mark.parametrize('run', ['detection'], indirect=True)
def test_a_moved_folder_may_number_its_classes_anew_but_not_lose_a_center(run, tmp_path):
    _, folder, workdir, summary = run
    moved = shutil.copytree(folder, tmp_path / 'moved')
    truth = json.loads((moved / 'annotations.json').read_text())
    top = 1 + max(x['id'] for x in truth['categories'])
    for x in truth['categories']:
        x['id'] = top - x['id']
    for a in truth['annotations']:
        a['category_id'] = top - a['category_id']
    (moved / 'annotations.json').write_text(json.dumps(truth))
    assert evaluate_run(workdir, str(moved))['seen'] == summary['seen']
    gone = next(iter(summary['seen']['centers']))
    rows = (moved / 'manifest.csv').read_text().splitlines()
    (moved / 'manifest.csv').write_text('\n'.join(r for r in rows if f'{gone}/' not in r))
    truth['images'] = [x for x in truth['images'] if f'{gone}/' not in x['file_name']]
    ids = {x['id'] for x in truth['images']}
    truth['annotations'] = [a for a in truth['annotations'] if a['image_id'] in ids]
    (moved / 'annotations.json').write_text(json.dumps(truth))
    with pytest.raises(ValueError, match=f'other seen centers: .*{gone}.* of the run missing'):
        evaluate_run(workdir, str(moved))


@pytest.mark.parametrize('run', ['detection'], indirect=True)
def test_boxes_return_to_the_pixels_of_their_images(run, tmp_path):
    folder, size = run[1], 64
    source = load(folder, size, 0, tmp_path / 'store', target='box')
    said = []
    for center in source.centers:
        target = center.examples.target
        perfect = {**target, 'score': np.where(target['box_class'] >= 0, 0.9, 0.0)}
        for i, path in enumerate(center.path):
            found = {k: x[i] for k, x in perfect.items()}
            said.append(Said(path, (32, 32), in_own_pixels(found, Frame(32, 32, 1.0, size))))
    ids = ids_of(folder, [one.name for one in said], source.classes)
    truth = COCO(str(folder / 'annotations.json'))
    results = coco_of(said, source.classes, ids)['detections.json']
    judge = COCOeval(truth, truth.loadRes(results), 'bbox')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] > 0.99


@pytest.mark.parametrize('run', ['segmentation', 'detection'], indirect=True)
def test_a_kept_model_answers_in_the_pixels_of_a_larger_picture(run, tmp_path):
    task, folder, workdir, _ = run
    model = load_run(workdir).model('synthetic-0')
    small = Image.open(next((folder / 'images' / 'synthetic-0').glob('*.png'))).convert('RGB')
    wide = Image.new('RGB', (128, 64))
    wide.paste(small.resize((64, 64), Image.Resampling.BICUBIC), (32, 0))
    wide.save(tmp_path / 'wide.png')
    found = model(np.asarray(wide))
    (named,) = model(tmp_path / 'wide.png').items()
    assert named[0] == 'wide.png'
    jax.tree.map(np.testing.assert_array_equal, named[1], found)
    if task == 'segmentation':
        assert found['mask'].shape == (64, 128)
    else:
        assert (found['box'] >= 0).all() and (found['box'] <= [64, 128, 64, 128]).all()
    said = [Said('wide.png', wide.size, found, wide)]
    written = write_predictions(
        tmp_path / 'found', said, model.program.task, model.classes, overlays=True
    )
    assert tmp_path / 'found' / 'overlays' in written
    with Image.open(tmp_path / 'found' / 'overlays' / 'wide.png') as picture:
        assert picture.width >= 128 and picture.height > 64
    if task == 'detection':
        content = json.loads((tmp_path / 'found' / 'images.json').read_text())
        ids = {x['id'] for x in content['images']}, {x['id'] for x in content['categories']}
        results = json.loads((tmp_path / 'found' / 'detections.json').read_text())
        assert {r['image_id'] for r in results} <= ids[0] == {1}
        assert {r['category_id'] for r in results} <= ids[1]


@pytest.mark.extended
def test_a_fourth_task_is_one_file(tmp_path, monkeypatch):
    (tmp_path / 'brightness.py').write_text('''
import jax.numpy as jnp
import numpy as np
from fedgen_jax.tasks.base import Task, View


def task(classes):
    """Whether a cell is of the first class, by least squares."""

    def loss(outputs_Bx1, target, weight_B):
        wanted_B = (target['label'] == 0).astype(jnp.float32)
        return jnp.sum(weight_B * (outputs_Bx1[:, 0] - wanted_B) ** 2) / jnp.sum(weight_B)

    def metrics(predictions, target, weight_N):
        error = predictions['value'][:, 0] - (np.asarray(target['label']) == 0)
        return {'closeness': float(1 - np.mean(error**2)), 'n': len(error)}

    return Task(
        'brightness', 'label', 1, loss, lambda outputs: {'value': outputs}, metrics,
        stratum=lambda target: target['label'], num_strata=max(len(classes), 1),
        show=lambda image, target, said: View(image if said is None else None, 'x'),
    )
''')
    monkeypatch.syspath_prepend(tmp_path)
    c = base()
    c.task, c.data.root = 'brightness:task', str(cells_folder(tmp_path / 'cells', 3, 12, 16))
    c.data.held_out, c.data.image_size = 'synthetic-2', 16
    c.data.cache = str(tmp_path / 'store')
    c.model.widths, c.rounds, c.local_steps, c.fedgen.support = (8,), 1, 1, 4
    c.fedgen.modes, c.shifts.acquisition, c.devices = ('film',), 0.0, 1
    summary = train(c, tmp_path / 'run', progress=False)
    assert set(summary['unseen']['mean']) == {'closeness'}
    assert 'Closeness' in report_run(tmp_path / 'run').read_text()


@pytest.mark.parametrize('task', SETS)
def test_a_center_without_targets_cannot_train(task, sources, tmp_path):
    folder = subset(sources[task], tmp_path / 'data', labelled=False)
    c = base()
    c.task, c.model.name = task, SETS[task][1]
    c.data.root, c.data.cache, c.data.image_size = str(folder), str(tmp_path / 'store'), 32
    name = 'mask' if task == 'segmentation' else 'annotations'
    with pytest.raises(DataError, match=f'field {name}: .* center .*add|fill') as error:
        prepare(c)
    assert str(folder) in str(error.value) and '\n' not in str(error.value)
