"""wbc_seg of RESULTS: nucleus and cytoplasm of white blood cells, three laboratories.

What lies in SOURCE: segmentation_WBC and BCCD.mat of `blood.py`.
"""

import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fedgen_jax.data.folder.square import square_mask
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import blood, layout
from fedgen_jax.data.public.layout import PublicSet

SIZE = 128
WINDOW = 300  # pixels around a cell of BCCD, so that its scale is that of the others
CLASSES = ('background', 'cytoplasm', 'nucleus')
CENTERS = {1: 'jtsc', 2: 'cellavision'}


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Masks are numbers of classes; images are numbered as the authors do."""
    name = blood.numbered()
    rows = []
    for dataset, center in CENTERS.items():
        for cell in blood.cells(source, dataset):
            mask = blood.mask_of(np.asarray(blood.read(cell.mask).convert('L')), cell.mask)
            rows.append(_save(root, name(center), center, blood.read(cell.image), mask))
    for image, mask in bccd(layout.found(source, 'BCCD.mat')):
        rows.append(_save(root, name('bccd'), 'bccd', image, mask))
    layout.write_classes(root, mask_classes=CLASSES)
    layout.write_manifest(root, rows)
    return ()


def bccd(file: pathlib.Path) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Windows of WINDOW pixels and their masks; a row of the file is name, image, name, mask."""
    from scipy import io

    try:
        rows = io.loadmat(file)['img_db_wbc']
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise DataError(f'{file}: has no img_db_wbc ({error}): download it again') from error
    for row in rows:
        what = f'{file}, {"".join(row[0])}'
        image, gray = np.asarray(row[1]), np.asarray(row[3])
        gray = gray[..., 0] if gray.ndim == 3 else gray
        if image.dtype != np.uint8 or image.shape != (*gray.shape, 3):
            raise DataError(f'{what}: {image.dtype} {list(image.shape)}, its mask '
                            f'{list(gray.shape)}: take the file as published')
        mask = blood.mask_of(gray, what)
        box = window(mask)
        yield Image.fromarray(image[box]), mask[box]


def window(mask: np.ndarray) -> tuple[slice, slice]:
    """A window around the box of the cell, moved into the image where it sticks out."""
    def along(axis):
        place = np.flatnonzero(mask.any(1 - axis))
        start = (int(place[0]) + int(place[-1]) + 1 - WINDOW) // 2
        start = max(0, min(start, mask.shape[axis] - WINDOW))
        return slice(start, start + WINDOW)

    return along(0), along(1)


def _save(root, name, center, image, mask):
    if image.size != mask.shape[::-1]:
        raise DataError(f'{name}: an image of {image.size} pixels, its mask of '
                        f'{mask.shape[::-1]}: take both as published')
    (root / 'masks' / center).mkdir(parents=True, exist_ok=True)
    Image.fromarray(square_mask(mask, SIZE)).save(root / f'masks/{name}.png')
    return {
        'image': blood.save(image, SIZE, root, f'images/{name}.png'), 'center': center,
        'mask': f'masks/{name}.png',
    }


SET = PublicSet(
    name='wbc_seg',
    task='segmentation',
    images='767',
    centers=(*CENTERS.values(), 'bccd'),
    size='not verified',
    checksum='',
    licence='jtsc and cellavision: GPL-3.0; masks of BCCD, and BCCD: MIT',
    citation='Zheng et al., 2018, Micron 107:55; Banik et al., 2020, Expert Systems with '
             'Applications 149:113211',
    url='https://github.com/zxaoyou/segmentation_WBC and https://github.com/ParthaPratimBanik/'
        'An-Automatic-Nucleus-Segmentation-and-CNN-Model-based-Classification-Method-of-White-Blood-'
        'Cell',
    access='two repositories, by git',
    source='segmentation_WBC/ and BCCD.mat',
    prepare=prepare,
    caveats='The windows of BCCD may differ from those of RESULTS by some pixels, and that its '
            'masks are white, gray and black as the others was not verified. No patient is known. '
            'Never train on wbc_cls and test on this: they share images.',
    run_here=True,
)
