"""wbc_cls of RESULTS: white blood cells of five laboratories, five classes.

What lies in SOURCE: `blood.py`, all but BCCD.mat and the labels of boxes.
"""

import pathlib

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import blood, layout
from fedgen_jax.data.public.layout import PublicSet

SIZE = 96
OF_TXL = {'pbc': 'pbc-barcelona', 'raabin-wbc': 'raabin-iran'}
OF_ZHENG = {1: 'jtsc-jiangxi', 2: 'cellavision'}


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Images are numbered as in RESULTS, as the split is drawn by their names."""
    found = []
    file = source / blood.TXL / 'centers.csv'
    for frame in blood.frames(source, with_labels=True):
        if frame.center in OF_TXL:
            layout.one_of(file, frame.row, 'label', frame.label, blood.LABELS)
            found.append((OF_TXL[frame.center], frame.label, frame.image))
    found.sort(key=lambda cell: cell[:2])  # by class, and within it as the authors list them
    for label in blood.LABELS:
        folder = layout.found(source, f'BCCD_cropped/{label.capitalize()}')
        images = sorted(folder.glob('*.jpg'))
        if not images:
            raise DataError(f'{folder}: has no .jpg: put the images there')
        found += [('bccd', label, image) for image in images]
    for dataset, center in OF_ZHENG.items():
        found += [(center, cell.label, cell.image) for cell in blood.cells(source, dataset)]
    name = blood.numbered()
    layout.write_manifest(root, [
        {
            'image': blood.save(blood.read(image), SIZE, root, f'images/{name(center)}.png'),
            'center': center, 'label': label,
        }
        for center, label, image in found
    ])
    return ()


SET = PublicSet(
    name='wbc_cls',
    task='classification',
    images='1,751',
    centers=(*OF_TXL.values(), 'bccd', *OF_ZHENG.values()),
    size='not verified',
    checksum='',
    licence='PBC: CC BY 4.0; TXL-PBC and BCCD: MIT; jtsc-jiangxi and cellavision: GPL-3.0; '
            'Raabin-WBC: not stated in TXL-PBC',
    citation='Acevedo et al., 2020, Data in Brief 30:105474; Kouzehkanan et al., 2022, Scientific '
             'Reports 12:1123; Gan, Li and Wang, 2025, TXL-PBC, Scientific Data 12:1694; Zheng et '
             'al., 2018, Micron 107:55',
    url='https://github.com/nicoaira/TXL-PBC_Dataset, https://github.com/apple2373/BCCD and '
        'https://github.com/zxaoyou/segmentation_WBC',
    access='three repositories, by git',
    source='TXL-PBC/ with centers.csv, BCCD_cropped/ and segmentation_WBC/',
    prepare=prepare,
    caveats='Classes of Raabin are inferred: the authors list its images in five blocks of 100, '
            'alphabetical by class. No patient is known, and all neutrophils of Raabin are of one '
            'slide, so that its seen scores are optimistic. Only 3, 3 and 1 basophils outside '
            'Barcelona and Iran. Not all labels of jtsc-jiangxi and cellavision were checked by '
            'haematologists. The commits that RESULTS used were not recorded.',
    run_here=True,
)
