"""The store: records written once to array_record by a TFDS builder, and read back.

Nothing here, nor what it calls, imports TensorFlow: the features are `Tensor`s, whose bytes TFDS
writes and reads with numpy (an `Image` feature would import it to encode).
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

VERSION = '1.3.0'  # of the layout; a change of it makes every store anew
_SPLIT = 'examples'  # TFDS's own splits are not used: ours depend on a seed
_TEXT = ('center', 'path', 'patient', 'split', 'volume', 'size', 'assumed', 'window')


class Record(NamedTuple):
    """One example as it comes from its source, before the seed splits a center.

    image:   uint8 [S, S, 3].
    target:  {'label': int32 []} and so on: `examples.Examples` without the leading N.
    center:  the name of its center.
    path:    unique within the center.
    patient: '' if unknown; split: 'train', 'val', 'test', or '' to be drawn; volume: '' if none.
    size, assumed, window: as in `examples.Center`.
    """

    image: np.ndarray
    target: dict[str, np.ndarray]
    center: str
    path: str
    patient: str = ''
    split: str = ''
    volume: str = ''
    size: str = ''
    assumed: str = ''
    window: str = ''


class Row(NamedTuple):
    """Where one array of a record lies on disk, in place of the array.

    records: of the store, still as bytes; number: among them; key: the array's name there.
    """

    records: Sequence[bytes]
    number: int
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype


class Rows:
    """Arrays [N, ...] that stay on disk: indexing along N reads those, and gives a NumPy array."""

    def __init__(self, rows: Sequence[Row]):
        self._first = rows[0]
        self._number_N = np.array([row.number for row in rows])
        self.shape, self.dtype = (len(rows), *rows[0].shape), rows[0].dtype

    def __len__(self) -> int:
        return len(self._number_N)

    def __getitem__(self, index) -> np.ndarray:
        chosen = self._number_N[index]
        if not np.ndim(chosen):
            return self._read([int(chosen)])[0]
        return self._read(chosen.tolist())

    def _read(self, numbers):
        records, _, key, shape, dtype = self._first
        found = np.zeros((len(numbers), *shape), dtype)
        # All at once they are read by threads, which cost as much as some 50 records do.
        at_once = len(numbers) > 50
        of_all = records.__getitems__(numbers) if at_once else map(records.__getitem__, numbers)
        for i, record in enumerate(of_all):
            # What `_feature` has TFDS write, read five times faster than through its features.
            features = tf_example_pb2.Example.FromString(record).features
            (value,) = features.feature[key].bytes_list.value
            found[i] = np.frombuffer(value, dtype).reshape(shape)
        return found


def gather(arrays: Sequence[Any]) -> np.ndarray | Rows:
    """One array of many (each a NumPy array or a `Row`), in memory or still on disk."""
    return Rows(arrays) if isinstance(arrays[0], Row) else np.stack(arrays)


class Store(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of any records of equal shape; metadata is kept beside them as JSON."""

    name = 'store'
    VERSION = tfds.core.Version(VERSION)
    code_path = None  # where TFDS would look for checksums of downloads: there are none

    def __init__(self, records: Iterable[Record], metadata: Mapping[str, Any], data_dir: str):
        self._records = iter(records)
        first = next(self._records, None)
        if first is None:
            raise ValueError('no records: a store needs at least one')
        self._first = first
        self._metadata = dict(metadata)
        super().__init__(data_dir=data_dir, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        arrays = {'image': self._first.image, **self._first.target}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {key: _feature(x) for key, x in arrays.items()}
                | {key: tfds.features.Tensor(shape=(), dtype=np.object_) for key in _TEXT}
            ),
            metadata=tfds.core.MetadataDict(self._metadata),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self):
        yield 0, _to_example(self._first)
        for i, record in enumerate(self._records, start=1):
            yield i, _to_example(record)


def stored(
    source: Mapping[str, Any],
    records: Callable[[], Iterable[Record]],
    metadata: Mapping[str, Any],
    cache: str | os.PathLike | None = None,
    on_disk: Sequence[str] = (),
) -> tuple[Iterator[Record], dict[str, Any]]:
    """Reads records and metadata from the store, after writing them if they are not there yet.

    Args:
      source: names the records, as JSON: all that they depend on (a folder's `fingerprint`; a
          generator's name, version and arguments).  Its hash is the key.
      records: computes them; called only if the store lacks the key.  All have the same shapes.
      metadata: JSON kept with them, such as the class names.
      cache: folder of the stores; default $FEDGEN_CACHE, or ~/.cache/fedgen_jax.  It may be
          deleted at any time.
      on_disk: names of arrays ('image', or of a target) that stay there, each as a `Row`.

    Two processes may write one key at the same time: each writes a folder of its own, and the
    first to be done renames it into place.
    """
    text = json.dumps([VERSION, source, metadata], sort_keys=True)
    cache = cache_folder(cache)
    final = cache / hashlib.sha256(text.encode()).hexdigest()[:32]
    if not final.is_dir():
        with tempfile.TemporaryDirectory(dir=writable(cache), prefix='.writing-') as folder:
            builder = Store(records(), metadata, data_dir=folder)
            # TFDS would print that it downloads, and bars with names of temporary folders.
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
            try:
                os.rename(builder.data_dir, final)
            except OSError:
                if not final.is_dir():  # else another process was first
                    raise
    builder = tfds.builder_from_directory(final)
    return _records_of(builder, on_disk), builder.info.metadata


def _records_of(builder, on_disk):
    features = builder.info.features
    raw = tfds.decode.DeserializeMethod.RAW_BYTES  # one array of a record is then read by itself
    as_bytes = builder.as_data_source(_SPLIT, deserialize_method=raw)
    for number, example in enumerate(builder.as_data_source(_SPLIT)):
        record = _from_example(example, features)
        arrays = {'image': record.image, **record.target}
        for key in arrays.keys() & set(on_disk):
            arrays[key] = Row(as_bytes, number, key, arrays[key].shape, arrays[key].dtype)
        yield record._replace(image=arrays.pop('image'), target=arrays)


def cache_folder(cache: str | os.PathLike | None = None) -> pathlib.Path:
    """Where the stores are kept: `cache`, else $FEDGEN_CACHE, else in the home folder.

    Raises ValueError where there is no home folder.
    """
    cache = cache or os.environ.get('FEDGEN_CACHE')
    try:
        return pathlib.Path(cache or '~/.cache/fedgen_jax').expanduser()
    except RuntimeError as error:
        raise ValueError(
            f'{cache or "~"}: no home folder is known, and images are kept there once decoded: set '
            'FEDGEN_CACHE to a folder'
        ) from error


def writable(folder: pathlib.Path) -> pathlib.Path:
    """The folder, made if it is missing; raises ValueError where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f'{folder}: cannot be written ({error.strerror}): set FEDGEN_CACHE, or data.cache, to '
            'a folder that can'
        ) from error


def _feature(x: np.ndarray) -> tfds.features.Tensor:
    # Scalars have no bytes encoding worth its decoding; arrays as numbers would be slow to parse.
    encoding = 'bytes' if np.ndim(x) else 'none'
    return tfds.features.Tensor(shape=np.shape(x), dtype=x.dtype, encoding=encoding)


def _to_example(record: Record) -> dict[str, Any]:
    return {'image': record.image, **record.target, **{k: getattr(record, k) for k in _TEXT}}


def _from_example(example: Mapping[str, Any], features) -> Record:
    arrays = {k: np.asarray(x, features[k].np_dtype) for k, x in example.items() if k not in _TEXT}
    return Record(arrays.pop('image'), arrays, *(example[key].decode() for key in _TEXT))
