"""Files of models are read without the project, and say what the models say."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.config import base
from fedgen_jax.export import FORMATS, ROUNDED, TOLERANCE, export_model, largest_difference
from fedgen_jax.kept import variables_of
from fedgen_jax.loaded import Model
from fedgen_jax.program import build, make_algorithm

SIZE, CLASSES = 32, ('a', 'b', 'c')
NETWORKS = {'classification': 'cnn', 'segmentation': 'unet', 'detection': 'detector'}


def config(task, canonical='none'):
    c = base()
    c.task, c.model.name, c.model.widths, c.algorithm = task, NETWORKS[task], (8, 8), 'fedavg'
    c.data.image_size, c.input.canonical, c.shifts.acquisition = SIZE, canonical, 0.0
    if task == 'classification':
        c.model.thumbnail = 4  # as plans of radiographs have it
    return c


def drawn_model(task, canonical='none', weight=1.0):
    """A model with drawn weights and, with canonical input, a change that does something."""
    c = config(task, canonical)
    program = build(c, CLASSES, 2)
    _, local = make_algorithm(c, SIZE, CLASSES, 2)
    blank = jnp.zeros((1, SIZE, SIZE, 3))
    variables = {'batch_stats': {}, **jax.jit(local.model.init)(jax.random.key(1), blank)}
    variables['params']['head']['kernel'] = weight * jax.random.normal(
        jax.random.key(2), variables['params']['head']['kernel'].shape
    )
    if program.input:
        own_M, reference_M = (
            program.input.moments(images(n, seed=n))[0] for n in (1, 2)
        )
        variables['canonical'] = program.input.change(own_M, reference_M)
    return Model('here', 'refined', CLASSES, SIZE, program, jax.device_get(variables)), c


def images(n, seed=0):
    """Smooth random pictures."""
    small = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), np.uint8)
    return small.repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)


MODELS = [('classification', 'brightfield'), ('segmentation', 'none'), ('detection', 'brightfield')]

ALONE = """
import sys
sys.modules['fedgen_jax'] = None  # importing it fails
import jax, numpy as np
for name in sys.argv[1:]:
    with open(name + '.stablehlo', 'rb') as file:
        call = jax.export.deserialize(bytearray(file.read())).call
    for n in (1, 3):
        image = np.load(name + '.npy')[:n]
        np.savez(f'{name}.{n}.npz', **jax.device_get(call(image)))
assert not [m for m in sys.modules if m.startswith('fedgen_jax.')]
"""


def test_stablehlo_says_the_same_in_a_process_without_the_project(tmp_path):
    pytest.importorskip('flatbuffers', reason='the extra `export`')
    models = {}
    for task, canonical in MODELS:
        models[task], c = drawn_model(task, canonical)
        file = tmp_path / f'{task}.stablehlo'
        beside, difference = export_model(models[task], c, file, 'stablehlo')
        assert difference <= TOLERANCE
        np.save(tmp_path / f'{task}.npy', images(3))
        told = json.loads(beside.read_text())
        assert told['classes'] == list(CLASSES) and told['task'] == task
        assert told['input']['image']['shape'] == ['N', SIZE, SIZE, 3]
    command = [sys.executable, '-c', 'import jax.export\n' + ALONE, *models]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for task, model in models.items():
        told = json.loads((tmp_path / f'{task}.stablehlo.json').read_text())
        for n in (1, 3):
            want = model.program.predict(model.variables, images(n))
            with np.load(tmp_path / f'{task}.{n}.npz') as got:
                assert set(got.files) == set(want) == set(told['outputs'])
                for name, x in want.items():
                    assert list(x.shape[1:]) == told['outputs'][name]['shape'][1:]
                    scale = max(1, np.abs(x).max())
                    np.testing.assert_allclose(got[name], x, atol=1e-5 * scale)


def test_safetensors_hold_all_that_a_model_is(tmp_path):
    numpy = pytest.importorskip('safetensors.numpy', reason='the extra `export`')
    safetensors = pytest.importorskip('safetensors')
    model, c = drawn_model('classification', 'brightfield')
    file = tmp_path / 'm.safetensors'
    beside, difference = export_model(model, c, file, 'safetensors')
    named = numpy.load_file(file)
    told = json.loads(beside.read_text())
    assert difference is None
    assert {k: list(x.shape) for k, x in named.items()} == told['architecture']['weights']
    assert told['architecture']['network'] == json.loads(c.model.to_json())
    with safetensors.safe_open(file, 'np') as content:
        assert json.loads(content.metadata()['about'])['classes'] == list(CLASSES)
    # The network and these are the model.
    reference_M = np.asarray(model.program.input.moments(images(1))[0])
    again = variables_of(named, model.program.input, reference_M)
    jax.tree.map(np.testing.assert_array_equal, again, dict(model.variables))


@pytest.mark.parametrize('canonical, limit', [('none', TOLERANCE), ('brightfield', ROUNDED)])
@pytest.mark.parametrize('task', list(NETWORKS))
def test_onnx_says_the_same(tmp_path, task, canonical, limit):
    pytest.importorskip('jax2onnx', reason='the extra `onnx`')
    runtime = pytest.importorskip('onnxruntime')
    model, c = drawn_model(task, canonical)
    _, difference = export_model(model, c, tmp_path / 'm.onnx', 'onnx')
    assert difference <= limit
    session = runtime.InferenceSession(tmp_path / 'm.onnx')
    for n in (1, 4):
        want = model.program.predict(model.variables, images(n))
        got = dict(zip(want, session.run(list(want), {'image': images(n)})))
        for name in set(want) - {'box', 'box_class'}:
            np.testing.assert_allclose(got[name], want[name], atol=limit)


def test_a_file_that_says_something_else_is_not_written(tmp_path, monkeypatch):
    model, c = drawn_model('classification')
    other, _ = drawn_model('classification', weight=1.01)
    assert largest_difference(model, lambda x: model.program.predict(model.variables, x)) == 0

    def ask(image_NxSxSx3):
        return other.program.predict(other.variables, image_NxSxSx3)

    monkeypatch.setitem(FORMATS, 'other', lambda model, told: (b'', ask, TOLERANCE))
    with pytest.raises(ValueError, match='would differ from the model'):
        export_model(model, c, tmp_path / 'm.other', 'other')
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    model, c = drawn_model('classification')
    for package, kind in (('jax2onnx', 'onnx'), ('flatbuffers', 'stablehlo')):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=f'needs {package}: pip install'):
            export_model(model, c, tmp_path / 'm', kind)


def test_what_onnx_cannot_say_is_told_in_a_line(tmp_path, monkeypatch):
    class Converter:
        @staticmethod
        def to_onnx(*args, **kwargs):
            raise NotImplementedError('no such operation\nat many places')

    monkeypatch.setitem(sys.modules, 'jax2onnx', Converter)
    monkeypatch.setitem(sys.modules, 'onnxruntime', Converter)
    model, c = drawn_model('classification')
    with pytest.raises(ValueError, match=r'^--format=onnx: .*\(no such operation\): take'):
        export_model(model, c, tmp_path / 'm.onnx', 'onnx')
