"""A center's finished model in a file that is read without this project.

    stablehlo    `jax.export`: a function of any number of images, on a CPU and on CUDA
    onnx         the same for ONNX runtimes
    safetensors  the weights by name, for code that builds the network itself

Preparation of the input (canonical input, standardizing) and what is made of the network's outputs
(probabilities, the class of each pixel, boxes) are inside; a json beside the file says what goes in
and what comes out.
"""

import contextlib
import importlib
import json
import logging
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from ml_collections import ConfigDict

from fedgen_jax.files import write_bytes, write_json
from fedgen_jax.kept import flat_variables
from fedgen_jax.loaded import Model

PLATFORMS = ('cpu', 'cuda')
TOLERANCE = 1e-5  # of what a file says, relative to the largest number
# The same by another compiler, under a canonical input: its images are rounded to 256 levels, and a
# value that lies between two of them may come out as either.
ROUNDED = 2e-3

SQUARE = (
    "RGB from 0 to 255, turned as the file's EXIF says, pixels made square where a file tells that "
    'they are not, padded with black to a centered square and resized to {size} x {size} '
    "(Pillow's BICUBIC, antialiased)"
)
BESIDES = {
    'canonical': 'the image is first moved to the appearance that the federation has in common, by '
                 'the preset architecture.input.canonical: stablehlo and onnx do so themselves; of '
                 'safetensors, canonical/... are what fedgen_jax.canonical moves it by',
    'prior': "probabilities are reweighted to the center's class mix and add to 1 again: stablehlo "
             'and onnx do so themselves; of safetensors, prior holds the logarithm of the factor '
             'of each class',
}
OWN = '; deep gray files come to 8 bits by rules of their format (fedgen_jax.data.folder.decode)'
DEEP = '; of gray files of more than 8 bits, {:g} and below is 0, {:g} and above 255'
OUTPUTS = {
    'probability': 'of each class',
    'mask': 'the number of the class in each pixel of the square',
    'box': 'y0, x0, y1, x1 in pixels of the square, the best first',
    'score': 'of each box, from 0 to 1',
    'box_class': 'the number of the class of each box',
}


def export_model(
    model: Model, config: ConfigDict, file: pathlib.Path, kind: str
) -> tuple[pathlib.Path, float | None]:
    """Writes a model and, beside it, `FILE.json`.

    Args:
      config: of its run.
      kind: a name of `FORMATS`.

    Returns:
      The json, and the largest difference between what the file's content and the model say of a
      few images, as a share of the largest number; None of weights alone.

    Raises ValueError, in one line, where the format's package is missing, or the difference is
    larger than `TOLERANCE`, or `ROUNDED`; then nothing is written.
    """
    told = about(model, config)
    content, ask, limit = FORMATS[kind](model, told)
    difference = None if ask is None else largest_difference(model, ask)
    if difference is not None and not difference <= limit:
        raise ValueError(
            f'--format={kind}: what was written would differ from the model by {difference:.1g}, '
            f'more than {limit:g}: take another format'
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, content)
    beside = file.with_name(f'{file.name}.json')
    write_json(beside, {'format': kind, **told})
    return beside, difference


def about(model: Model, config: ConfigDict) -> dict[str, Any]:
    """What a reader of the file has to know, as JSON."""
    size, task = model.size, model.program.task
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    outputs = jax.eval_shape(function_of(model), image)
    window = DEEP.format(*model.window) if model.window else OWN
    return {
        'center': model.center,
        'model': model.kind,
        'task': task.name,
        'classes': list(model.classes),
        'input': {
            'image': {
                'shape': ['N', size, size, 3], 'dtype': 'uint8',
                'what': SQUARE.format(size=size) + window,
            },
        },
        'outputs': {
            name: {
                'shape': ['N', *x.shape[1:]], 'dtype': str(x.dtype), 'what': OUTPUTS.get(name, '')
            }
            for name, x in outputs.items()
        },
        'architecture': {
            'network': config.model.to_dict(),
            'num_outputs': task.num_outputs,
            'statistics': config.statistics,
            'input': config.input.to_dict(),
            'weights': {k: list(x.shape) for k, x in flat_variables(model.variables).items()},
        },
        'besides_the_network': [BESIDES[k] for k in BESIDES if k in model.variables],
        'made_with': {'jax': jax.__version__},
    }


def function_of(model: Model) -> Any:
    """uint8 [N, S, S, 3] -> predictions in the pixels of the square."""
    return jax.jit(lambda image_NxSxSx3: model.program.answer(model.variables, image_NxSxSx3))


