"""Folders of images whose names are the table: CENTER/SPLIT/CLASS/x.png, as ImageFolder has them.

    of classes    CLASS/   CENTER/CLASS/   SPLIT/CLASS/   CENTER/SPLIT/CLASS/   SPLIT/CENTER/CLASS/
    of masks      the same with images/ in place of CLASS/, and masks/ beside it: a mask has the
                  name of its image, apart from the suffix
    of neither    images right in the folder, or in images/ without masks/

A level is SPLIT if each of its names is a word for a split.  Without CENTER the folder itself is
the one center.
"""

import collections
import os
import pathlib
from collections.abc import Iterator, Sequence

from fedgen_jax.data.folder import decode, nifti
from fedgen_jax.data.folder.headers import Columns, none_for
from fedgen_jax.data.folder.manifest import Table, read_classes
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.folder.words import listed, split_of

IMAGES = ('images', 'image', 'imgs', 'img', 'imagestr')
MASKS = ('masks', 'mask', 'segmentations', 'segmentation', 'labels', 'labelstr', 'labelsts')
WAY = 'arrange them so, or write a manifest.csv'
KNOWN = ('CLASS', 'CENTER/CLASS', 'SPLIT/CLASS', 'CENTER/SPLIT/CLASS', 'SPLIT/CENTER/CLASS')

Folders = tuple[str, ...]  # names, from the root down


def has(root: pathlib.Path) -> bool:
    files = (root.joinpath(*of, name) for of, name in _walk(root)) if root.is_dir() else ()
    return any(decode.kind_of(file) for file in files)


def read_table(root: pathlib.Path, columns: Columns) -> Table:
    """The table that the folders stand for, with a note of what was assumed."""
    none_for(columns, 'a tree of folders')
    images, masks, other = _sorted_out(root)
    marked = {of[-1:] != () and of[-1].casefold() in IMAGES for of, _ in images}
    if len(marked) > 1:
        raise DataError(f'{root}: images in folders {IMAGES[0]} and elsewhere: {WAY}')
    is_marked = marked == {True}
    if masks and not is_marked:
        raise DataError(f'{root}: folders {MASKS[0]} without {IMAGES[0]} beside them: {WAY}')
    names = read_classes(root)
    above = sorted({of[:-1] if is_marked else of for of, _ in images})
    levels = _levels(root, above, is_marked, names.get('classes', ()))
    mask_of = _mask_of(root, images, masks)
    fields = ['image', 'center', *sorted(set(levels) - {'center'}), *['mask'] * bool(masks)]
    lines: list[tuple[int, Sequence[str]]] = [(0, fields)]
    own_name = root.resolve().name
    for number, (of, name) in enumerate(images, start=1):
        path = '/'.join((*of, name))
        cell = {'image': path, 'center': own_name, 'mask': mask_of.get(path, '')}
        cell |= dict(zip(levels, of))
        lines.append((number, [cell[field] for field in fields]))
    notes = _notes(root, levels, is_marked, images, mask_of if masks else None, other)
    return Table(root / '*', lines, names, notes)


def _walk(root: pathlib.Path) -> Iterator[tuple[Folders, str]]:
    """(folders, name) of all files, sorted, without hidden ones."""
    for folder, folders, files in os.walk(root, followlinks=True):
        of = pathlib.Path(folder).relative_to(root).parts
        passed = {os.path.realpath(root.joinpath(*of[:i])) for i in range(len(of) + 1)}
        folders[:] = sorted(
            f for f in folders if not f.startswith(('.', '__MACOSX'))
            and os.path.realpath(os.path.join(folder, f)) not in passed  # a link that leads back
        )
        for name in sorted(files):
            if not name.startswith('.'):
                yield of, name


def _sorted_out(root):
    """Images and masks, each (folders, name), and the paths of files that are neither."""
    images, masks, other = [], [], []
    for of, name in _walk(root):
        if not decode.kind_of(root.joinpath(*of, name)):
            other.append('/'.join((*of, name)))
        elif of and of[-1].casefold() in MASKS:
            masks.append((of, name))
        else:
            images.append((of, name))
    if not images:
        raise DataError(f'{root}: masks without images: {WAY}')
    return images, masks, other


