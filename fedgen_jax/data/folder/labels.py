"""The column `label`: the name of a class in a cell, or the names of several, 'Edema|Effusion'."""

import re
from collections.abc import Iterable, Sequence

from fedgen_jax.data.folder import words
from fedgen_jax.data.folder.manifest import Manifest, Row
from fedgen_jax.data.folder.text import DataError, collected, raise_first, row_error

BETWEEN = '|'
NOTHING = ('no finding', 'no findings')  # an image that shows no class, where this is none itself


def names_in(cell: str) -> list[str]:
    """The names in a cell; none in an empty one."""
    return [name.strip() for name in cell.split(BETWEEN)] if cell else []


def _parts(name: str) -> list[str]:
    """The parts of a name with ; , or / between them; [] of a name without."""
    parts = [part.strip() for part in re.split('[;,/]', name)]
    return parts if len(parts) > 1 else []


def says_nothing(name: str) -> bool:
    """Whether a name says that an image shows no class."""
    return words.plain(name) in NOTHING


def has_several(manifest: Manifest) -> bool:
    """Whether a cell holds several names, and is not the name of one class."""
    known = manifest.names.get('classes', ())
    return any(BETWEEN in row.label and row.label not in known for row in manifest.rows)


def scan_one(
    manifest: Manifest, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes of a column with one name in a cell, and notes.

    classes: a trained model's, or None.  Raises DataError.
    """
    classes = classes or manifest.names.get('classes')
    for row in manifest.rows:
        if BETWEEN in row.label and row.label not in (classes or ()):
            row_error(
                manifest.file, row.number, 'label',
                f'{row.label!r} holds several labels: learn with task=multilabel, or list it in '
                '"classes" of classes.json if it is one name',
            )
    named = [(row, [row.label] if row.label else []) for row in manifest.rows]
    return _scan(manifest, classes, named)


def scan_several(
    manifest: Manifest, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same where a cell may hold several names."""
    classes = classes or manifest.names.get('classes')
    named, mistakes = [], list[DataError]()
    for row in manifest.rows:
        names = names_in(row.label)
        with collected(mistakes):
            _check_cell(manifest, row, names)
            named.append((row, names))
    raise_first(mistakes, 'rows')
    if classes:
        named = [
            (row, [x for x in names if x in classes or not says_nothing(x)])
            for row, names in named
        ]
    found, notes = _scan(manifest, classes, named)
    if not found and 'label' not in manifest.columns:
        raise DataError(
            f'{manifest.file}: no column label: write one with the names of what an image shows, '
            f'such as A{BETWEEN}B, also in place of a column of 0 and 1 for each name'
        )
    if not found:
        raise DataError(
            f'{manifest.file}: field label: no cell names a class: fill some in, or list "classes" '
            'in classes.json'
        )
    own = [name for name in found if says_nothing(name)] if not classes else []
    return found, (*notes, *(
        f'{manifest.file}: {name!r} is learned as a class of its own: list the other names in '
        '"classes" of classes.json if it says that none of them is there'
        for name in own
    ))


def _check_cell(manifest, row, names):
    if '' in names:
        row_error(
            manifest.file, row.number, 'label',
            f'{row.label!r} has an empty name: write NAME{BETWEEN}NAME',
        )
    if len(set(names)) < len(names):
        row_error(manifest.file, row.number, 'label', f'{row.label!r} has a name twice: remove one')
    nothing = [name for name in names if says_nothing(name)]
    if nothing and len(names) > 1:
        row_error(
            manifest.file, row.number, 'label',
            f'{row.label!r} says {nothing[0]!r} and names a finding: remove one of them',
        )


def _scan(
    manifest: Manifest, classes: Sequence[str] | None, named: list[tuple[Row, list[str]]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    notes = []
    if not classes:
        _check_names(manifest, named)
        classes = sorted({name for _, names in named for name in names})
        notes = [
            f'{manifest.file}: class {name!r} reads like a missing value and is learned: leave '
            'its cells empty, or list it in "classes" of classes.json if it is meant'
            for name in classes if words.may_be_missing(name)
        ]
    mistakes: list[DataError] = []
    for row, names in named:
        for name in names:
            if name not in classes:
                with collected(mistakes):
                    row_error(
                        manifest.file, row.number, 'label',
                        f'unknown label {name!r}: use one of {", ".join(classes)}, or nothing',
                    )
    raise_first(mistakes, 'rows')
    return tuple(classes), tuple(notes)


def _check_names(manifest: Manifest, named: Iterable[tuple[Row, list[str]]]) -> None:
    """Refuses labels that are missing values, or one class in several spellings.

    classes.json tells that they are meant.
    """
    first: dict[str, int] = {}
    for row, names in named:
        for name in names:
            first.setdefault(name, row.number)
    missing = [label for label in first if words.is_missing(label)]
    missing += words.negative(first.keys() - set(missing))
    groups = words.spellings(first.keys() - set(missing))
    several = [name for name in first if _parts(name) and set(_parts(name)) <= first.keys()]
    if several:
        row_error(
            manifest.file, first[several[0]], 'label',
            f'{several[0]!r} holds names that are labels by themselves: write '
            f'{BETWEEN.join(_parts(several[0]))}, or list all names in "classes" of classes.json '
            'if it is one name',
        )
    said = [f'{words.shown(group)} differ in spelling alone' for group in groups]
    if missing:
        said.append(f'{words.shown(missing)} read like missing values')
    if said:
        number = min(first[label] for group in (missing, *groups) for label in group)
        row_error(
            manifest.file, number, 'label',
            f'{"; ".join(said)}: write one spelling, leave unknown cells empty, or list the '
            'names in "classes" of classes.json if they are meant',
        )
