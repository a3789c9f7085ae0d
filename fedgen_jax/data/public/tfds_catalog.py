"""Sets of the TFDS catalog: tfds:NAME, tfds:NAME/CONFIG, tfds:NAME:VERSION."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fedgen_jax.data.folder.headers import Columns, check
from fedgen_jax.data.folder.manifest import Table
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.folder.words import split_of
from fedgen_jax.data.public.labels import to_text

PREFIX = 'tfds:'
OURS = ('image', 'center', 'patient', 'split', 'label')


def has(path: pathlib.Path) -> bool:
    return str(path).startswith(PREFIX)


def read_table(path: pathlib.Path, columns: Columns) -> Table:
    """A row for each example, of all splits; the set is downloaded if need be.

    Its own splits are kept if the name of each is a word for one, else all is drawn.  Sets with
    `Image` features import TensorFlow when they are first built: install 'fedgen_jax[catalog]';
    those that are built already do not.
    """
    if 'mask' in columns:
        raise DataError('data.columns=mask: masks are not read of TFDS: write a manifest.csv')
    name = str(path).removeprefix(PREFIX)
    builder = _built(name)
    features = builder.info.features
    header_of = {ours: columns.get(ours, ours) for ours in OURS}
    check(path, list(features), columns)
    if header_of['image'] not in features:
        raise DataError(
            f'{path}: field image: the set has none: name yours, data.columns=image:FEATURE, one '
            f'of {", ".join(features)}'
        )
    splits = sorted(builder.info.splits)
    word_of = {split: split_of(split) or '' for split in splits}
    keep = all(word_of.values()) and header_of['split'] not in features
    fields = {ours: of for ours, of in header_of.items() if ours != 'image' and of in features}
    cells: dict[str, list] = {x: [] for x in dict.fromkeys(['image', 'center', 'split', *fields])}
    for split in splits:
        for i, values in enumerate(_scalars(builder, split, fields)):
            word = word_of[split] if keep else ''
            cell = {'image': f'{split}/{i}', 'center': name, 'split': word, **values}
            for key, of in cells.items():
                of.append(cell[key])
    classes: tuple[str, ...] = ()
    if 'label' in fields:
        named = getattr(features[header_of['label']], 'names', None) or ()
        cells['label'], classes = to_text(path / '*', cells['label'], named)
    lines = [(0, list(cells)), *enumerate(zip(*cells.values()), start=1)]
    notes = []
    if 'center' not in fields:
        notes.append(
            f'{path}: no feature center, so all is one center, {name!r}: '
            'data.columns=center:FEATURE names one, data.cut makes several'
        )
    if not keep and 'split' not in fields:
        notes.append(f'{path}: its splits are {", ".join(splits)}: drawn anew')
    return Table(
        path / '*', lines, {'classes': classes} if classes else {}, tuple(notes),
        lambda: _images(builder, splits, header_of['image']),
        [str(builder.data_dir), builder.info.full_name, builder.info.dataset_size],
    )


def _built(name):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, file_format='array_record')
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        first = str(error).splitlines()[0]
        raise DataError(f'{PREFIX}{name}: {first}: correct the name') from error
    return builder


def _scalars(builder, split, fields: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The fields of each example; images are not decoded."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    for record in builder.as_data_source(split, deserialize_method=raw):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        values = {ours: _value(feature[of], of) for ours, of in fields.items()}
        yield {ours: x if ours == 'label' else str(x) for ours, x in values.items()}


def _value(value, name) -> int | float | str:
    found = [*value.int64_list.value, *value.bytes_list.value, *value.float_list.value]
    if len(found) != 1:
        raise DataError(
            f'tfds, field {name}: {len(found)} values in an example, must be one: choose another '
            'by data.columns'
        )
    (x,) = found
    return x.decode() if isinstance(x, bytes) else x


def _images(builder, splits, field) -> Iterator[np.ndarray]:
    for split in splits:
        for example in builder.as_data_source(split):
            yield np.asarray(example[field])
