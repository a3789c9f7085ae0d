"""MedMNIST files."""

import os
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.public.cuts import Arrays


def read_medmnist(file: str | os.PathLike, classes: Sequence[str] = ()) -> Arrays:
    """Reads an npz in MedMNIST's format: {train,val,test}_{images,labels}; pickles are refused.

    classes: names; default '0', '1', ...  Reference: Yang et al., 2023, MedMNIST v2, Scientific
    Data 10:41.
    """
    image, labels, path, split = [], [], [], []
    for name in ('train', 'val', 'test'):
        image_N, label_N = (_read_member(file, f'{name}_{key}') for key in ('images', 'labels'))
        label_N = label_N.reshape(len(label_N), -1)
        if image_N.dtype != np.uint8 or image_N.ndim not in (3, 4):
            raise DataError(
                f'{file}: field {name}_images: {image_N.dtype} {list(image_N.shape)}: must be '
                'uint8 [N, H, W] or [N, H, W, 3]'
            )
        if label_N.shape != (len(image_N), 1) or label_N.dtype.kind not in 'iu':
            raise DataError(
                f'{file}: field {name}_labels: {label_N.dtype} {list(label_N.shape)}: must be one '
                f'integer for each of the {len(image_N)} images'
            )
        image += list(image_N)
        labels.append(label_N[:, 0].astype(np.int32))
        path += [f'{name}/{i}' for i in range(len(image_N))]
        split += [name] * len(image_N)
    label = np.concatenate(labels)
    classes = tuple(classes) or tuple(str(k) for k in range(label.max() + 1))
    if label.min() < 0 or label.max() >= len(classes):
        raise DataError(
            f'{file}: field labels: from {label.min()} to {label.max()}, but there are '
            f'{len(classes)} classes: name all of them'
        )
    return Arrays(image, label, tuple(path), tuple(split), classes, {})


def _read_member(file, name):
    # Each access of an npz decompresses the member anew, so each is read just once.
    try:
        with open(file, 'rb') as opened, np.load(opened, allow_pickle=False) as archive:
            return archive[name]
    except KeyError as error:
        raise DataError(f'{file}: field {name}: missing: save it as MedMNIST does') from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f'{file}: field {name}: cannot be read ({error}): save plain arrays with numpy.savez'
        ) from error
