"""One set of tables over many runs: python -m launch.summarize DIR... [--into=RESULTS.md]."""

from absl import flags

from fedgen_jax.report.tables import read_summaries, tables, write_between
from launch import cli

_INTO = flags.DEFINE_string(
    'into', None, 'a file whose part between `<!-- DIR -->` and `<!-- end -->` is replaced'
)


def main(folders):
    text = tables(read_summaries(folders))
    if _INTO.value:
        write_between(_INTO.value, ' '.join(folders), text)
        print(f'written: {_INTO.value}')
    else:
        print(text)


if __name__ == '__main__':
    cli.run(main, takes='DIR')
