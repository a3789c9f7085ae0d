"""Words as people write them in tables: missing values, several spellings of one name, splits."""

import collections
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

# What spreadsheets, databases and programs write where a value is missing.
MISSING = frozenset({
    '', 'nan', 'na', 'n/a', 'n.a.', '#n/a', '#na', '<na>', 'nat', 'none', 'null', 'nil', '(null)',
    'missing', 'undefined', 'not available', 'not applicable', '?', '??', '-', '--', '.', '_',
    'n.a', 'n/d', 'k.a.', '#value!', '#ref!', '#name?', '#num!', '#null!', '#div/0!',
})

# What may be the name of a class, and is often that of none.
DOUBTFUL = frozenset({
    'unknown', 'unlabeled', 'unlabelled', 'not labeled', 'not labelled', 'undetermined', 'tbd',
    'todo', 'not done', 'nd', 'n.d.',
})

# What anonymizing writes in place of a patient.
_NOBODY = '(anon|anonym|anonymous|anonymi[sz]ed)( ?patient)?|de-?identified|redacted|xxx+|0+'

# Further headers that tables have for our columns.
_SYNONYMS = {
    'patient': ('subject', 'person', 'participant', 'pid', 'mrn'),
    'split': ('fold', 'subset', 'partition', 'set'),
    'label': ('class', 'diagnosis', 'target', 'category', 'dx'),
    'mask': ('segmentation', 'seg', 'annotation'),
    'spacing': ('pixelspacing', 'pixelsize', 'voxelspacing', 'voxelsize'),
}

# Letters of other scripts that look like Latin ones.
_LATIN = str.maketrans(
    'авеіјкмнорѕстухαεικνορτυχ',
    'abeijkmhopsctyxaeikvoptux',
)

_SPLIT_OF = {
    'train': 'train', 'training': 'train',
    'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val', 'development': 'val',
    'test': 'test', 'testing': 'test',
}


def is_missing(word: str) -> bool:
    """Whether a cell plainly says that its value is missing."""
    return ' '.join(word.split()).casefold() in MISSING


def is_nobody(patient: str) -> bool:
    """Whether a PatientID is what anonymizing writes for everybody."""
    text = ' '.join(patient.split()).casefold()
    return is_missing(patient) or re.fullmatch(_NOBODY, text) is not None


def may_be_missing(word: str) -> bool:
    """Whether a name may say that its value is missing."""
    return ' '.join(word.split()).casefold() in MISSING | DOUBTFUL


def split_of(word: str) -> str | None:
    """The split that a cell names, one of `examples.SPLITS`, or ''; None if it is no such word."""
    return '' if not word else _SPLIT_OF.get(word.casefold())


def plain(name: str) -> str:
    """What a name is apart from its spelling: case, white space, form of Unicode or of a number.

    '1', '1.0' and '01' are one; 'Benign' and 'benign '; 'cell_a' and 'cell a'; hyphens and dashes;
    letters that look alike.
    """
    shown = ''.join(c for c in name if unicodedata.category(c) != 'Cf')  # no zero-width space
    text = ' '.join(unicodedata.normalize('NFKC', shown).replace('_', ' ').split()).casefold()
    text = ''.join('-' if unicodedata.category(c) == 'Pd' or c == '\u2212' else c for c in text)
    number = number_of(text)
    if number is not None:
        return str(int(number)) if number == int(number) else str(number)
    return text.translate(_LATIN)


def number_of(text: str) -> float | None:
    """The number that a name is, if it is one."""
    return float(text) if re.fullmatch(r'[+-]?\d{1,15}(\.\d*)?(e[+-]?\d)?', text) else None


def negative(names: Iterable[str]) -> list[str]:
    """Negative numbers among names of classes, as tables mark what has none.

    Two classes may well be -1 and 1.
    """
    of = {name: number_of(plain(name)) for name in names}
    if set(of.values()) == {-1, 1}:
        return []
    return [name for name, number in of.items() if number is not None and number < 0]


def spellings(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that differ in spelling alone, each group sorted."""
    groups = collections.defaultdict(set)
    for name in names:
        groups[plain(name)].add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def meant_by(header: str, known: Sequence[str]) -> str | None:
    """The column of `known` that a header probably means: 'Label', 'subject_id', 'lable'."""
    letters = re.sub('[^a-z]', '', header.casefold())
    for column in known:
        words = '|'.join((column, *_SYNONYMS.get(column, ())))
        if re.fullmatch(f'({words})(s|id|name|path|file|number|no)?', letters):
            return column
    near = [column for column in known if abs(len(column) - len(letters)) <= 1]
    return next(iter(difflib.get_close_matches(letters, near, 1, 0.8)), None)


def shown(names: Iterable[str], between: str = ', ') -> str:
    """Names in quotes, with spaces that a line of text would merge."""
    return between.join(repr(name).replace('  ', ' \\x20') for name in names)


def listed(names: Sequence[object], most: int = 8) -> str:
    """'a', 'b' and 37 more."""
    text = ', '.join(map(str, names[:most]))
    return text if len(names) <= most else f'{text} and {len(names) - most} more'
