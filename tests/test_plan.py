"""Settings from the data: what is planned, what a person's own fields change, and the commands."""

import json

import launched
import numpy as np
import pytest
from drawn import cells_folder, dense_folder
from PIL import Image

from configs import folder
from fedgen_jax import plan as plan_lib
from fedgen_jax.data import synthetic
from fedgen_jax.data.source import load
from fedgen_jax.modality import MODALITIES, choose_modality, of_pixels, unpadded
from fedgen_jax.named import make_model, make_task
from fedgen_jax.plan import Facts, configured, first_size, make_plan
from fedgen_jax.program import build


def gray(rng):
    x = rng.integers(0, 255, (4, 32, 32, 1), dtype=np.uint8)
    return np.repeat(x, 3, -1)


def retina():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    inside = (np.hypot(y, x) < 0.9)[..., None]
    return np.broadcast_to(inside * np.array([180, 90, 40]), (4, 64, 64, 3)).astype(np.uint8)


def skin(rng):
    return np.clip(np.array([190, 140, 120]) + rng.normal(0, 15, (4, 32, 32, 1)), 0, 255).astype(
        np.uint8
    )


def test_colors_tell_the_modality_and_that_it_is_a_guess():
    rng = np.random.default_rng(0)
    (cells,) = synthetic.centers(1, 8, 48, seed=0)
    images = {'xray': gray(rng), 'fundus': retina(), 'dermoscopy': skin(rng),
              'brightfield': cells.examples.image}
    for name, x in images.items():
        found, why = of_pixels(np.asarray(x))
        assert found == name and 'guess' in why
    # What makes an image of 4:3 a square is no dark ground around a field of view.
    x = np.zeros((32, 32, 3), np.uint8)
    x[4:28] = skin(rng)[0][4:28]
    assert of_pixels([x])[0] == 'fundus'
    assert of_pixels([unpadded(x, '600 x 450')])[0] == 'dermoscopy'
    assert unpadded(x, '450 x 600').shape == (32, 24, 3) and unpadded(x, '').shape == x.shape


@pytest.mark.parametrize('modality', MODALITIES)
def test_the_fields_of_a_modality_make_a_program(modality):
    c = folder.get_config('segmentation')
    fields = {k: (v, '') for k, v in MODALITIES[modality].fields.items()}
    fields |= {f'model.{k}': (v, '') for k, v in c.model.items() if f'model.{k}' not in fields}
    build(configured(c, fields), ('background', 'cell'), 2)


def test_nifti_volumes_are_no_radiographs(tmp_path):
    nibabel = pytest.importorskip('nibabel')
    rng = np.random.default_rng(0)
    rows = ['image,center,label']
    for center, air in (('a', -1000), ('b', -1000)):
        x = rng.integers(air, 800, (16, 16, 2)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(x, np.eye(4)), tmp_path / f'{center}.nii.gz')
        rows += [f'{center}.nii.gz#{k},{center},{"xy"[k]}' for k in (0, 1)]
    (tmp_path / 'manifest.csv').write_text('\n'.join(rows))

    def modality():
        source = load(tmp_path, 16, 0, tmp_path / 'store', require_train=False)
        return choose_modality('auto', source, tmp_path)[0]

    def of_positive(center):
        x = rng.integers(0, 800, (16, 16, 2)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(x, np.eye(4)), tmp_path / f'{center}.nii.gz')

    assert modality() == 'ct'
    of_positive('a')
    with pytest.raises(ValueError, match='--config.modality'):
        modality()
    of_positive('b')
    assert modality() == 'mri'


@pytest.fixture
def quick(monkeypatch):
    """A machine whose forward pass takes as many seconds as the test says."""
    def set_to(seconds):
        monkeypatch.setattr(plan_lib, 'measure', lambda *_: (seconds, 1.0))
    return set_to


@pytest.fixture(scope='module')
def masks(tmp_path_factory):
    return dense_folder(tmp_path_factory.mktemp('masks'), 'mask', 3, 10, 80)


