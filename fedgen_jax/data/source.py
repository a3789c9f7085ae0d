"""The one entry to data: a center folder, or the arguments of drawn ones, in; a `Source` out."""

import collections
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fedgen_jax.data import folder as folder_lib
from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS, TARGETS, UNKNOWN, Center, Examples, Source
from fedgen_jax.data.folder.manifest import DataError, row_error
from fedgen_jax.data.split import assign_splits
from fedgen_jax.data.store import Record, gather, stored

# Which examples have a target that is known.
_KNOWN = {
    'label': lambda target: target['label'] >= 0,
    'mask': lambda target: (target['mask'][:] != UNKNOWN).any((1, 2)),
    'box': lambda target: (target['box_class'] >= 0).any(1),
}

_ON_DISK = {'memory': (), 'disk': ('image', 'mask')}


def load(
    root: str | os.PathLike,
    image_size: int,
    seed: int,
    cache: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    require_train: bool = True,
    *,
    unseen: Sequence[str] = (),
    target: str | None = None,
    max_boxes: int | None = None,
    images: str = 'memory',
) -> Source:
    """Loads a center folder (see `folder`), decoded once and kept in the store.

    Args:
      root: the folder with manifest.csv.
      image_size: S; images become [S, S, 3].
      seed: of the split, 60/20/20 by patient where one is known, else by image.
      cache: folder of the stores; default $FEDGEN_CACHE, or ~/.cache/fedgen_jax.
      classes: the class names of the target, such as a trained model's; others are an error.
      require_train: whether each center must have a training row whose target is known; False for
          a folder to onboard.
      unseen: centers that need none either.
      target: 'label', 'mask' or 'box' keeps that one alone, all unknown if the folder has none
          of it.  By default all that the folder has are kept, and `Source.classes` are those of
          the first of them in this order.
      max_boxes: M; default: the most boxes in one image of this folder.
      images: 'memory', or 'disk': images and masks are read from the store as they are indexed.

    Raises DataError: one line that names file, row and field, and the way out.
    """
    if image_size < 1:
        raise ValueError(f'image_size {image_size}: must be at least 1')
    folder = folder_lib.scan(root, target=target, classes=classes, max_boxes=max_boxes)
    records, metadata = stored(
        folder_lib.fingerprint(folder, image_size),
        lambda: folder_lib.records(folder, image_size),
        {'classes': folder.classes},
        cache,
        _ON_DISK[images],
    )
    source = assemble(records, metadata['classes'], seed, target)
    if require_train:
        _check_train(folder, source, target, unseen)
    return source


def draw(
    num_centers: int,
    num_examples: int,
    image_size: int,
    seed: int,
    spread: float,
    target: str,
    scanner: int = 0,
    cache: str | os.PathLike | None = None,
    images: str = 'memory',
) -> Source:
    """The synthetic source, drawn once and kept in the store; arguments as `synthetic.centers`.

    images: as in `load`.
    """
    arguments = [num_centers, num_examples, image_size, seed, spread, scanner]
    records, metadata = stored(
        {'synthetic': arguments, 'version': synthetic.VERSION},
        lambda: to_records(synthetic.centers(*arguments[:5], scanner=scanner)),
        {'classes': synthetic.CLASSES_OF},
        cache,
        _ON_DISK[images],
    )
    return assemble(records, metadata['classes'], seed, target)


def assemble(
    records: Iterable[Record],
    classes: dict[str, Sequence[str]],
    seed: int,
    target: str | None = None,
) -> Source:
    """Gathers records into centers, sorted by name, and splits each (see `split`).

    classes: the class names of each target; target: as in `load`.
    """
    by_center = collections.defaultdict(list)
    for record in records:
        by_center[record.center].append(record)
    target_keys = TARGETS[target] if target else None
    volumes = sorted({(r.center, r.volume) for of in by_center.values() for r in of if r.volume})
    number_of = {volume: i for i, volume in enumerate(volumes)}
    centers = [
        _to_center(name, by_center[name], seed, target_keys, number_of)
        for name in sorted(by_center)
    ]
    first = target or next((key for key in TARGETS if key in classes), None)
    return Source(tuple(centers), tuple(classes.get(first, ())))


def to_records(centers: Iterable[Center]) -> Iterator[Record]:
    """The records of centers that are in memory.

    Their splits count as given; a center whose split is None is split when it is assembled.
    """
    for center in centers:
        image = np.asarray(center.examples.image)
        target = {key: np.asarray(x) for key, x in center.examples.target.items()}
        for i, path in enumerate(center.path):
            split = '' if center.split is None else SPLITS[center.split[i]]
            patient = '' if center.unit[i] == path else center.unit[i]
            arrays = {key: x[i] for key, x in target.items()}
            yield Record(image[i], arrays, center.name, path, patient, split)


def _to_center(name, records, seed, target_keys, number_of) -> Center:
    keys = records[0].target if target_keys is None else target_keys
    examples = Examples(
        gather([r.image for r in records]),
        {key: gather([r.target[key] for r in records]) for key in keys},
        np.ones(len(records), np.float32),
    )
    if 'mask' in keys and number_of:
        examples.target['volume'] = np.array(
            [number_of.get((name, r.volume), -1) for r in records], np.int32
        )
    path_N = tuple(r.path for r in records)
    split_N = assign_splits(
        name, path_N,
        [r.patient for r in records],
        [int(r.target.get('label', -1)) for r in records],
        [r.split for r in records],
        seed,
    )
    return Center(name, examples, split_N, path_N, tuple(r.patient or r.path for r in records))


def _check_train(folder, source, target, unseen):
    known = _KNOWN.get(target, lambda target: np.array(True))
    for center in source.centers:
        train = center.split == SPLITS.index('train')
        if center.name in unseen or np.any(train & known(center.examples.target)):
            continue
        row = next(row for row in folder.manifest.rows if row.center == center.name)
        if not np.any(train):
            row_error(
                folder.manifest.file, row.number, 'split',
                f'center {center.name!r} has no training row among its {len(train)}: write '
                'train in some, or add images',
            )
        if target == 'box':
            raise DataError(
                f'{folder.root / "annotations.json"}: field annotations: no box in a training '
                f'image of center {center.name!r}: add its boxes, or remove it from the manifest'
            )
        row_error(
            folder.manifest.file, row.number, target,
            f'center {center.name!r} has no {target} in any of its {int(train.sum())} training '
            f'rows: fill in the column {target}, or remove the center',
        )


def has_target(center: Center, target: str) -> np.ndarray:
    """bool [N]: which of a center's examples have a target that is known."""
    return _KNOWN[target](center.examples.target)
