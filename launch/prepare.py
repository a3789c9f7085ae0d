"""A center folder of a published set: python -m launch.prepare --set=NAME --root=FOLDER.

Without --set the known sets are listed.  What cannot be downloaded without an account is told in
one line, with what to put where: download it yourself, and pass its folder as --source.
"""

from absl import flags

from fedgen_jax.data.public import catalog
from fedgen_jax.files import expand
from launch import cli

_SET = flags.DEFINE_string('set', None, 'the name of a set, as docs/sets.md lists them')
_ROOT = flags.DEFINE_string('root', None, 'the center folder to make')
_SOURCE = flags.DEFINE_string('source', None, 'the folder of what was downloaded, or its file')


def main():
    if not _SET.value:
        print(catalog.table(), end='')
        return
    one = catalog.named(_SET.value)
    if not _ROOT.value:
        raise ValueError('--root is missing: name the center folder to make')
    root = expand(_ROOT.value)
    notes = catalog.prepare(_SET.value, root, expand(_SOURCE.value) if _SOURCE.value else None)
    for note in filter(None, (*notes, one.caveats)):
        print(f'note: {note}')
    print(f'{root}: {one.name}, {one.licence}. Cite {one.citation}.')
    print(f'next: python -m launch.check --data={root}')


if __name__ == '__main__':
    cli.run(main)
