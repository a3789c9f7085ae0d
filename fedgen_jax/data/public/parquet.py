"""Files .parquet as Hugging Face has them: the column `image` holds files, `label` their classes.

    image   struct {bytes, path}, or bytes: png, jpeg or tiff
    label   int (named by the schema of Hugging Face, or by classes.json) or text; or a list of
            these, of all that an image shows
    center, patient, split   optional, as in manifest.csv

Without `center`, all is one center.  Without `split`, files whose names begin with a split's
(train-00000-of-00002.parquet, or train/0000.parquet) tell it.
"""

import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from fedgen_jax.data.folder.headers import Columns, check
from fedgen_jax.data.folder.manifest import Table, read_classes
from fedgen_jax.data.folder.text import DataError, state_of
from fedgen_jax.data.folder.words import listed, split_of
from fedgen_jax.data.public.labels import lists_to_text, to_text

OURS = ('image', 'center', 'patient', 'split', 'label')
_BATCH = 64  # images in memory at a time


def has(path: pathlib.Path) -> bool:
    return bool(_files(path))


def read_table(path: pathlib.Path, columns: Columns) -> Table:
    """A row for each row of one file, or of all below a folder; columns of text are read alone."""
    if 'mask' in columns:
        raise DataError('data.columns=mask: masks are not read of .parquet: write a manifest.csv')
    files = _files(path)
    file = path / '*.parquet' if path.is_dir() else path
    header_of = {ours: columns.get(ours, ours) for ours in OURS}
    schemas = [_schema(of, columns, header_of['image']) for of in files]
    named = _named(schemas[0], header_of['label'])
    for of, schema in zip(files, schemas):
        if schema.names != schemas[0].names:
            raise DataError(f'{of}: other columns than {files[0].name}: pass one data set')
        if _named(schema, header_of['label']) != named:
            raise DataError(f'{of}: other names of classes than {files[0].name}: pass one data set')
    own_split = _splits_of_files(path, files, header_of['split'] in schemas[0].names)
    names = read_classes(file.parent)
    cells, origin = _cells(files, schemas[0], header_of)
    own_center = path.resolve().name if path.is_dir() else path.stem
    if 'label' in cells:
        numbered = named or names.get('classes', ())
        own = schemas[0].field(header_of['label'])
        convert = lists_to_text if _is_list_of_labels(own, header_of) else to_text
        cells['label'], classes = convert(file, cells['label'], numbered)
        if classes:
            names = {'classes': classes, **names}
    cells = {
        'image': [f'{files[of].relative_to(file.parent)}#{i}' for of, i in origin],
        'center': [own_center] * len(origin),
        'split': [own_split[of] for of, _ in origin],
        **cells,
    }
    lines: list[tuple[int, Sequence[str]]] = [
        (0, list(cells)), *enumerate(zip(*cells.values()), start=1),
    ]
    notes = () if header_of['center'] in schemas[0].names else (
        f'{file}: no column center, so all is one center, {own_center!r}: '
        'data.columns=center:HEADER names one, data.cut makes several',
    )
    return Table(
        file, lines, names, notes, lambda: _images(files, header_of['image']), state_of(files)
    )


def _files(path):
    if path.is_dir():
        return sorted(path.rglob('*.parquet'))
    return [path] if path.suffix.lower() == '.parquet' and path.is_file() else []


def _schema(file, columns, image):
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(file, error) from error
    check(file, schema.names, columns)
    if image not in schema.names:
        raise DataError(
            f'{file}: field image: the column is missing: name yours, data.columns=image:HEADER, '
            f'one of {listed(schema.names, 40)}'
        )
    kind = schema.field(image).type
    is_struct = pyarrow.types.is_struct(kind) and kind.get_field_index('bytes') >= 0
    if not is_struct and not _is_bytes(kind):
        raise DataError(
            f'{file}: field {image}: {kind}: must be bytes of a png, jpeg or tiff, or a struct '
            '{bytes, path} as Hugging Face writes it'
        )
    return schema


def _unreadable(file, error) -> DataError:
    return DataError(f'{file}: no parquet that can be read ({error}): save it again')


def _is_bytes(kind) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _splits_of_files(path, files, has_column) -> list[str]:
    """The split that the name of each file tells, '' if none does."""
    words = []
    for file in files:
        start = re.match('[A-Za-z]*', file.stem)
        parts = (start.group() if start else '', *file.relative_to(path).parts[-2:-1]) if (
            path.is_dir()) else ()
        words.append(next((s for word in parts if (s := split_of(word))), ''))
    if has_column or not any(words):
        return [''] * len(files)
    if not all(words):
        without = files[words.index('')]
        raise DataError(
            f'{without}: its name tells no split, and those of others do: name all so, or add a '
            'column split'
        )
    return words


def _cells(files, schema, header_of) -> tuple[dict[str, list[Any]], list[tuple[int, int]]]:
    """Cells by our column, as text but for labels; of each row its file and its number there."""
    import pyarrow.parquet

    ours_of = {theirs: ours for ours, theirs in header_of.items()}
    plain = [
        field.name for field in schema
        if field.name != header_of['image'] and not _is_bytes(field.type) and field.name != 'mask'
        and (not pyarrow.types.is_nested(field.type) or _is_list_of_labels(field, header_of))
    ]
    wanted = [theirs for ours, theirs in header_of.items() if theirs in schema.names]
    for theirs in wanted:
        if theirs not in plain and theirs != header_of['image']:
            raise DataError(
                f'{files[0]}: field {theirs}: {schema.field(theirs).type}: must be one number or '
                'text a row'
            )
    cells: dict[str, list[Any]] = {}
    origin: list[tuple[int, int]] = []
    for number, file in enumerate(files):
        try:
            part = pyarrow.parquet.read_table(file, columns=plain)
        except (OSError, pyarrow.ArrowException) as error:
            raise _unreadable(file, error) from error
        origin += [(number, i) for i in range(pyarrow.parquet.read_metadata(file).num_rows)]
        for name in plain:
            ours = ours_of.get(name, f'{name} (not read)' if name in OURS else name)
            values = part[name].to_pylist()
            if ours != 'label':
                # NaN is what pandas writes where a value is missing.
                values = ['' if x is None or x != x else str(x).strip() for x in values]
            cells.setdefault(ours, []).extend(values)
    return cells, origin


def _named(schema, label) -> tuple[str, ...]:
    """The class names that Hugging Face wrote beside the columns."""
    try:
        features = json.loads((schema.metadata or {})[b'huggingface'])['info']['features']
        feature = features[label]
        feature = feature[0] if isinstance(feature, list) else feature.get('feature', feature)
        return tuple(map(str, feature['names']))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return ()


def _is_list_of_labels(field, header_of) -> bool:
    import pyarrow

    kind = field.type
    is_flat = pyarrow.types.is_list(kind) and not pyarrow.types.is_nested(kind.value_type)
    return is_flat and field.name == header_of['label'] and not _is_bytes(kind.value_type)


def _images(files, column) -> Iterator[bytes]:
    import pyarrow.parquet

    for file in files:
        try:
            with pyarrow.parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_BATCH, columns=[column]):
                    for value in batch.column(0).to_pylist():
                        if isinstance(value, dict):
                            if value.get('path') and not value.get('bytes'):
                                raise DataError(
                                    f'{file}: field {column}: {value["path"]!r} is a path without '
                                    'bytes: embed the images in the file, or write a manifest.csv'
                                )
                            value = value.get('bytes')
                        yield value or b''
        except (OSError, pyarrow.ArrowException) as error:
            raise _unreadable(file, error) from error
