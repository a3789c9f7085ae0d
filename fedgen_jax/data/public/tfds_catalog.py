"""Sets of the TFDS catalog."""

from collections.abc import Sequence

import numpy as np

from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.public.cuts import Arrays


def read_tfds(
    name: str,
    data_dir: str | None = None,
    image: str = 'image',
    label: str = 'label',
    columns: Sequence[str] = (),
) -> Arrays:
    """Reads all splits of a set of the TFDS catalog, downloading it if need be.

    Its own splits are kept if they are training, validation and test, else all is drawn anew.
    Sets with `Image` features import TensorFlow when they are first built: install
    'fedgen_jax[catalog]'; those that are built already do not.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
    builder.download_and_prepare()
    ours = {'train': 'train', 'validation': 'val', 'val': 'val', 'test': 'test'}
    names = sorted(builder.info.splits)
    keep = sorted(ours.get(n, '') for n in names) == ['test', 'train', 'val']
    examples, path, split = [], [], []
    for n in names:
        part = list(builder.as_data_source(n))
        examples += part
        path += [f'{n}/{i}' for i in range(len(part))]
        split += [ours[n] if keep else ''] * len(part)
    for field in (image, label, *columns):
        if field not in builder.info.features:
            known = ', '.join(builder.info.features)
            raise DataError(f'{name}: field {field}: the set has none: use one of {known}')
    label_N = np.array([e[label] for e in examples], np.int32)
    classes = getattr(builder.info.features[label], 'names', None)
    return Arrays(
        [np.asarray(e[image]) for e in examples],
        label_N,
        tuple(path),
        tuple(split),
        tuple(classes or (str(k) for k in range(label_N.max() + 1))),
        {key: np.array([e[key] for e in examples]) for key in columns},
    )
