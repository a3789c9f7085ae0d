"""What a data set holds, before training: python -m launch.check --data=FOLDER.

Exit code 0: nothing to say; 1: notes that a person should read; 2: a mistake.
"""

import sys

from absl import flags

from fedgen_jax.data.check import Facts, look
from fedgen_jax.data.folder.words import listed
from fedgen_jax.data.source import load
from fedgen_jax.registry import look_up
from fedgen_jax.tasks import TASKS
from launch import cli

_DATA = flags.DEFINE_string('data', None, 'the folder with manifest.csv, or as data.root')
_COLUMNS = flags.DEFINE_string('columns', '', 'its headers, as data.columns')
_WINDOW = flags.DEFINE_string('window', '', 'its gray values, as data.window')
_CUT = flags.DEFINE_string('cut', '', 'of one center into several, as data.cut')
_TASK = flags.DEFINE_string('task', None, 'the task to learn; default: what the folder has first')
_IMAGE_SIZE = flags.DEFINE_integer('image_size', 48, 'the size to which images are read')
_CACHE = flags.DEFINE_string('cache', None, "the store's folder, as data.cache")
_FLIPS = flags.DEFINE_bool('flips', False, 'whether a configuration of yours flips images')

_HEADER = (
    'center', 'images', 'patients', 'train/val/test', 'classes', 'sizes', 'grays', 'alike',
    'assumed',
)


def main():
    target = look_up('task', _TASK.value, TASKS)(()).target if _TASK.value else None
    source = load(
        _DATA.value, _IMAGE_SIZE.value, 0, _CACHE.value, target=target, require_train=False,
        columns=_COLUMNS.value, cut=_CUT.value, window=_WINDOW.value,
    )
    found = look(source, _FLIPS.value)
    print(table([_HEADER, *(cells(row, source.classes) for row in found.rows)]))
    for note in found.notes:
        print(f'note: {note}')
    sys.exit(1 if found.notes else 0)


def cells(row: Facts, classes: tuple[str, ...]) -> tuple[str, ...]:
    """A center's row of the table."""
    sizes = [size for size, _ in row.sizes]
    return (
        row.center,
        str(row.images),
        str(row.patients or '-'),
        '/'.join(map(str, row.splits)),
        listed([f'{name} {number}' for name, number in zip(classes, row.classes)]) or '-',
        listed(sizes, 2) or '-',
        '{} ({} to {})'.format(*row.grays),
        str(row.alike),
        str(len(row.assumed) or '-'),
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('data')
    cli.run(main)
