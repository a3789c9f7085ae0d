"""Fed-ISIC2019: skin lesions of six centers, with FLamby's training and test images.

    SOURCE/train_test_split                        of FLamby's repository, fed_isic2019/
                                                   dataset_creation_scripts
    SOURCE/ISIC_2019_Training_Input/ISIC_*.jpg     of the ISIC 2019 challenge, or
    SOURCE/ISIC_2019_Training_Input_preprocessed/  as FLamby's resize_images.py makes them
"""

import pathlib

from fedgen_jax.data.public import layout
from fedgen_jax.data.public.layout import PublicSet

CLASSES = ('MEL', 'NV', 'BCC', 'AK', 'BKL', 'DF', 'VASC', 'SCC')
CENTERS = (  # by their numbers in FLamby's table
    'BCN', 'HAM_vidir_molemax', 'HAM_vidir_modern', 'HAM_rosendahl', 'MSK', 'HAM_vienna_dias',
)
RAW, RESIZED = 'ISIC_2019_Training_Input', 'ISIC_2019_Training_Input_preprocessed'


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """`fold2` is the split: FLamby's, stratified by center."""
    file = layout.found(source, 'train_test_split', 'train_test_split.csv', 'train_test_folds.csv')
    images = layout.found(source, RESIZED, RAW)
    rows = []
    for number, cells in layout.table(file, ('image', *CLASSES, 'target', 'center', 'fold2')):
        target = layout.whole(file, number, 'target', cells['target'], len(CLASSES) - 1)
        center = layout.whole(file, number, 'center', cells['center'], len(CENTERS) - 1)
        split = cells['fold2'].partition('_')[0]
        layout.one_of(file, number, 'fold2', split, ('train', 'test'))
        if cells['fold2'] != f'{split}_{center}':
            layout.fault(file, number, 'fold2', f'{cells["fold2"]!r}, but the center is {center}: '
                         'take the file as published')
        one_hot = [layout.whole(file, number, name, cells[name], 1) for name in CLASSES]
        if one_hot[target] != 1 or sum(one_hot) != 1:
            layout.fault(file, number, 'target', f'{target}, but {CLASSES[target]} is not the one '
                         'class that is 1: take the file as published')
        rows.append((number, images / f'{cells["image"]}.jpg', CENTERS[center], split, target))
    layout.check_files(file, ((row[0], 'image', row[1]) for row in rows))
    layout.write_classes(root, CLASSES)
    layout.write_manifest(root, [
        {
            'image': layout.place(image, root, f'images/{center}/{image.name}'),
            'center': center, 'split': split, 'label': CLASSES[target],
        }
        for _, image, center, split, target in rows
    ])
    if images.name == RESIZED:
        return (f'{images}: taken, and not {RAW}',) if (source / RAW).exists() else ()
    return (f'{images}: without the color constancy that FLamby applies first',)


SET = PublicSet(
    name='fed_isic2019',
    task='classification',
    images='23,247',
    centers=CENTERS,
    size='about 9 GB',
    checksum='',
    licence='CC BY-NC 4.0 (ISIC 2019); HAM10000 has terms of its own',
    citation='Ogier du Terrail et al., 2022, FLamby, NeurIPS Datasets and Benchmarks; Tschandl, '
             'Rosendahl and Kittler, 2018, Scientific Data 5:180161; Codella et al., 2017, '
             'arXiv:1710.05006; Combalia et al., 2019, arXiv:1908.02288',
    url='https://challenge.isic-archive.com/data/ and https://github.com/owkin/FLamby',
    access='accept both licences, then download',
    source=f'{RAW} (unzipped) and train_test_split of FLamby',
    prepare=prepare,
    caveats='FLamby splits by image: images of one lesion may stand in training and in test, so '
            'that scores at seen centers are optimistic. No patient is known.',
)
