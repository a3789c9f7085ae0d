"""The weights that training starts from, as a configuration names them."""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax import checkpoint
from fedgen_jax.config import complete
from fedgen_jax.data.targets import target_of
from fedgen_jax.files import expand, read_json, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.models.roles import roles_of
from fedgen_jax.models.start import flat, read_weights, start_of
from fedgen_jax.named import make_canonical, make_model, make_task, norm_of
from fedgen_jax.privacy import chain as chain_protections
from fedgen_jax.privacy.settings import CONSTANT
from fedgen_jax.public import with_drawn_statistics

CONTENT = 'start.json'  # in a run's folder: a hash of what its `start.weights` held
PUBLISHED = 'fedgen_jax.models.pretrained:'
OF_SMEARS = ('drawn', 'drawn+own')  # values of `statistics`: the last features' are of drawn smears


def start_variables(
    c: ConfigDict, model: nn.Module, classes: Sequence[str], image_size: int
) -> dict | None:
    """What `start.weights` names: a file, a function, or the folder of a finished run.

    With `statistics` 'drawn' or 'drawn+own' the statistics of the last features are those of drawn
    smears, under these weights; of a run that had them too, that run's.
    """
    start = _named_start(c, model, classes, image_size)
    if c.statistics not in OF_SMEARS:
        return start
    if start is None or getattr(model, 'last', 'none') == 'none':
        raise ValueError(f'statistics={c.statistics!r}: of the last features under start.weights: '
                         'name these, and pass --config.model.last=center')
    folder = expand(c.start.weights)
    if folder.is_dir() and _made_by(folder).statistics in OF_SMEARS:
        return start
    if c.input.size or (c.input.canonical != 'none' and c.input.reference != 'drawn'):
        raise ValueError(f'statistics={c.statistics!r}: pass --config.input.reference=drawn, and '
                         'no input.size, so that they depend on drawn smears alone')
    edge, named = target_of(make_task(c.task, classes).target).edge, json.dumps(c.input.to_dict())
    canonical = make_canonical(c, edge, chain_protections())
    return with_drawn_statistics(model, start, canonical, image_size, named)


def _made_by(folder: pathlib.Path) -> ConfigDict:
    return complete(read_json(folder / 'config.json'))


def _named_start(c, model, classes, image_size):
    if not c.start.weights:
        if getattr(model, 'source_norms', False):
            raise ValueError('model.source_norms: keeps the statistics of start.weights: name them')
        return None
    folder = expand(c.start.weights)
    keep = tuple(c.start.keep)
    if not folder.is_dir():
        _check_reads_as(c.start.weights, model)
        found = read_weights(c.start.weights)
        return start_of(model, found, keep, c.start.seed, image_size)
    found = checkpoint.server_weights(folder)
    known = read_json(folder / 'federation.json')['classes']
    last = tuple(x for x in found if x.startswith('params/') and _role(model, x) == 'head')
    if list(known) != list(classes) and not (last and all(x.startswith(keep) for x in last)):
        layers = tuple(dict.fromkeys(x.rpartition('/')[0] for x in last)) or ('LAST LAYER',)
        raise ValueError(
            f'start.weights={c.start.weights!r}: its classes are {", ".join(known)}, here they are '
            f'{", ".join(classes)}: pass --config.start.keep={layers} for a new last layer'
        )
    if not any(name.startswith('batch_stats') for name in found):
        # The run kept none of training, but those it began with may be a part of its model.
        made = _made_by(folder)
        begun = None
        if made.statistics in CONSTANT or getattr(model, 'source_norms', False):
            was = make_model(made, make_task(made.task, known))
            begun = start_variables(made, was, known, image_size)
        if begun:
            found |= {k: np.asarray(x) for k, x in flat(begun).items() if k.startswith('batch')}
        elif c.statistics == 'own':
            keep += ('batch_stats',)  # drawn: never used, for a center takes its own
        elif norm_of(c) == 'batch':
            raise ValueError(
                f'start.weights={c.start.weights!r}: kept no batch statistics (statistics=own '
                f'there), and statistics={c.statistics!r} needs them'
            )
    return start_of(model, found, keep, c.start.seed, image_size)


def _role(model, name):
    return roles_of(model)(tuple(name.split('/')[1:]))


def _check_reads_as(weights, model):
    """Raises ValueError where a published network would be fed otherwise than it was trained.

    Neither paddings nor the input's standardization are of its weights, whose names and shapes fit.
    """
    wanted = {}
    if weights.endswith('.safetensors'):
        wanted = {'layout': 'torchvision', 'standardize': 'none'}
    elif weights.startswith(PUBLISHED):
        wanted = {'standardize': 'none'}
    for name, value in wanted.items():
        if getattr(model, name, value) != value:
            raise ValueError(f'start.weights={weights!r}: was trained with {value!r} as '
                             f'model.{name}, here it is {getattr(model, name)!r}')


def hold_content(c: ConfigDict, workdir: pathlib.Path) -> None:
    """Writes what `start.weights` held as the run began; raises ValueError if it is other now."""
    if c.start.weights and not (workdir / CONTENT).is_file():
        write_json(workdir / CONTENT, {'content': content_of(c.start.weights)})
    check_content(c, workdir)


def check_content(c: ConfigDict, workdir: pathlib.Path) -> None:
    """Raises ValueError where `start.weights` is no longer what the run in `workdir` began with."""
    file = workdir / CONTENT
    if file.is_file() and read_json(file)['content'] != content_of(c.start.weights):
        raise ValueError(
            f'{workdir}: start.weights={c.start.weights!r} holds other weights than as this run '
            'began: put those back, or train in a new workdir'
        )


def content_of(weights: str) -> str:
    """A hash of what `start.weights` names: a run's folder, a file, or what a function returns."""
    if not weights:
        return ''
    path = expand(weights)
    if path.is_dir():
        return descriptor.hash_of(checkpoint.server_weights(path))
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return descriptor.hash_of(read_weights(weights))
