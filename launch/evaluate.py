"""Scores a run from its checkpoint alone: python -m launch.evaluate --workdir=RUN."""

import pathlib

from absl import flags

from fedgen_jax.files import write_json
from fedgen_jax.summary import coco_results, evaluate_run
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_DATA = flags.DEFINE_string('data', None, 'the data folder, if it has moved')
_PREDICTIONS = flags.DEFINE_string(
    'predictions', None,
    'detection: a FILE.json for the detections on the scored images, as COCO results; the boxes '
    'they are scored against go to FILE.truth.json',
)


def main():
    workdir = pathlib.Path(_WORKDIR.value)
    if _PREDICTIONS.value:
        file = pathlib.Path(_PREDICTIONS.value)
        results, truth = coco_results(workdir, _DATA.value)
        for path, content in ((file, results), (file.with_suffix('.truth.json'), truth)):
            write_json(path, content)
            print(f'written: {path}')
    evaluation = evaluate_run(workdir, _DATA.value)
    write_json(workdir / 'evaluation.json', evaluation)
    print(cli.show(evaluation))
    print(f'written: {workdir}/evaluation.json')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
