"""Reads a state dict that `torch.save` wrote before its version 1.6, without PyTorch.

Such a file is four pickles (a magic number, the version, the machine, the dict), the keys of the
storages, and each storage: its length, then its numbers.  A pickle can run any code: here it may
build an ordered dict and tensors, and all else is refused.
"""

import collections
import pathlib
import pickle
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {'FloatStorage': np.dtype('<f4'), 'LongStorage': np.dtype('<i8')}


class Storage(NamedTuple):
    """Where the numbers of tensors lie, in the file's order of keys."""

    dtype: np.dtype
    key: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Restricted(pickle.Unpickler):
    """What a state dict consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return lambda storage, offset, shape, strides, *_: Tensor(
                storage, offset, shape, strides
            )
        if module == 'torch' and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f'{module}.{name} has no place in a state dict')

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, size, view = pid
        if kind != 'storage' or view is not None:
            raise pickle.UnpicklingError(f'{pid!r} is no whole storage')
        return Storage(dtype, key, size)


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """{name: array}.  Raises ValueError, in one line, for a file that is anything else."""
    try:
        with open(path, 'rb') as file:
            return _read(file)
    except (pickle.UnpicklingError, EOFError, OSError, TypeError, ValueError, KeyError,
            IndexError, AttributeError) as error:
        raise ValueError(f'{path}: no state dict of PyTorch before 1.6 ({error})') from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    magic, version, machine = (Restricted(file).load() for _ in range(3))
    if (magic, version) != (MAGIC, VERSION) or not machine['little_endian']:
        raise ValueError('another format')
    tensors, keys = Restricted(file).load(), Restricted(file).load()
    storages = {t.storage.key: t.storage for t in tensors.values()}
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise ValueError('its storages are not those of its tensors')
    numbers = {key: _numbers(file, storages[key]) for key in keys}
    return {name: _view(numbers[t.storage.key], t) for name, t in tensors.items()}


def _numbers(file: BinaryIO, storage: Storage) -> np.ndarray:
    size = int.from_bytes(file.read(8), 'little')
    data = file.read(size * storage.dtype.itemsize)
    if size != storage.size or len(data) != size * storage.dtype.itemsize:
        raise ValueError('it ends too early, or a storage has another length')
    return np.frombuffer(data, storage.dtype)


def _view(numbers: np.ndarray, t: Tensor) -> np.ndarray:
    last = t.offset + sum((n - 1) * s for n, s in zip(t.shape, t.strides))
    if min((t.offset, *t.shape, *t.strides)) < 0 or last >= len(numbers):
        raise ValueError('a tensor lies outside its storage')
    bytes_of = [s * numbers.itemsize for s in t.strides]
    return np.lib.stride_tricks.as_strided(numbers[t.offset :], t.shape, bytes_of).copy()
