"""Are networks with converted weights those of PyTorch?  Logits of both, and how far they differ.

    make bench-peers
    python -m benchmarks.pretrained_equal

EfficientNet-Lite0 has the weights of its package, in both.  ResNets have weights that torchvision
draws, and drawn statistics, for the trained ones are not on a package index.  Exits with 1 where a
logit differs by more than 1e-4 of the largest one.  Needs the extra `pretrained`.
"""

import json
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from benchmarks.ours import told_by
from fedgen_jax.models import MODELS
from fedgen_jax.models.start import read_weights, start_of
from fedgen_jax.report.tables import markdown

HERE = pathlib.Path(__file__).parent
PYTHON = HERE.parent / '.venv-peers' / 'torch_loop' / 'bin' / 'python'
TOLERANCE = 1e-4

LIKE = {'norm': 'batch', 'standardize': 'none', 'layout': 'torchvision'}
CASES = (
    ('efficientnet_lite0', 96, 'efficientnet_lite0', {}),
    ('efficientnet_lite0', 224, 'efficientnet_lite0', {}),
    ('resnet18', 96, 'resnet', LIKE),
    ('resnet50', 97, 'resnet', {**LIKE, 'depth': (3, 4, 6, 3), 'bottleneck': True}),
)


def compared(network: str, size: int, name: str, options: dict) -> tuple[float, float]:
    """(largest logit, largest difference) of a network's two images."""
    with tempfile.TemporaryDirectory() as folder:
        work = {'network': network, 'size': size, 'folder': folder}
        script = str(HERE / 'peers' / 'torch_networks.py')
        told_by([str(PYTHON), script, json.dumps(work)])
        with np.load(pathlib.Path(folder) / 'outputs.npz') as file:
            image, logits = file['image'], file['logits']
        weights = (
            f'{folder}/weights.safetensors' if name == 'resnet'
            else f'fedgen_jax.models.pretrained:{name}'
        )
        model = MODELS[name](logits.shape[1], **options)
        start = start_of(model, read_weights(weights), (), 0, 64)
    ours = jax.jit(model.apply)(start, jnp.asarray(image, jnp.float32) / 255)
    return float(np.abs(logits).max()), float(np.abs(ours - logits).max())


def main(_):
    if not PYTHON.exists():
        sys.exit(f'{PYTHON}: is not installed (make bench-peers)')
    rows, equal = [], True
    for case in CASES:
        largest, difference = compared(*case)
        equal &= difference <= TOLERANCE * largest
        rows.append([case[0], str(case[1]), f'{largest:.3f}', f'{difference:.1e}'])
    print(markdown(['network', 'pixels', 'largest logit', 'largest difference'], rows))
    sys.exit(not equal)


if __name__ == '__main__':
    app.run(main)