def _levels(root, above: Sequence[Folders], is_marked: bool, classes) -> tuple[str, ...]:
    """What each level of folders is: 'center', 'split' or 'label'.  Raises DataError."""
    depths = sorted({len(of): of for of in above}.items())
    if len(depths) > 1:
        shown = ' and '.join(repr('/'.join((*of, 'x'))) for _, of in (depths[0], depths[-1]))
        raise DataError(f'{root}: images at several depths, such as {shown}: {WAY}')
    depth = depths[0][0]
    named = [{x.casefold() for x in of} for of in above]
    found = next(('/'.join(of) for of, words in zip(above, named) if words & {*MASKS}), None)
    if found and set().union(*named) & {*IMAGES}:
        raise DataError(
            f'{root}: {found!r}: a folder of masks above others: put {MASKS[0]} beside '
            f'{IMAGES[0]}, below the center: {WAY}'
        )
    splits = []
    for i in range(depth):
        words = {of[i] for of in above}
        known = {word for word in words if split_of(word)}
        if known == words:
            splits.append(i)
        elif known:
            others = listed(sorted(words - known))
            raise DataError(
                f'{root}: folders {listed(sorted(known))} are splits, {others} beside them are '
                f'not: {WAY}'
            )
    rest = [i for i in range(depth) if i not in splits]
    what = ('center',) if is_marked else ('center', 'label') if len(rest) > 1 else ('label',)
    is_last = not splits or is_marked or splits[0] < depth - 1
    if len(splits) > 1 or len(rest) > len(what) or not is_last:
        shown = '/'.join(above[0])
        ways = ', '.join(KNOWN).replace('CLASS', IMAGES[0]) if is_marked else ', '.join(KNOWN)
        raise DataError(f'{root}: {shown!r} is none of {ways}: {WAY}')
    level_of = dict(zip(rest, what)) | dict.fromkeys(splits, 'split')
    levels = tuple(level_of[i] for i in range(depth))
    if 'center' in levels and 'label' in levels:
        _check_classes(root, above, levels, classes)
    return levels


def _check_classes(root, above, levels, classes):
    """Refuses CLASS/PATIENT, which looks like CENTER/CLASS: centers have classes in common."""
    centers_of = collections.defaultdict(set)
    for of in above:
        at = dict(zip(levels, of))
        centers_of[at['label']].add(at['center'])
    centers = set().union(*centers_of.values())
    shared = any(len(of) > 1 for of in centers_of.values())
    if len(centers) > 1 and not shared and not set(centers_of) <= set(classes):
        raise DataError(
            f'{root}: read as CENTER/CLASS, {listed(sorted(centers), 3)} have no class in common, '
            f'such as {next(iter(centers_of))!r}: list them in "classes" of classes.json if they '
            'are classes, or write a manifest.csv'
        )


def _mask_of(root, images, masks) -> dict[str, str]:
    """{path of an image: path of its mask}."""
    of_key, first_of = collections.defaultdict(list), dict[tuple, str]()
    for of, name in masks:
        of_key[of[:-1], _stem(name)].append('/'.join((*of, name)))
    found = {}
    for of, name in images:
        key = of[:-1], _stem(name)
        paths = of_key.get(key, [])
        path = '/'.join((*of, name))
        first = first_of.setdefault(key, path)
        if paths and first != path:
            raise DataError(
                f"{root}: {first!r} and {path!r}: two images, and {paths[0]!r} has the name of "
                f'both: {WAY}'
            )
        if len(paths) > 1:
            raise DataError(f'{root}: {paths[0]!r} and {paths[1]!r}: two masks of one image: {WAY}')
        if paths:
            found[path] = paths[0]
    if alone := [paths[0] for key, paths in of_key.items() if key not in first_of]:
        raise DataError(
            f'{root}: {alone[0]!r} ({len(alone)} masks in all) has no image of its name in '
            f'{IMAGES[0]}: name both alike, or write a manifest.csv'
        )
    return found


def _stem(name: str) -> str:
    suffix = next((s for s in nifti.SUFFIXES[::-1] if name.lower().endswith(s)), '')
    return name[: -len(suffix)] if suffix else pathlib.PurePath(name).stem


def _notes(root, levels, is_marked, images, mask_of, other) -> tuple[str, ...]:
    words = {'center': 'CENTER', 'split': 'SPLIT', 'label': 'CLASS'}
    shown = '/'.join((*(words[level] for level in levels), *[IMAGES[0]] * is_marked, 'x'))
    center = '' if 'center' in levels else f', one center, {root.resolve().name!r}'
    label = '' if 'label' in levels or mask_of else ', nothing to learn from'
    notes = [
        f'{root}: read as {shown}{center}{label}; patients are known of DICOM headers alone: write '
        'a manifest.csv if one has several images'
    ]
    if mask_of is not None and len(mask_of) < len(images):
        notes.append(f'{root}: {len(images) - len(mask_of)} of {len(images)} images have no mask')
    tables = [path for path in other if path.lower().endswith(('.csv', '.tsv', '.xlsx'))]
    rest = [path for path in other if path not in tables and not path.endswith('classes.json')]
    if tables:
        notes.append(
            f'{root}: {listed(tables, 3)}: not read: pass FOLDER/TABLE.csv in place of the folder '
            'if it lists the images'
        )
    unread = [path for path in rest if path != 'annotations.json']
    if unread:
        notes.append(f'{root}: {len(unread)} other files are left out, such as {unread[0]!r}')
    return tuple(notes)