def planned(root, task, minutes=20.0, **given):
    c = folder.get_config(task)
    given = {k.replace('__', '.'): v for k, v in given.items()} | {'data.root': str(root)}
    c.update_from_flattened_dict({k: v for k, v in given.items() if k != 'modality'})
    return make_plan(c, given.pop('modality', 'auto'), minutes, given), c


def test_less_time_is_fewer_steps_and_what_a_person_set_stays(masks, quick):
    quick(0.05)
    (long, c), (short, _) = planned(masks, 'segmentation'), planned(masks, 'segmentation', 1.0)
    rounds = [x.fields['rounds'][0] for x in (long, short)]
    assert rounds[0] > rounds[1] and long.minutes > short.minutes
    own, _ = planned(masks, 'segmentation', rounds=3, client__lr=0.5, shifts__turns=False)
    values = {k: v for k, (v, _) in own.fields.items()}
    assert (values['rounds'], values['client.lr'], values['shifts.turns']) == (3, 0.5, False)
    made = configured(c, long.fields)
    assert made.data.image_size == long.fields['data.image_size'][0] == 96  # the next above 80
    assert made.modality == 'brightfield' and made.input.canonical == 'brightfield'
    assert all(reason for _, reason in long.fields.values())


def test_a_slow_machine_gets_smaller_images_but_not_for_masks(
    masks, quick, tmp_path, monkeypatch
):
    rows = ['image,center,label']
    for i in range(12):
        Image.new('L', (200, 150), 20 * i).save(tmp_path / f'{i}.png')
        rows.append(f'{i}.png,{"ab"[i % 2]},{"xy"[i // 2 % 2]}')
    (tmp_path / 'manifest.csv').write_text('\n'.join(rows))
    sizes = []
    for seconds in (1e-4, 10.0):
        quick(seconds)
        found, _ = planned(tmp_path, 'classification')
        sizes.append(found.fields['data.image_size'][0])
    assert sizes == [128, 64]
    quick(10.0)
    slow = planned(masks, 'segmentation')[0]
    assert slow.fields['data.image_size'][0] == 96
    # So does one of little memory, whatever the task.
    quick(1e-4)
    monkeypatch.setattr(plan_lib, 'room', lambda: 0)
    little = planned(tmp_path, 'classification')[0].fields['data.image_size']
    assert little == (64, '128 pixels would take more than the 0 MiB of memory here')
    monkeypatch.undo()
    quick(10.0)
    # It takes longer than it may, and says so.
    assert slow.minutes > 20 and 'too few' in slow.fields['rounds'][1]
    quick(1e-4)
    fast = planned(masks, 'segmentation')[0]
    assert fast.minutes < 20 and 'too few' not in fast.fields['rounds'][1]


def test_small_boxes_need_large_images():
    def of(share):
        facts = Facts((10,), ('cell',), 1000, share, 1.0, 'brightfield', '')
        return first_size('detection', facts)[0]

    assert [of(0.5), of(0.1), of(0.05), of(0.001)] == [96, 128, 256, 256]


def test_left_and_right_turn_flips_off(quick, masks, tmp_path):
    quick(0.01)
    root = tmp_path / 'sides'
    cells_folder(root, 2, 6, 16)
    found, _ = planned(root, 'classification', modality='fundus')
    assert found.fields['shifts.flips'][0]
    text = (root / 'manifest.csv').read_text().replace(synthetic.CLASSES[0], 'left eye')
    (root / 'manifest.csv').write_text(text)
    found, _ = planned(root, 'classification', modality='fundus')
    assert not found.fields['shifts.flips'][0]


def call(*args, cache):
    return launched.call('launch.train', *args, FEDGEN_CACHE=str(cache))


