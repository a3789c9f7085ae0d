"""A center's model as a file that is read without this project.

python -m launch.export --workdir=RUN --center=NAME --format=stablehlo
python -m launch.export --workdir=RUN --data=NEW --format=onnx --to=FILE.onnx

The second makes the model of a new center from the unlabelled images in NEW.  stablehlo is read by
jax.export.deserialize, onnx by any ONNX runtime; safetensors holds the weights by name.  A json
beside the file says what goes in and what comes out.
"""

from absl import flags

from fedgen_jax.export import FORMATS, export_model
from fedgen_jax.files import expand, file_name
from fedgen_jax.kept import check_outside
from fedgen_jax.loaded import asked_model, load
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_CENTER = flags.DEFINE_string('center', None, 'the center whose model is written')
_DATA = flags.DEFINE_string(
    'data', None, 'a folder of unlabelled images, which a new center makes its model from'
)
_COLUMNS = flags.DEFINE_string(
    'columns', None, "headers of --data, as data.columns; default: the run's"
)
_FORMAT = flags.DEFINE_enum('format', 'stablehlo', list(FORMATS), 'of the file')
_TO = flags.DEFINE_string('to', None, 'the file; default, of --center: RUN/export/CENTER.FORMAT')


def main():
    run = load(_WORKDIR.value)
    if _DATA.value and not _TO.value:
        raise ValueError("--to is missing: the file that a new center's model is written to")
    name = file_name(_CENTER.value or '')
    file = expand(_TO.value or run.workdir / 'export' / f'{name}.{_FORMAT.value}')
    if file.suffix[1:] in FORMATS and file.suffix[1:] != _FORMAT.value:
        raise ValueError(f'--to={_TO.value}: pass --format={file.suffix[1:]}, or another name: the '
                         f'format is {_FORMAT.value}')
    check_outside(run.workdir, run.config, file)
    model = asked_model(run, _CENTER.value, _DATA.value, _COLUMNS.value)
    beside, difference = export_model(model, run.config, file, _FORMAT.value)
    print(f'written: {file}')
    print(f'written: {beside}')
    if difference is not None:
        print(f'read again: differs from the model by {difference:.1g} at most')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
