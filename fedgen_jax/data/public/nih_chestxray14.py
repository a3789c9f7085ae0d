"""NIH ChestX-ray14: chest radiographs with 14 findings, several an image.

    SOURCE/Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv)   Image Index,Finding Labels,...
    SOURCE/train_val_list.txt, SOURCE/test_list.txt             a name a line
    SOURCE/images/*.png, or SOURCE/images_001/images/*.png to images_012
"""

import pathlib

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import layout
from fedgen_jax.data.public.layout import PublicSet

CLASSES = (
    'Atelectasis', 'Cardiomegaly', 'Consolidation', 'Edema', 'Effusion', 'Emphysema', 'Fibrosis',
    'Hernia', 'Infiltration', 'Mass', 'Nodule', 'Pleural_Thickening', 'Pneumonia', 'Pneumothorax',
)
NOTHING = 'No Finding'
CENTER = 'nih'


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """The official lists are the split; validation is drawn from training by patient."""
    file = layout.found(source, 'Data_Entry_2017.csv', 'Data_Entry_2017_v2020.csv')
    split_of = dict.fromkeys(read_list(layout.found(source, 'train_val_list.txt')), 'train')
    for name in read_list(layout.found(source, 'test_list.txt')):
        if split_of.setdefault(name, 'test') != 'test':
            raise DataError(
                f'{source / "test_list.txt"}: {name} is in train_val_list.txt too: take both lists '
                'as published'
            )
    images = {image.name: image for image in _images(source)}
    rows = []
    columns = ('Image Index', 'Finding Labels', 'Patient ID', 'View Position')
    for number, cells in layout.table(file, columns):
        name, labels = cells['Image Index'], cells['Finding Labels'].split('|')
        for label in labels:
            layout.one_of(file, number, 'Finding Labels', label, (*CLASSES, NOTHING))
        if name not in split_of:
            layout.fault(file, number, 'Image Index', f'{name} is in neither train_val_list.txt '
                         'nor test_list.txt: take the lists as published')
        rows.append((number, images.get(name, source / 'images' / name), {
            'image': f'images/{name}', 'center': CENTER, 'patient': cells['Patient ID'],
            'split': split_of[name], 'label': '|'.join(labels), 'view': cells['View Position'],
        }))
    layout.check_files(file, ((number, 'Image Index', image) for number, image, _ in rows))
    for _, image, cells in rows:
        layout.place(image, root, cells['image'])
    layout.write_classes(root, CLASSES)
    layout.write_manifest(root, [cells for _, _, cells in rows])
    return ('the two views as centers: --columns=center:view',)


def read_list(file: pathlib.Path) -> list[str]:
    try:
        return file.read_text('utf-8').split()
    except UnicodeDecodeError as error:
        raise DataError(f'{file}: is no text ({error}): take it as published') from error


def _images(source):
    folders = [source / 'images', *sorted(source.glob('images_*/images'))]
    return [image for folder in folders for image in folder.glob('*.png')]


SET = PublicSet(
    name='nih_chestxray14',
    task='multilabel',
    images='112,120',
    centers=(CENTER,),
    size='about 42 GB',
    checksum='',
    licence='unrestricted; name the NIH Clinical Center and the paper',
    citation='Wang et al., 2017, ChestX-ray8, CVPR',
    url='https://nihcc.app.box.com/v/ChestXray-NIHCC',
    access='free download, twelve archives',
    source='Data_Entry_2017.csv, train_val_list.txt, test_list.txt and the unpacked images/ or '
           'images_001/ to images_012/',
    prepare=prepare,
    caveats='One center: cut it by quantity, or take the two views as centers '
            '(`--config.data.columns=center:view`; a patient may have both). Labels were mined '
            'from reports, and are wrong at times.',
)
