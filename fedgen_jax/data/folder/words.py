"""Words as people write them in tables: missing values, several spellings of one name, splits."""

import collections
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

# What spreadsheets, databases and programs write where a value is missing.
MISSING = frozenset({
    '', 'nan', 'na', 'n/a', 'n.a.', '#n/a', '#na', '<na>', 'nat', 'none', 'null', 'nil', '(null)',
    'missing', 'undefined', 'not available', '?', '??', '-', '--', '.', '_',
})  # fmt: skip

# What may be the name of a class, and is often that of none.
DOUBTFUL = frozenset({
    'unknown', 'unlabeled', 'unlabelled', 'not labeled', 'not labelled', 'undetermined', 'tbd',
    'todo', 'not done', 'nd', 'n.d.',
})  # fmt: skip

_SPLIT_OF = {
    'train': 'train', 'training': 'train',
    'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val', 'development': 'val',
    'test': 'test', 'testing': 'test',
}  # fmt: skip


def is_missing(word: str) -> bool:
    """Whether a cell plainly says that its value is missing."""
    return ' '.join(word.split()).casefold() in MISSING


def may_be_missing(word: str) -> bool:
    """Whether a name may say that its value is missing."""
    return ' '.join(word.split()).casefold() in MISSING | DOUBTFUL


def split_of(word: str) -> str | None:
    """The split that a cell names, one of `examples.SPLITS`, or ''; None if it is no such word."""
    return '' if not word else _SPLIT_OF.get(word.casefold())


def plain(name: str) -> str:
    """What a name is apart from its spelling: case, white space, form of Unicode or of a number.

    '1', '1.0' and '01' are one; 'Benign' and 'benign '; 'cell_a' and 'cell a'.
    """
    shown = ''.join(c for c in name if unicodedata.category(c) != 'Cf')  # no zero-width space
    text = ' '.join(unicodedata.normalize('NFKC', shown).replace('_', ' ').split()).casefold()
    if re.fullmatch(r'[+-]?\d{1,15}(\.\d*)?', text):
        number = float(text)
        return str(int(number)) if number == int(number) else str(number)
    return text


def spellings(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that differ in spelling alone, each group sorted."""
    groups = collections.defaultdict(set)
    for name in names:
        groups[plain(name)].add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def meant_by(header: str, known: Sequence[str]) -> str | None:
    """The known column that a header is probably a misspelling of: 'Label', 'patients', 'lable'."""
    letters = re.sub('[^a-z]', '', header.casefold())
    for column in known:
        if re.fullmatch(f'{column}(s|id|name|path|file|number|no)?', letters):
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
