"""PadChest: chest radiographs of one hospital, with many findings an image.

    SOURCE/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv   ImageID,ImageDir,...,Labels,...
    SOURCE/0/*.png to SOURCE/54/*.png, by ImageDir; or SOURCE/images/*.png, all of them

A cell of Labels is a list as Python writes it: ['pleural effusion', 'cardiomegaly'].
"""

import ast
import pathlib

from fedgen_jax.data.public import layout
from fedgen_jax.data.public.labels import NOTHING
from fedgen_jax.data.public.layout import PublicSet

TABLE = 'PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv'
CENTER = 'san-juan'
FRONTAL = ('PA', 'AP', 'AP_horizontal')
NORMAL = 'normal'
UNCLEAR = ('exclude', 'suboptimal study', 'unchanged')  # say nothing of what is there
DAMAGED = (  # which public loaders of the set leave out
    '216840111366964012819207061112010307142602253_04-014-084.png',
    '216840111366964012989926673512011074122523403_00-163-058.png',
    '216840111366964012959786098432011033083840143_00-176-115.png',
    '216840111366964012558082906712009327122220177_00-102-064.png',
    '216840111366964012339356563862009072111404053_00-043-192.png',
    '216840111366964013076187734852011291090445391_00-196-188.png',
    '216840111366964012373310883942009117084022290_00-064-025.png',
    '216840111366964012283393834152009033102258826_00-059-087.png',
    '216840111366964012373310883942009170084120009_00-097-074.png',
    '216840111366964012819207061112010315104455352_04-024-184.png',
    '216840111366964012819207061112010306085429121_04-020-102.png',
)


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Frontal views; `normal` becomes No Finding, and where nothing is said the cell is empty."""
    file = layout.found(source, TABLE)
    flat = source / 'images'
    columns = ('ImageID', 'ImageDir', 'PatientID', 'Projection', 'MethodLabel', 'Labels')
    rows, classes, lateral, damaged = [], set(), 0, 0
    for number, cells in layout.table(file, columns):
        name = cells['ImageID']
        if name in DAMAGED or cells['Projection'] not in FRONTAL:
            damaged += name in DAMAGED
            lateral += name not in DAMAGED
            continue
        labels = read_labels(file, number, cells['Labels'])
        classes |= set(labels) - {NOTHING}
        folder = flat if flat.is_dir() else source / cells['ImageDir'].removesuffix('.0')
        rows.append((number, folder / name, {
            'image': f'images/{name}', 'center': CENTER, 'patient': cells['PatientID'],
            'label': '|'.join(labels), 'view': cells['Projection'],
            'method': cells['MethodLabel'],
        }))
    layout.check_files(file, ((number, 'ImageID', image) for number, image, _ in rows))
    for _, image, cells in rows:
        layout.place(image, root, cells['image'])
    layout.write_manifest(root, [cells for _, _, cells in rows])
    layout.write_classes(root, sorted(classes))
    unknown = sum(not cells['label'] for _, _, cells in rows)
    return (
        f'left out: {lateral} images that are not frontal, {damaged} that are known to be damaged',
        f'{unknown} images have no label that says what is there: their cells are empty',
    )


def read_labels(file: pathlib.Path, row: int, cell: str) -> list[str]:
    """The findings of a cell, each once; NOTHING alone of a normal image, none of an unclear one.

    A word that says that the report is unclear makes the whole cell unknown.
    """
    if cell in ('', 'nan'):
        return []
    try:
        names = ast.literal_eval(cell)
        if not isinstance(names, list | tuple):
            raise TypeError(names)
        labels = list(dict.fromkeys(name.strip().replace('|', '/') for name in names))
    except (ValueError, SyntaxError, AttributeError, TypeError):
        layout.fault(file, row, 'Labels', f'{cell!r} is no list of names: take it as published')
    if any(name in UNCLEAR for name in labels):
        return []
    findings = [name for name in labels if name and name != NORMAL]
    return findings or ([NOTHING] if NORMAL in labels else [])


SET = PublicSet(
    name='padchest',
    task='multilabel',
    images='about 160,000, frontal and lateral',
    centers=(CENTER,),
    size='about 1 TB',
    checksum='',
    licence='the agreement of BIMCV on research use',
    citation='Bustos et al., 2020, PadChest, Medical Image Analysis 66:101797',
    url='https://bimcv.cipf.es/bimcv-projects/padchest/',
    access='a form at BIMCV',
    source=f'{TABLE} and the unpacked folders 0/ to 54/, or all images in images/',
    prepare=prepare,
    caveats='One center: cut it by quantity. The images have 16 bits a pixel: '
            '`--config.data.window=center`. Most labels were mined from reports by a network '
            '(the column `method`). Many of the findings are rare.',
)
