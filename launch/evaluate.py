"""Scores a run from its checkpoint alone: python -m launch.evaluate --workdir=RUN."""

from absl import flags

from fedgen_jax.files import expand, write_json
from fedgen_jax.predictions import write_predictions
from fedgen_jax.summary import answers_of, evaluate_run
from fedgen_jax.terminal import scoring
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_DATA = flags.DEFINE_string('data', None, 'the data folder, if it has moved')
_PREDICTIONS = flags.DEFINE_string(
    'predictions', None,
    'a new folder for what the models say of the scored images: probabilities.csv, masks, or COCO '
    'results with the boxes that they are scored against, truth.json',
)


def main():
    workdir = expand(_WORKDIR.value)
    if _PREDICTIONS.value:
        folder = expand(_PREDICTIONS.value)
        answers = answers_of(workdir, _DATA.value)
        written = write_predictions(folder, answers.said, *answers[1:4])
        if answers.truth:
            write_json(folder / 'truth.json', answers.truth)
            written.append(folder / 'truth.json')
        for path in written:
            print(f'written: {path}')
    with scoring(str(workdir)) as tell:
        evaluation = evaluate_run(workdir, _DATA.value, tell)
    write_json(workdir / 'evaluation.json', evaluation)
    print(cli.show(evaluation))
    print(f'written: {workdir}/evaluation.json')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
