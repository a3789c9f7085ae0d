"""What a center's model says of images.

python -m launch.predict --workdir=RUN --center=NAME --images=PICTURES --to=FOLDER
python -m launch.predict --workdir=RUN --data=NEW --to=FOLDER

The first asks the model of a center that trained or was onboarded.  The second makes the model of a
new center from the unlabelled images in NEW, and asks it of these, or of those that --images names.
Further columns of their table go with the predictions.
"""

import collections

from absl import flags

from fedgen_jax.data.check import say
from fedgen_jax.data.inputs import listed
from fedgen_jax.files import expand
from fedgen_jax.kept import check_outside
from fedgen_jax.loaded import asked_model, load
from fedgen_jax.predictions import Said, write_predictions
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_CENTER = flags.DEFINE_string('center', None, 'the center whose model is asked')
_DATA = flags.DEFINE_string(
    'data', None, 'a folder of unlabelled images, which a new center makes its model from'
)
_IMAGES = flags.DEFINE_multi_string(
    'images', None, 'a file, a glob or a folder; may be given several times'
)
_COLUMNS = flags.DEFINE_string(
    'columns', None, "headers of a table in them, as data.columns; default: the run's"
)
_TO = flags.DEFINE_string('to', None, 'a new folder for the predictions')
_OVERLAYS = flags.DEFINE_bool('overlays', False, 'also write pictures to look at')


def main():
    run, folder = load(_WORKDIR.value), expand(_TO.value)
    check_outside(run.workdir, run.config, folder)
    if not (_IMAGES.value or _DATA.value):
        raise ValueError('--images is missing: a file, a glob or a folder')
    model = asked_model(run, _CENTER.value, _DATA.value, _COLUMNS.value)
    columns = run.columns if _COLUMNS.value is None else _COLUMNS.value
    asked = listed(_IMAGES.value or _DATA.value, columns)

    assumed, unread = collections.defaultdict(list), list[str]()

    def answers():
        for picture, found in model.ask(model.read(asked, unread)):
            for text in picture.assumed:
                assumed[text].append(picture.name)
            image = picture.image if _OVERLAYS.value else None
            yield Said(
                picture.name, picture.frame[:2], found, image, kept=picture.more,
                source=picture.source,
            )

    if others := sorted({x.center for x in asked} - {'', model.center}):
        whose = repr(model.center) if model.center else 'a new center'
        say(f'images of {", ".join(map(repr, others))} are answered by the model of {whose}')
    task = run.done.program.task
    for path in write_predictions(
        folder, answers(), task, model.classes, overlays=_OVERLAYS.value
    ):
        print(f'written: {path}')
    for text, names in assumed.items():
        say(f'{len(names)} of {len(asked)} images, such as {names[0]!r}: {text}')
    if unread:
        more = f' (and {len(unread) - 1} more)' * (len(unread) > 1)
        cli.fail(f'{len(unread)} of {len(asked)} images were left out: {unread[0]}{more}', 1)


if __name__ == '__main__':
    flags.mark_flags_as_required(['workdir', 'to'])
    cli.run(main)
