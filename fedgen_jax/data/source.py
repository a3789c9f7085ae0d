"""The one entry to data: from a center folder, or arguments of drawn centers, to a `Source`."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS, Center, Examples, Source
from fedgen_jax.data.folder import records as folder_lib
from fedgen_jax.data.folder.text import DataError, collected, kind_of, raise_first, row_error
from fedgen_jax.data.split import assign_splits
from fedgen_jax.data.store import Record, gather, stored
from fedgen_jax.data.targets import TARGETS, Target, target_of


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
      target: a kind of target ('label', 'mask', 'box', or as `targets.target_of` takes it) keeps
          that one alone, all unknown if the folder has none of it.  By default all that the folder
          has are kept, and `Source.classes` are those of the first of them in this order.
      max_boxes: M; default: the most boxes in one image of this folder.
      images: 'memory', or 'disk': images and masks are read from the store as they are indexed.

    Raises DataError: one line that names file, row and field, and the way out.
    """
    if image_size < 1:
        raise ValueError(f'image_size {image_size}: must be at least 1')
    file_root = pathlib.Path(root)
    folder = folder_lib.scan(file_root, target=target, classes=classes, max_boxes=max_boxes)
    records, metadata = stored(
        folder_lib.fingerprint(folder, image_size),
        lambda: folder_lib.records(folder, image_size),
        {'classes': folder.classes},
        cache,
        _on_disk(images, [kind for kind, _ in folder.found]),
    )
    source = assemble(records, metadata['classes'], seed, target)
    if require_train:
        _check_train(folder.manifest, source, target, unseen)
    return source._replace(notes=folder.notes)


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
        _on_disk(images, TARGETS.values()),
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
    kinds = [target_of(target)] if target else list(TARGETS.values())
    volumes = sorted({(r.center, r.volume) for of in by_center.values() for r in of if r.volume})
    number_of = {volume: i for i, volume in enumerate(volumes)}
    centers = [
        _to_center(name, by_center[name], seed, kinds, number_of) for name in sorted(by_center)
    ]
    first = target or next((key for key in TARGETS if key in classes), None)
    names = classes.get(target_of(first).name, ()) if first else ()
    return Source(tuple(centers), tuple(names), first)


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


def _on_disk(images: str, kinds: Iterable[Target]) -> tuple[str, ...]:
    """The arrays that stay in the store; images: as in `load`."""
    disk = ('image', *(name for kind in kinds for name in kind.on_disk))
    return {'memory': (), 'disk': disk}[images]


def _to_center(name, records, seed, kinds: Sequence[Target], number_of) -> Center:
    kinds = [kind for kind in kinds if set(kind.arrays) <= records[0].target.keys()]
    examples = Examples(
        gather([r.image for r in records]),
        {key: gather([r.target[key] for r in records]) for kind in kinds for key in kind.arrays},
        np.ones(len(records), np.float32),
    )
    if number_of and any(kind.by_volume for kind in kinds):
        examples.target['volume'] = np.array(
            [number_of.get((name, r.volume), -1) for r in records], np.int32
        )
    path_N = tuple(r.path for r in records)
    label_N = [int(r.target.get('label', -1)) for r in records]
    split_N = assign_splits(
        name, path_N,
        [r.patient for r in records],
        [label if label >= 0 else None for label in label_N],
        [r.split for r in records],
        seed,
    )
    return Center(
        name, examples, split_N, path_N, tuple(r.patient or r.path for r in records),
        tuple(r.size for r in records), tuple(r.assumed for r in records),
    )


def _check_train(manifest, source, target, unseen):
    """Each center but the unseen ones has a training row whose target is known."""
    kind = target_of(target) if target else None
    row_of = {row.center: row.number for row in reversed(manifest.rows)}
    mistakes = []
    for center in source.centers:
        train = center.split == SPLITS.index('train')
        known = kind.known(center.examples.target) if kind else np.array(True)
        if center.name in unseen or np.any(train & known):
            continue
        with collected(mistakes):
            if not np.any(train):
                row_error(
                    manifest.file, row_of[center.name], 'split',
                    f'center {center.name!r} has no training row among its {len(train)}: write '
                    'train in some, or add images',
                )
            file, field = kind.place
            where = f'{manifest.file.parent / file}: field {field}'
            if file == manifest.file.name:
                where = f'{manifest.file}: row {row_of[center.name]}, field {field}'
            way = (
                'write train in the split of rows that have one' if np.any(known)
                else 'fill it in, or remove the center'
            )
            raise DataError(
                f'{where}: center {center.name!r} has no {target} in any of its '
                f'{int(train.sum())} training rows: {way}', kind_of(field, way),
            )
    raise_first(mistakes, 'centers')
