"""Camelyon17-WILDS: patches of lymph nodes from five hospitals.

    SOURCE/metadata.csv   ,patient,node,x_coord,y_coord,tumor,slide,center,split
    SOURCE/patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png

Official splits: hospitals 0, 3 and 4 train, with `split` 1 for validation at the same hospitals;
hospital 1 is validation and hospital 2 test, whatever their `split` says.
"""

import pathlib

from fedgen_jax.data.public import layout
from fedgen_jax.data.public.layout import PublicSet

CENTERS = tuple(f'hospital-{i}' for i in range(5))
CLASSES = ('normal', 'tumor')
OFFICIAL = {1: 'val', 2: 'test'}  # all of a hospital
BY_PATIENT = 'by_patient.csv'


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """manifest.csv has the official splits; by_patient.csv, of the same images, the patients.

    Official training and validation share patients, which no table with patients may.
    """
    file = layout.found(source, 'metadata.csv')
    layout.found(source, 'patches')
    columns = ('patient', 'node', 'x_coord', 'y_coord', 'tumor', 'slide', 'center', 'split')
    rows = []
    for number, cells in layout.table(file, columns):
        case, node = cells['patient'].zfill(3), cells['node']
        of_node = f'patient_{case}_node_{node}'
        name = f'patch_{of_node}_x_{cells["x_coord"]}_y_{cells["y_coord"]}.png'
        center = layout.whole(file, number, 'center', cells['center'], 4)
        in_split = ('train', 'val')[layout.whole(file, number, 'split', cells['split'], 1)]
        label = CLASSES[layout.whole(file, number, 'tumor', cells['tumor'], 1)]
        rows.append((number, source / 'patches' / of_node / name, {
            'image': f'images/{of_node}/{name}', 'center': CENTERS[center], 'patient': case,
            'split': OFFICIAL.get(center, in_split), 'label': label, 'slide': cells['slide'],
        }))
    layout.check_files(file, ((number, 'x_coord', patch) for number, patch, _ in rows))
    for _, patch, cells in rows:
        layout.place(patch, root, cells['image'])
    layout.write_classes(root, CLASSES)
    for name, without in ((BY_PATIENT, 'split'), ('manifest.csv', 'patient')):
        table = [{k: v for k, v in cells.items() if k != without} for _, _, cells in rows]
        layout.write_manifest(root, table, name)
    return (
        f'manifest.csv has the official splits, for --held_out={CENTERS[1]},{CENTERS[2]}; '
        f'{BY_PATIENT} has patients, and its splits are drawn at each hospital: '
        f'--data=ROOT/{BY_PATIENT}',
    )


SET = PublicSet(
    name='camelyon17_wilds',
    task='classification',
    images='455,954',
    centers=CENTERS,
    size='about 10 GB',
    checksum='',
    licence='CC0',
    citation='Bandi et al., 2018, IEEE Transactions on Medical Imaging 38:550; Koh et al., 2021, '
             'WILDS, ICML',
    url='https://wilds.stanford.edu/datasets/#camelyon17',
    access='free download, by the `wilds` package',
    source='the folder camelyon17_v1.0 with metadata.csv and patches/',
    prepare=prepare,
    caveats='Official validation at the training hospitals shares patients with training.',
)
