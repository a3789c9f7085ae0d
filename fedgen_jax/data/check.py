"""What a person should see of a data set before a model learns from it.

`look` reads each image once, from memory or from the store, some thousand a second.
"""

import collections
import functools
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedgen_jax.data.examples import SPLITS, Center, Source
from fedgen_jax.data.folder.pictures import FEW_GRAYS
from fedgen_jax.data.folder.words import listed
from fedgen_jax.data.targets import target_of

A_FIFTH = 0.2
FEW = 5  # patients, or images without one: less do not fill three splits
_CHUNK = 256  # images in memory at a time
_PIXELS = 64  # along a side, that are looked at


class Facts(NamedTuple):
    """One center in numbers.

    patients: None where none is known.
    splits:   images of each of `SPLITS`.
    classes:  examples of each class of the source (`Target.count`), () without a target.
    sizes:    of the images in their files: (size, number of images), the commonest first.
    grays:    the fewest of 256 gray values that hold 99.9% of all pixels; the lowest and the
              highest of them.
    alike:    images that equal another of the center, at the size that they are read at.
    blank:    images of one color alone.
    assumed:  what reading took for granted: (text, number of images).
    """

    center: str
    images: int
    patients: int | None
    splits: tuple[int, ...]
    classes: tuple[int, ...]
    sizes: tuple[tuple[str, int], ...]
    grays: tuple[int, int, int]
    alike: int
    blank: int
    assumed: tuple[tuple[str, int], ...]


class Look(NamedTuple):
    """The facts of each center, and what a person should know, a line each."""

    rows: tuple[Facts, ...]
    notes: tuple[str, ...]


def look(source: Source, flips: bool = True) -> Look:
    """Facts and notes of a data set; flips: whether training mirrors images."""
    rows, prints = [], []
    for center in source.centers:
        facts, print_N = _facts(center, source)
        rows.append(facts)
        prints.append(print_N)
    notes = (
        *source.notes,
        *_on_reading(rows),
        *_on_copies(source.centers, rows, prints),
        *_on_sizes(source.centers, rows),
        *_on_classes(source, rows),
        *(_on_sides(source.classes) if flips else ()),
    )
    return Look(tuple(rows), notes)


def tell(source: Source, flips: bool) -> None:
    """Prints the notes of `look` to stderr, each once a process."""
    for note in look(source, flips).notes:
        say(note)


@functools.cache
def say(note: str) -> None:
    """Prints a note to stderr, once a process."""
    print(f'note: {note}', file=sys.stderr)


