"""The one entry to data: from files, or arguments of drawn centers, to a `Source`."""

import collections
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS, Center, Examples, Original, Source
from fedgen_jax.data.folder import records as folder_lib
from fedgen_jax.data.folder.manifest import Manifest
from fedgen_jax.data.folder.text import (
    DataError,
    collected,
    kind_of,
    place_of,
    raise_first,
    row_error,
)
from fedgen_jax.data.folder.words import listed
from fedgen_jax.data.originals import of_manifest
from fedgen_jax.data.public.cuts import cut_of
from fedgen_jax.data.split import add_validation, assign_splits
from fedgen_jax.data.store import Record, gather, stored
from fedgen_jax.data.targets import MASK, TARGETS, Target, target_of

TASK_OF = {
    'label': 'classification', 'labels': 'multilabel', 'mask': 'segmentation', 'box': 'detection',
}  # of a folder's targets


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
    columns: str = '',
    cut: str = '',
    window: str = '',
) -> Source:
    """Loads data of any form (see `forms`), decoded once and kept in the store.

    Args:
      root: the folder with manifest.csv, a table, a tree of folders, an .npz, a .parquet or
          tfds:NAME.
      image_size: S; images become [S, S, 3].
      seed: of the split, 60/20/20 by patient where one is known, else by image; given ones are
          kept, with validation out of training where they have none (`split.add_validation`).
      cache: folder of the stores; default $FEDGEN_CACHE, or ~/.cache/fedgen_jax.
      classes: the class names of the target, such as a trained model's; others are an error.
      require_train: whether each center must have a training row whose target is known; False for
          a folder to onboard.
      unseen: centers that need none either.
      target: a kind of target ('label', 'labels', 'mask', 'box', or as `targets.target_of` takes
          it) keeps that one alone, all unknown if the folder has none of it.  By default all that
          the folder has are kept, and `Source.classes` are those of the first of them in this
          order.
      max_boxes: M; default: the most boxes in one image of this folder.
      images: 'memory', or 'disk': images and masks are read from the store as they are indexed.
      columns: which headers stand for our columns, 'label:target,center:hospital'.
      cut: of data with one center, into several (`public.cuts.cut_of`); depends on the seed.
      window: what is black and white of deep gray files (`folder.windows.of_centers`).

    Raises DataError: one line that names file, row and field, and the way out.
    """
    if image_size < 1:
        raise ValueError(f'image_size {image_size}: must be at least 1')
    folder = folder_lib.scan(
        root, target=target, classes=classes, max_boxes=max_boxes, columns=columns
    )
    records, metadata = stored(
        folder_lib.fingerprint(folder, image_size, window),
        lambda: folder_lib.records(folder, image_size, window),
        {'classes': folder.classes},
        cache,
        _on_disk(images, [kind for kind, _ in folder.found]),
    )
    of_centers = cut_of(records, cut, seed) if cut else records
    split, notes = _with_validation(of_centers, seed)
    source = assemble(split, metadata['classes'], seed, target)
    source = _with_more(source, folder.manifest)
    if any(kind is MASK for kind, _ in folder.found):
        source = _with_originals(source, of_manifest(folder.manifest))
    if require_train:
        _check_train(folder.manifest, source, target, unseen)
    return source._replace(notes=folder.notes + notes)


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


def _with_more(source: Source, manifest: Manifest) -> Source:
    """The source with the cells of the table's further columns, if it has any."""
    more = {row.image: row.more for row in manifest.rows}
    if not any(more.values()):
        return source
    return source._replace(centers=tuple(
        c._replace(more=tuple(more.get(path, {}) for path in c.path)) for c in source.centers
    ))


def _with_originals(source: Source, original: Mapping[str, Original]) -> Source:
    """The source with the files of images and masks, where they are files."""
    return source._replace(centers=tuple(
        c._replace(original=tuple(original[path] for path in c.path) if original else ())
        for c in source.centers
    ))


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
    split_N = assign_splits(
        name, path_N, [r.patient for r in records], _strata(records), [r.split for r in records],
        seed,
    )
    return Center(
        name, examples, split_N, path_N, tuple(r.patient or r.path for r in records),
        tuple(r.size for r in records), tuple(r.assumed for r in records),
        records[0].window,
    )


def _with_validation(records, seed) -> tuple[list[Record], tuple[str, ...]]:
    """The records after `add_validation` at each center, with a note of where it took some."""
    found, moved = list(records), {}
    by_center = collections.defaultdict(list)
    for i, record in enumerate(found):
        by_center[record.center].append(i)
    for name, members in by_center.items():
        of = [found[i] for i in members]
        given_N = [r.split for r in of]
        now_N = add_validation(
            name, [r.path for r in of], [r.patient for r in of], _strata(of), given_N, seed
        )
        for i, split in zip(members, now_N):
            found[i] = found[i]._replace(split=split)
        moved[name] = sum(was != now for was, now in zip(given_N, now_N))
    shown = [f'center {name!r} ({number} images)' for name, number in moved.items() if number]
    note = (
        f'{listed(shown, 4)}: the splits given are training and test alone, so that a fifth of the '
        'patients to train on is validation: write val in the split to choose them'
    )
    return found, (note,) * bool(shown)


def _strata(records) -> list[int | None]:
    """What splits are spread over, None where it is unknown."""
    return [_stratum(r) for r in records]


def _stratum(record: Record) -> int | None:
    """What a split keeps the shares of: an image's class, or that some of its classes are known."""
    if 'label' in record.target:
        label = int(record.target['label'])
    else:
        label = 0 if np.any(record.target.get('labels', -1) >= 0) else -1
    return label if label >= 0 else None


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
            if center.name not in row_of:
                raise DataError(
                    f'data.cut: center {center.name!r} has nothing to train on among its '
                    f'{len(train)} images: raise ALPHA, or lower CENTERS', 'cut',
                )
            if not np.any(train):
                row_error(
                    manifest.file, row_of[center.name], 'split',
                    f'center {center.name!r} has no training row among its {len(train)}: write '
                    'train in some, or add images',
                )
            file, field = kind.place
            where = f'{manifest.file.parent / file}: field {field}'
            if file == 'manifest.csv':
                where = place_of(manifest.file, row_of[center.name], field)
            way = (
                'write train in the split of rows that have one' if np.any(known)
                else 'fill it in, hold the center out (--held_out), or remove it'
            )
            others = [TASK_OF[x] for x, of in TARGETS.items() if x != target and of.has(manifest)]
            if others and not np.any(known):
                way += f'; for what the folder has, pass --task={" or ".join(others)}'
            raise DataError(
                f'{where}: center {center.name!r} has no {target} in any of its '
                f'{int(train.sum())} training rows: {way}', kind_of(field, way),
            )
    raise_first(mistakes, 'centers')
