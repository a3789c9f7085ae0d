"""New, changed and leaving centers of a trained run.

python -m launch.onboard --workdir=RUN --data=FOLDER                 new centers
python -m launch.onboard --workdir=RUN --update=NAME --data=FOLDER   a center's data changed
python -m launch.onboard --workdir=RUN --remove=NAME                 a center leaves

A new center may state its class mix, --prevalence=CLASS=SHARE,CLASS=SHARE, or have it estimated of
its unlabelled images, --prevalence=estimate.  Where mix and model are right, that raises accuracy
and lowers balanced accuracy.  --adapt=STEPS moves the code that its model is generated from.

A new center with some labels may use them, --finetune=STEPS (200, say): the labelled images of its
split `train` teach, all others are scored.
"""

from absl import flags

from fedgen_jax.evaluate import metrics_in
from fedgen_jax.onboard import onboard
from launch import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'a run of launch.train')
_DATA = flags.DEFINE_string('data', None, 'the new or changed centers, as data.root')
_UPDATE = flags.DEFINE_string('update', None, 'the center whose data --data replaces')
_REMOVE = flags.DEFINE_string('remove', None, 'the center that leaves')
_PREVALENCE = flags.DEFINE_string(
    'prevalence', None, 'its class mix, CLASS=SHARE,CLASS=SHARE, or: estimate'
)
_ADAPT = flags.DEFINE_integer(
    'adapt', 0, 'steps on the code of its model, of unlabelled images; 0: one forward pass alone'
)
_FINETUNE = flags.DEFINE_integer(
    'finetune', 0, "steps on the center's own labels, at the run's finetune.lr; 0: none"
)
_COLUMNS = flags.DEFINE_string(
    'columns', None, "headers of --data, as data.columns; default: the run's"
)


def told(scores):
    return '  '.join(f'{k} {v:.3g}' for k, v in metrics_in(scores).items())


def main():
    report = onboard(
        _WORKDIR.value, _DATA.value, _UPDATE.value, _REMOVE.value, _PREVALENCE.value,
        _ADAPT.value, _COLUMNS.value, _FINETUNE.value,
    )
    for name, entry in report['centers'].items():
        scores = told(entry['scores'])
        print(
            f'{name}: model generated from {entry["images"]} unlabelled images in '
            f'{entry["seconds"]:.1f} s, {entry["steps"]} steps there, 0 elsewhere'
            + (f';  {scores}' if scores else '')
        )
        if 'finetuned' in entry:
            print(f'  the steps are on {entry["finetuned"]["images"]} labelled images of the split '
                  f'train; scored are others, {entry["scores"]["n"]} with a label')
        if 'prevalence' in entry:
            mix = ', '.join(f'{k} {v:.2f}' for k, v in entry['prevalence']['mix'].items())
            source = 'estimated' if entry['prevalence']['estimated'] else 'stated'
            print(f'  under the {source} class mix {mix}')
        if 'scores_without' in entry:
            print(f'  without: {told(entry["scores_without"])}')
        if entry['model']:
            print(f'  its model: {entry["model"]}')
            print(f'  fedgen_jax.load({_WORKDIR.value!r}).model({name!r})')
        else:
            print('  its model is not kept, for the run is private; of its images at the center:')
            print(f'  fedgen_jax.load({_WORKDIR.value!r}).model(images={_DATA.value!r})')
    if report['removed']:
        print(f'{report["removed"]}: removed')
    print(f'center model: re-calculated from {report["center_model"]["images"]} images')
    print(f'written: {_WORKDIR.value}/onboard.json')


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
