"""Start weights: those of a pretrained network.

References:
    The rule that no weight stays unexplained is big_vision's (`models/common.py`).
"""

import pathlib
import zipfile
import zlib
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.models.pretrained import resnet
from fedgen_jax.registry import look_up

COLLECTIONS = ('params', 'batch_stats')


def start_of(
    model: nn.Module,
    found: dict[str, np.ndarray],
    keep: tuple[str, ...],
    seed: int,
    image_size: int,
) -> dict:
    """The variables that training begins with: found ones, and drawn ones by `keep`.

    found:  arrays by name, 'params/conv_0_0/kernel', 'batch_stats/...' (`read_weights`).
    keep:   beginnings of names that keep what `seed` draws ('params/head' for other classes).

    Raises ValueError for a name that the model has and the weights lack, or the other way round,
    and for another shape.
    """
    blank = jnp.zeros((1, image_size, image_size, 3))

    def drawn(key):
        return flat(model.init(key, blank))

    key = jax.random.key(seed)
    wanted = jax.eval_shape(drawn, key)
    if keep:  # only these are drawn, so that only these are compiled
        wanted |= jax.device_get(jax.jit(lambda key: chosen(drawn(key), keep))(key))
    merged = merge(wanted, found, keep)
    tree = flax.traverse_util.unflatten_dict(merged, sep='/')
    return {kind: tree.get(kind, {}) for kind in COLLECTIONS}


def flat(variables: dict) -> dict[str, jax.Array]:
    """{'params/conv_0_0/kernel': x, ...}"""
    return {
        f'{kind}/{name}': x
        for kind in COLLECTIONS
        for name, x in flax.traverse_util.flatten_dict(variables.get(kind, {}), sep='/').items()
    }


def chosen(named: dict, beginnings: tuple[str, ...]) -> dict:
    return {name: x for name, x in named.items() if name.startswith(beginnings)}


def read_weights(weights: str) -> dict[str, np.ndarray]:
    """{name: array}, from an .npz of named arrays, or a function 'module:function'."""
    if ':' in weights:
        return look_up('start.weights', weights, {})()
    path = pathlib.Path(weights).expanduser()
    if path.suffix == '.safetensors':
        return resnet(path)
    try:
        with open(path, 'rb') as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f'start.weights={weights!r}: cannot be read ({error}): an .npz of named arrays, '
            'a .safetensors of a ResNet, or module:function'
        ) from error


def merge(
    drawn: dict[str, Any], found: dict[str, np.ndarray], keep: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """`found` in place of `drawn`, but for names that begin with one of `keep`.

    drawn: of the others, shapes are enough.
    """
    for beginning in keep:
        if beginning != 'batch_stats' and not chosen(drawn, (beginning,)):
            raise ValueError(f'start.keep: the model has no weight whose name begins with '
                             f'{beginning!r}; names are such as {max(drawn, default="")!r}')
    kept = chosen(drawn, keep).keys()
    found = {name: x for name, x in found.items() if not name.startswith(keep)}
    for name in sorted(drawn.keys() ^ found.keys() ^ kept):
        if name in found:
            raise ValueError(f'start.weights: the model has no {name!r}: rename it')
        raise ValueError(f'start.weights: has no {name!r}: start.keep draws it instead')
    for name, x in found.items():
        if np.shape(x) != drawn[name].shape:
            raise ValueError(
                f'start.weights: {name!r} has shape {np.shape(x)}, the model wants '
                f'{drawn[name].shape}: name it in start.keep to draw it instead'
            )
    return {**drawn, **{name: np.asarray(x, drawn[name].dtype) for name, x in found.items()}}