def to_stablehlo(model: Model, told: dict) -> tuple[bytes, Callable, float]:
    """The serialized function, what calls it, and how far it may be off."""
    del told
    extra('flatbuffers', 'export')
    (n,) = export.symbolic_shape('n')
    image = jax.ShapeDtypeStruct((n, model.size, model.size, 3), jnp.uint8)
    # CUDA's own precision of products is lower, and would differ from what was scored.
    with jax.default_matmul_precision('highest'):
        exported = export.export(function_of(model), platforms=PLATFORMS)(image)
    content = bytes(exported.serialize())
    return content, export.deserialize(bytearray(content)).call, TOLERANCE


def to_onnx(model: Model, told: dict) -> tuple[bytes, Callable, float]:
    """The serialized graph, what runs it, and how far it may be off.

    Its converter, jax2onnx, asks for an older Orbax than this project, and needs none for this.
    """
    jax2onnx, runtime = extra('jax2onnx', 'onnx'), extra('onnxruntime', 'onnx')

    class Image:
        shape = ('N', model.size, model.size, 3)
        dtype = jnp.dtype('uint8')

    names = list(told['outputs'])
    try:
        with _converting():
            graph = jax2onnx.to_onnx(
                function_of(model), [Image()], input_names=['image'], output_names=names
            )
    except Exception as error:  # whatever it raises of an operation that it does not know
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f'--format=onnx: jax2onnx cannot convert this model ({why}): take stablehlo'
        ) from error
    content = graph.SerializeToString()
    session = runtime.InferenceSession(content, providers=['CPUExecutionProvider'])

    def ask(image_NxSxSx3):
        return dict(zip(names, session.run(names, {'image': image_NxSxSx3})))

    return content, ask, ROUNDED if 'canonical' in model.variables else TOLERANCE


def to_safetensors(model: Model, told: dict) -> tuple[bytes, None, float]:
    """All variables by name, as `flat_variables` has them; the json is in its header too."""
    if model.program.algorithm.apply:
        raise ValueError(
            f'--format=safetensors: {model.program.algorithm.title} answers by more than the '
            "network's weights: take stablehlo or onnx"
        )
    numpy = extra('safetensors.numpy', 'export')
    arrays = {k: np.array(x, order='C') for k, x in flat_variables(model.variables).items()}
    return numpy.save(arrays, {'about': json.dumps(told, default=list)}), None, TOLERANCE


FORMATS: dict[str, Callable] = {
    'stablehlo': to_stablehlo, 'safetensors': to_safetensors, 'onnx': to_onnx,
}


def extra(module: str, name: str) -> Any:
    """A module of an extra.  Raises ValueError, with what to install, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        way = f"pip install 'fedgen_jax[{name}]'"
        if module == 'jax2onnx':
            way += ' && pip install --no-deps jax2onnx'
        raise ValueError(f'needs {module.partition(".")[0]}: {way}') from error


def largest_difference(model: Model, ask: Callable) -> float:
    """Between what a file and the model say of random images, relative to the largest number.

    Of numbers of classes, which may differ where two are equally likely, the share that differs,
    less a thousandth.
    """
    rng = np.random.default_rng(0)
    image_NxSxSx3 = rng.integers(0, 256, (3, model.size, model.size, 3), dtype=np.uint8)
    want, got = model.program.predict(model.variables, image_NxSxSx3), ask(image_NxSxSx3)
    alone = _without_ties(want)
    found = [0.0]
    for name, x in want.items():
        y = np.asarray(got[name])
        if x.shape != y.shape:
            return np.inf
        if name in ('box', 'box_class'):
            x, y = x[alone], y[alone]
        if x.size and np.issubdtype(x.dtype, np.floating):
            found.append(float(np.max(np.abs(x - y)) / max(1.0, float(np.max(np.abs(x))))))
        elif x.size:
            found.append(float(np.mean(x != y)) - 1e-3)
    return max(found)


def _without_ties(want) -> np.ndarray:
    """bool [N, M]: the boxes whose place in the order no rounding changes."""
    if 'score' not in want:
        return np.ones(0, bool)
    gap = np.abs(np.diff(want['score'], axis=1)) > 10 * TOLERANCE
    edge = np.ones((len(gap), 1), bool)
    return np.concatenate([edge, gap], 1) & np.concatenate([gap, edge], 1)


@contextlib.contextmanager
def _converting() -> Iterator[None]:
    """The converter promotes ranks, and warns of shapes that it leaves out of the file."""
    logger = logging.getLogger('onnx_ir')
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with jax.numpy_rank_promotion('allow'), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(before)