def _facts(center: Center, source: Source) -> tuple[Facts, list[bytes | None]]:
    """Also a fingerprint of each image, None of a blank one."""
    x, target = center.examples.image, center.examples.target
    kind = target_of(source.target) if source.target else None
    if kind is not None and not set(kind.arrays) <= target.keys():
        kind = None
    count_K, histogram, prints = np.zeros(len(source.classes), int), np.zeros(256, int), []
    step = -(-x.shape[1] // _PIXELS)
    for start in range(0, len(x), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        image_NxHxWx3 = np.asarray(x[chunk])
        histogram += np.bincount(image_NxHxWx3[:, ::step, ::step].ravel(), minlength=256)
        for image in image_NxHxWx3:
            one_color = np.all(image == image[0, 0])
            prints.append(None if one_color else hashlib.blake2b(image.tobytes()).digest())
        if kind is not None:
            part = {key: np.asarray(target[key][chunk]) for key in kind.arrays}
            count_K += kind.count(part, len(source.classes))
    count = collections.Counter(prints)
    blank = count.pop(None, 0)
    patients = len({u for u, path in zip(center.unit, center.path) if u != path})
    assumed = collections.Counter(x for text in center.assumed for x in text.splitlines())
    facts = Facts(
        center.name, len(x), patients or None,
        tuple(np.bincount(center.split, minlength=len(SPLITS)).tolist()),
        tuple(count_K.tolist()) if kind is not None else (),
        tuple(collections.Counter(s for s in center.size if s).most_common()),
        _grays(histogram),
        sum(n for n in count.values() if n > 1), blank, tuple(assumed.most_common()),
    )
    return facts, prints


def _grays(histogram_256: np.ndarray) -> tuple[int, int, int]:
    order = np.argsort(-histogram_256, kind='stable')
    share = np.cumsum(histogram_256[order]) / histogram_256.sum()
    used = order[: int(np.searchsorted(share, 0.999)) + 1]
    return len(used), int(used.min()), int(used.max())


def _line(details: Mapping[str, object], text: str) -> list[str]:
    """One line about some centers, each with a detail; none about none."""
    names = [f'center {name!r} ({detail})' for name, detail in details.items()]
    return [f'{listed(names, 4)}: {text}'] if names else []


def _on_reading(rows: Sequence[Facts]) -> list[str]:
    notes: list[str] = []
    by_text: dict[str, dict[str, str]] = {}
    for row in rows:
        for text, number in row.assumed:
            by_text.setdefault(text, {})[row.center] = f'{number} of {row.images} images'
    for text, details in by_text.items():
        notes += _line(details, text)
    notes += _line(
        {r.center: '{} of 256 grays, {} to {}'.format(*r.grays)
         for r in rows if r.grays[0] < FEW_GRAYS and r.blank < r.images},
        'few gray values: where files hold fewer bits than their type, set data.window, or save '
        'them in its full range',
    )
    return notes + _line(
        {r.center: f'{r.blank} of {r.images}' for r in rows if r.blank >= A_FIFTH * r.images},
        'images of one color alone: correct or remove them',
    )


def _on_copies(centers, rows, prints) -> list[str]:
    size = np.shape(centers[0].examples.image)[1]
    notes = _line(
        {r.center: f'{r.alike} of {r.images}' for r in rows if r.alike >= A_FIFTH * r.images},
        f'images alike at {size} pixels: list each once if they are copies',
    )
    leaks: dict[str, int] = {}
    places: dict[bytes, dict[str, str]] = {}
    for center, print_N in zip(centers, prints):
        train = {p for p, s in zip(print_N, center.split) if p and s == SPLITS.index('train')}
        rest = [p for p, s in zip(print_N, center.split) if p in train and s]
        if rest:
            leaks[center.name] = len(rest)
        for p, path in zip(print_N, center.path):
            if p:
                places.setdefault(p, {}).setdefault(center.name, path)
    notes += _line(
        leaks,
        f'validation or test images that equal training images at {size} pixels: remove copies, or '
        'give both one patient',
    )
    shared = [where for where in places.values() if len(where) > 1]
    if shared:
        first = ' and '.join(f'{path!r} of {name!r}' for name, path in list(shared[0].items())[:2])
        notes.append(
            f'{len(shared)} images are alike at {size} pixels in several centers, the first '
            f'{first}: keep each in one center'
        )
    return notes


def _on_sizes(centers, rows) -> list[str]:
    one, tiny, split = {}, {}, {}
    for center, r in zip(centers, rows):
        units = len(set(center.unit))
        absent = [name for name, number in zip(SPLITS, r.splits) if not number]
        if r.patients == 1 and units == 1 and r.images > 1:
            one[r.center] = f'patient {center.unit[0]!r}, {r.images} images'
        elif units < FEW:
            tiny[r.center] = f'{units} patients' if r.patients else f'{r.images} images'
        elif absent:
            split[r.center] = f'no {" nor ".join(absent)}'
    return [
        *_line(
            one,
            'one patient holds the whole center, so that it has one split alone: correct the '
            'column patient if it is no person',
        ),
        *_line(tiny, f'fewer than {FEW}, so that scores say little: add images, or merge centers'),
        *_line(split, 'no images of a split, so that it is left out there: write the column split'),
    ]


def _on_classes(source: Source, rows: Sequence[Facts]) -> list[str]:
    names = source.classes
    none, one, lacks = {}, {}, {}
    total_K = np.sum([r.classes for r in rows if r.classes] or [(0,) * len(names)], axis=0)
    for r in rows:
        has = [name for name, number in zip(names, r.classes) if number]
        lack = [n for n, number, k in zip(names, r.classes, total_K) if k and not number]
        if r.classes and not has:
            none[r.center] = f'{r.images} images'
        elif len(has) == 1 and len(names) > 1:
            one[r.center] = has[0]
        elif lack:
            lacks[r.center] = listed(lack)
    notes = [
        *_line(none, f'no {source.target} is known: it can be held out, but neither train nor be '
                     'scored'),
        *_line(one, 'all examples are of one class: correct the table if others should be there'),
        *_line(lacks, 'no example of a class: its scores leave the class out'),
    ]
    nowhere = [name for name, k in zip(names, total_K) if not k]
    if nowhere and np.any(total_K):
        notes.append(
            f'{listed([f"class {name!r}" for name in nowhere])}: no example at any center: remove '
            'the name, or correct it'
        )
    return notes


def sided(classes: Sequence[str]) -> list[str]:
    """Class names that tell left from right, which an image and its mirror image do not."""
    words = {name: re.findall('[A-Z]+(?![a-z])|[A-Z]?[a-z]+', name) for name in classes}
    known = {tuple(w.casefold() for w in of) for of in words.values()}

    def told(of):
        for i, word in enumerate(of):
            if word.casefold() in ('left', 'right'):
                return True
            # L and R are sides where a pair of names differs in them alone: lung_L and lung_R.
            short = len(word) == 1 or word.isupper()
            other = {'l': 'r', 'r': 'l'}.get(word[0].casefold()) if short else None
            if other:
                swapped = (*of[:i], other + word[1:], *of[i + 1 :])
                if tuple(w.casefold() for w in swapped) in known:
                    return True
        return False

    return [name for name, of in words.items() if told(of)]


def _on_sides(classes: Sequence[str]) -> list[str]:
    sides = sided(classes)
    if not sides:
        return []
    return [
        f'{listed([f"class {name!r}" for name in sides])}: left and right cannot be told apart '
        'while training flips images: turn flips off'
    ]
