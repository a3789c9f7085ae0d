"""The fundus sets of domain generalization: optic cup and disc at four sites.

    SOURCE/Domain1/train/ROIs/image/*.png   and mask/ with the same names; Domain1 to Domain4,
    SOURCE/Domain1/test/ROIs/image/*.png    train and test

A mask is white outside the disc, gray in the rim of the disc and black in the cup.
"""

import pathlib

import numpy as np
from PIL import Image

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import layout
from fedgen_jax.data.public.layout import PublicSet

CENTERS = ('Drishti-GS', 'RIM-ONE-r3', 'REFUGE-train', 'REFUGE-val')  # Domain1 to Domain4
CLASSES = ('background', 'disc rim', 'cup')


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Masks become numbers of classes, with the thresholds of the published code."""
    rows = []
    for number, center in enumerate(CENTERS, start=1):
        for split in ('train', 'test'):
            folder = layout.found(source, f'Domain{number}/{split}/ROIs')
            images = sorted(layout.found(folder, 'image').glob('*.png'))
            if not images:
                raise DataError(f'{folder / "image"}: has no .png: unpack the set as published')
            for image in images:
                name = f'{center}/{split}_{image.name}'
                mask = read_mask(layout.found(folder / 'mask', image.name))
                with Image.open(image) as opened:
                    if opened.size != mask.shape[::-1]:
                        raise DataError(
                            f'{image}: {opened.size[0]} x {opened.size[1]} pixels, its mask '
                            f'{mask.shape[1]} x {mask.shape[0]}: take both as published'
                        )
                (root / 'masks' / center).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / 'masks' / name)
                rows.append({
                    'image': layout.place(image, root, f'images/{name}'), 'center': center,
                    'split': split, 'mask': f'masks/{name}',
                })
    layout.write_classes(root, mask_classes=CLASSES)
    layout.write_manifest(root, rows)
    return ()


def read_mask(file: pathlib.Path) -> np.ndarray:
    """uint8 [H, W]: places in CLASSES."""
    try:
        with Image.open(file) as opened:
            gray = np.asarray(opened.convert('L'))
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error}): download it again') from error
    if gray.max() <= 50:
        raise DataError(
            f'{file}: has no white background: give the published masks (0 the cup, 128 the rim of '
            'the disc, 255 the rest)'
        )
    return np.select([gray > 200, gray > 50], [0, 1], 2).astype(np.uint8)


SET = PublicSet(
    name='fundus_dofe',
    task='segmentation',
    images='1,060',
    centers=CENTERS,
    size='not verified',
    checksum='',
    licence='that of each source (Drishti-GS, RIM-ONE r3, REFUGE); none is stated for the whole',
    citation='Wang et al., 2020, DoFE, IEEE Transactions on Medical Imaging 39:4237; in a '
             'federation: Liu et al., 2021, FedDG, CVPR',
    url='https://github.com/emma-sjwang/Dofe',
    access='Google Drive, by the link of the repository',
    source='Domain1 to Domain4, each with train/ROIs and test/ROIs, image and mask',
    prepare=prepare,
    caveats='Papers score the disc with the cup in it; `disc rim` here is without it. REFUGE-train '
            'and REFUGE-val come from different cameras. No patient is known.',
)