def test_what_one_network_alone_has_can_be_set_without_a_file():
    c = folder.get_config('classification')
    task = make_task('classification', ('x', 'y'))
    assert make_model(c, task).thumbnail == 0
    c.model.thumbnail = 4
    assert make_model(c, task).thumbnail == 4
    c.model.trained = 'head'
    with pytest.raises(ValueError, match='model.trained: cnn has no such field'):
        make_model(c, task)


def test_a_plan_is_told_kept_and_read_again(masks, tmp_path):
    args = [f'--data={masks}', '--task=segmentation', '--held_out=synthetic-2', '--only_plan',
            f'--workdir={tmp_path / "run"}', '--config.model.widths=(8, 8)']
    done = call(*args, cache=tmp_path / 'cache')
    assert done.returncode == 0, done.stderr
    assert 'input.canonical=brightfield' in done.stdout and 'minutes' in done.stdout
    file = tmp_path / 'run' / 'plan.json'
    made = json.loads(file.read_text())
    assert made['fields']['model.widths'] == {'value': [8, 8], 'reason': 'as stated'}
    made['fields']['rounds']['value'] = 12345
    made['fields']['start.keep'] = {'value': ['params/head'], 'reason': 'a pretrained network'}
    file.write_text(json.dumps(made))
    from_run = f'--config.start.weights={tmp_path / "run"}'  # whose head is wanted too
    again = call(*args, from_run, cache=tmp_path / 'cache').stdout
    assert 'rounds=12345' in again and 'start.keep=(): a run' in again
    assert f'planned before, in {file}' in again and 'written' not in again
    same = call(f'--data={masks}/', *args[1:], cache=tmp_path / 'cache')
    assert same.returncode == 0 and 'rounds=12345' in same.stdout
    fewer = call(*args, '--config.rounds=1', cache=tmp_path / 'cache').stdout
    assert 'less than a minute' in fewer
    # It is not the plan of another command.
    for other in ('--task=detection', '--held_out=synthetic-1', '--minutes=3'):
        done = call(*args, other, cache=tmp_path / 'cache')
        name, _, value = other.partition('=')
        told = done.stderr.strip().splitlines()
        assert done.returncode == 2 and len(told) == 1
        assert name in told[0] and f'now {value}' in told[0]
    elsewhere = call(f'--data={masks}/.', *args[1:], f'--plan={file}', cache=tmp_path / 'cache')
    assert elsewhere.returncode == 0 and 'rounds=12345' in elsewhere.stdout


@pytest.mark.parametrize(('args', 'message'), [
    (['--data=x', '--task=regression'], '--task'),
    (['--data=x', '--config=configs/wbc_seg.py'], '--data'),
    (['--held_out=a'], '--data=FOLDER'),
    (['--data=nowhere'], 'nowhere'),
    (['--data=x', '--task=mine:task'], 'name it by --config'),
    (['--data={masks}', '--task=segmentation', '--config.batch_size=0'], 'batch_size=0'),
    (['--data={masks}', '--task=segmentation', '--config.rounds=-3'], 'rounds=-3'),
    (['--data={masks}', '--task=segmentation', '--config.data.image_size=0'], 'image_size=0'),
    (['--data={masks}', '--task=segmentation', '--config.client.momentum=1'], 'client.momentum'),
    (['--data={masks}', '--task=segmentation',
      '--held_out=synthetic-0,synthetic-1,synthetic-2'], 'holds out every center'),
    (['--data={masks}', '--task=segmentation', '--config.modality=sonar'], 'sonar'),
    (['--data={masks}', '--task=segmentation', '--minutes=0'], '--minutes'),
    (['--data={masks}', '--task=segmentation', '--held_out=nobody'], 'nobody'),
    (['--data={masks}', '--task=segmentation', '--config.privacy.unit=patient'], 'privacy.unit'),
])
def test_a_mistake_is_one_line(args, message, masks, tmp_path):
    args = [arg.format(masks=masks) for arg in args]
    done = call(*args, f'--workdir={tmp_path / "run"}', cache=tmp_path / 'cache')
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith('error: ') and message in line
    assert not (tmp_path / 'run').exists()
