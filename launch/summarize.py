"""Tables over many runs.

python -m launch.summarize DIR...                       # prints the tables of the runs below
python -m launch.summarize DIR... --to=FILE.jsonl       # keeps the runs in one small file
python -m launch.summarize FILE.jsonl                   # prints the tables of such a file
python -m launch.summarize RESULTS.md docs/results/*.md # writes the pages' tables and plots anew
"""

import pathlib

from absl import flags

from configs.common import METHODS
from fedgen_jax.report.pages import rewritten
from fedgen_jax.report.rank_tables import rank_tables
from fedgen_jax.report.summaries import read_summaries, to_lines
from fedgen_jax.report.tables import tables
from launch import cli

_TO = flags.DEFINE_string('to', None, 'a FILE.jsonl that is written in place of the tables')
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'the method that the others are compared with; the first, if not given'
)


def main(paths):
    pages = [pathlib.Path(p) for p in paths if p.endswith('.md')]
    if pages and (len(pages) < len(paths) or _TO.value):
        raise ValueError('pages (.md) are written by themselves: name neither runs nor --to')
    if _TO.value and not _TO.value.endswith('.jsonl'):
        raise ValueError(f'--to={_TO.value}: the name ends in .jsonl')
    if pages:
        written: dict[pathlib.Path, str] = {}
        for page in pages:
            written |= rewritten(page, list(METHODS), _REFERENCE.value)
    elif _TO.value:
        written = {pathlib.Path(_TO.value): to_lines(read_summaries(paths, list(METHODS)))}
    else:
        found = read_summaries(paths, list(METHODS))
        print(tables(found, _REFERENCE.value))
        if len({s['method'] for s in found}) > 1:
            print('\n' + rank_tables(found, _REFERENCE.value))
        return
    for file, text in written.items():
        file.write_text(text)
        print(f'written: {file}')


if __name__ == '__main__':
    cli.run(main, takes='DIR')
