"""Gray files of more than 8 bits, from the plan to a kept model: one scale at a center."""

import json
import shutil

import numpy as np
import pytest
from families import configured
from PIL import Image

from configs import folder
from fedgen_jax.data.source import load
from fedgen_jax.export import about
from fedgen_jax.loaded import load as load_run
from fedgen_jax.onboard import onboard
from fedgen_jax.plan import make_plan
from fedgen_jax.run import load_source
from fedgen_jax.train import train

SIZE = 16
SCALE = {'twelve': 16, 'full': 256, 'bytes': 1, 'ten': 4}  # what a gray value of 8 bits is there
SEEN = ('twelve', 'full', 'bytes')


def write(root, centers):
    """Squares that are bright or dark on a ground, at each center in numbers of its own."""
    root.mkdir()
    rng = np.random.default_rng(0)
    lines = ['image,center,label']
    for center in centers:
        for i in range(12):
            x = rng.integers(20, 60, (SIZE, SIZE))
            x[4:12, 4:12] += 90 * (1 + i % 2)
            kind = np.uint8 if SCALE[center] == 1 else np.uint16
            Image.fromarray((x * SCALE[center]).astype(kind)).save(root / f'{center}{i}.png')
            lines.append(f'{center}{i}.png,{center},{("dark", "bright")[i % 2]}')
    (root / 'manifest.csv').write_text('\n'.join(lines))
    return root


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('deep')
    root = write(tmp / 'root', SEEN)
    c = configured({
        'rounds': 1, 'eval_every': 1, 'checkpoint_every': 1,
        'data.root': str(root), 'data.cache': str(tmp / 'cache'), 'data.image_size': SIZE,
        'data.window': 'center',
    })
    train(c, tmp / 'run', progress=False)
    return tmp / 'run'


def planned(root, cache, **changes):
    c = folder.get_config('classification')
    c.data.update({'root': str(root), 'cache': str(cache)})
    c.update_from_flattened_dict(changes)
    return make_plan(c, 'auto', 1.0, changes).fields


def test_the_plan_scales_what_no_file_scales(tmp_path):
    deep, shallow = write(tmp_path / 'deep', SEEN), write(tmp_path / 'shallow', ['bytes'])
    value, why = planned(deep, tmp_path / 'cache')['data.window']
    assert value == 'center' and 'more than 8 bits' in why
    assert 'data.window' not in planned(shallow, tmp_path / 'cache')
    # A few files of one center, and of one that is held out, are enough.
    mixed = write(tmp_path / 'mixed', ['bytes', 'twelve'])
    for i in range(10):
        shutil.copy(mixed / f'bytes{i}.png', mixed / f'twelve{i}.png')
    assert planned(mixed, tmp_path / 'cache')['data.window'][0] == 'center'
    changes = {'data.held_out': 'twelve'}
    assert planned(mixed, tmp_path / 'cache', **changes)['data.window'][0] == 'center'
    stated = planned(deep, tmp_path / 'cache', **{'data.window': '0:4095'})
    assert stated['data.window'] == ('0:4095', 'as stated')


def test_the_plan_scales_files_that_have_no_scale_at_all(tmp_path):
    root = write(tmp_path / 'root', ['bytes', 'twelve'])
    for path in root.glob('*.png'):
        gray = np.asarray(Image.open(path)).astype(np.int32) - 1000
        Image.fromarray(gray).save(path.with_suffix('.tif'))
    table = root / 'manifest.csv'
    table.write_text(table.read_text().replace('.png', '.tif'))
    assert planned(root, tmp_path / 'cache')['data.window'][0] == 'center'
    c = folder.get_config('classification')
    c.data.update({'root': str(root), 'cache': ''})
    with pytest.raises(ValueError, match='outside 0 to 65535: .*data.window=LOW:HIGH'):
        load_source(c)


def test_a_kept_model_reads_files_as_its_training_did(run):
    root = run.parent / 'root'
    source = load(root, SIZE, 0, run.parent / 'cache', window='center')
    loaded = load_run(run)
    for center in (c for c in source.centers if c.name != 'bytes'):
        model = loaded.model(center.name)
        (by_file,) = model(str(root / center.path[0])).values()
        np.testing.assert_array_equal(
            by_file['probability'], model(center.examples.image[0])['probability']
        )
        assert center.window and json.dumps(about(model, loaded.config)).count('more than 8 bits')
    assert len({c.window for c in source.centers}) == 3


def test_a_model_of_8_bits_reads_no_deep_files(run):
    root = run.parent / 'root'
    model = load_run(run).model('bytes')
    assert model.window is None and len(model(str(root / 'bytes0.png'))) == 1
    with pytest.raises(ValueError, match='images: none'):
        model(np.zeros((0, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match='gray of more than 8 bits, and data.window=center') as e:
        model(str(root / 'full0.png'))
    assert '\n' not in str(e.value)


def test_a_center_that_joins_keeps_its_own_scale(run, tmp_path):
    root = write(tmp_path / 'new', ['ten'])
    onboard(run, root)
    model = load_run(run).model('ten')
    other = load_run(run).model('twelve')
    assert model.window.high < 0.3 * other.window.high
