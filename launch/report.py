"""The page of a finished run: python -m launch.report --workdir=RUN [--beside=OTHER]."""

from absl import flags

from fedgen_jax.report.gather import report_run
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_BESIDE = flags.DEFINE_string('beside', None, 'another run on the same centers, to compare with')


def main():
    print(f'written: {report_run(_WORKDIR.value, _BESIDE.value)}')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
