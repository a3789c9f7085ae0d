"""Scores a run from its checkpoint alone: python -m launch.evaluate --workdir=RUN.

--by=COLUMN adds the scores by the values of a further column of the data's table, such as scanner.
"""

from absl import flags

from fedgen_jax.answers import MOST_VALUES, answers_of, scores_by
from fedgen_jax.data.check import say
from fedgen_jax.evaluate import metrics_in
from fedgen_jax.files import expand, write_json
from fedgen_jax.loaded import unfinished
from fedgen_jax.predictions import write_predictions
from fedgen_jax.schema import ByColumn
from fedgen_jax.summary import evaluate_run
from fedgen_jax.terminal import scoring
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_DATA = flags.DEFINE_string('data', None, 'the data folder, if it has moved')
_PREDICTIONS = flags.DEFINE_string(
    'predictions', None,
    'a new folder for what the models say of the scored images: probabilities.csv, masks, or COCO '
    'results with the boxes that they are scored against, truth.json',
)
_BY = flags.DEFINE_string(
    'by', None, f'a further column of the table, of at most {MOST_VALUES} values'
)


def main():
    workdir = expand(_WORKDIR.value)
    by = scores_by(workdir, _BY.value, _DATA.value) if _BY.value else None
    if _PREDICTIONS.value:
        folder = expand(_PREDICTIONS.value)
        answers = answers_of(workdir, _DATA.value, folder)
        written = write_predictions(folder, answers.said, *answers[1:4])
        if answers.truth:
            write_json(folder / 'truth.json', answers.truth)
            written.append(folder / 'truth.json')
        for path in written:
            print(f'written: {path}')
    with scoring(str(workdir)) as tell:
        evaluation = evaluate_run(workdir, _DATA.value, tell)
    if by:
        evaluation['by'] = by
    if evaluation['rounds'] < (wanted := evaluation['config']['rounds']):
        say(unfinished(workdir, evaluation['rounds'], wanted))
    write_json(workdir / 'evaluation.json', evaluation)
    print(cli.show(evaluation))
    if by:
        print(shown(by))
    print(f'written: {workdir}/evaluation.json')


def shown(by: ByColumn) -> str:
    """A line a group of images, for a terminal."""
    lines = []
    for group, of in (('seen', by['seen']), ('unseen', by['unseen'] or {})):
        for value, scores in of.items():
            name, n = f'{group}, {by["column"]} {value}', scores['n']
            told = '  '.join(f'{k} {v:.3f}' for k, v in metrics_in(scores).items())
            lines.append(f'{name:<22} {told}  ({n} image{"s" if n != 1 else ""})')
    return '\n'.join(lines)


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
