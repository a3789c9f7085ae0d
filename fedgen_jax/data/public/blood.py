"""What the three blood sets of RESULTS share: their sources, laid beside one another in SOURCE.

    SOURCE/TXL-PBC/images/{train,val,test}/*.jpg   of github.com/nicoaira/TXL-PBC_Dataset; beside
    SOURCE/TXL-PBC/labels/{train,val,test}/*.txt   them data.yaml, as YOLO has it
    SOURCE/TXL-PBC/centers.csv                     image,center,label: written by you
    SOURCE/BCCD_cropped/CLASS/*.jpg                of github.com/apple2373/BCCD
    SOURCE/segmentation_WBC/Dataset 1/001.bmp      with 001.png, its mask; likewise Dataset 2, and
    SOURCE/segmentation_WBC/Class Labels of Dataset 1.csv    of github.com/zxaoyou/segmentation_WBC
    SOURCE/BCCD.mat                                wbc_nucleus_seg_localz/BCCD.mat of the
                                                   repository of P. P. Banik

centers.csv is the authors' metadata_file.xlsx, row for row, under these headers: image, the file's
name; center, one of CENTERS; label, the white cell's class (wbc_cls alone).

The images are reduced to the size that RESULTS read, which `SIZE` of each set tells.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from fedgen_jax.data.examples import SPLITS
from fedgen_jax.data.folder.square import square_image
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import layout

LABELS = ('neutrophil', 'lymphocyte', 'monocyte', 'eosinophil', 'basophil')
CENTERS = ('pbc', 'raabin-wbc', 'bccd', 'bcdd')  # of TXL-PBC
TXL, ZHENG = 'TXL-PBC', 'segmentation_WBC'


class Frame(NamedTuple):
    """An image of TXL-PBC; row, center, label: of centers.csv."""

    row: int
    image: pathlib.Path
    split: str
    center: str
    label: str


def frames(source: pathlib.Path, with_labels: bool) -> Iterator[Frame]:
    """The images of TXL-PBC in the order of centers.csv, which lists each once."""
    folder = layout.found(source, TXL)
    file = layout.found(folder, 'centers.csv')
    images = {
        image.name: (image, split)
        for split in SPLITS for image in sorted((folder / 'images' / split).glob('*.jpg'))
    }
    columns = ('image', 'center', 'label') if with_labels else ('image', 'center')
    seen: set[str] = set()
    for row, cells in layout.table(file, columns):
        name = cells['image']
        layout.one_of(file, row, 'center', cells['center'], CENTERS)
        if name not in images or name in seen:
            problem = 'comes twice' if name in seen else f'is not below {folder / "images"}'
            layout.fault(file, row, 'image', f'{name} {problem}: list each image once')
        seen.add(name)
        yield Frame(row, *images[name], cells['center'], cells.get('label', ''))
    rest = sorted(images.keys() - seen)
    if rest:
        raise DataError(
            f'{file}: lacks {len(rest)} images, the first {rest[0]}: list each image once'
        )


class Cell(NamedTuple):
    """A cell of `segmentation_WBC`, by number."""

    image: pathlib.Path
    mask: pathlib.Path
    label: str


def cells(source: pathlib.Path, dataset: int) -> Iterator[Cell]:
    """Dataset 1 or 2; its csv numbers classes from 1, in the order of LABELS."""
    folder = layout.found(source, ZHENG)
    file = layout.found(folder, f'Class Labels of Dataset {dataset}.csv')
    label = {1: 'class label', 2: 'class'}[dataset]
    of_dataset = layout.found(folder, f'Dataset {dataset}')
    for row, cells in layout.table(file, ('image ID', label)):
        number = layout.whole(file, row, 'image ID', cells['image ID'], 999)
        k = layout.one_of(file, row, label, cells[label], ('1', '2', '3', '4', '5'))
        yield Cell(
            layout.found(of_dataset, f'{number:03d}.bmp'),
            layout.found(of_dataset, f'{number:03d}.png'), LABELS[k],
        )


def read(file: pathlib.Path) -> Image.Image:
    try:
        with Image.open(file) as opened:
            return opened.convert('RGB')
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error}): download it again') from error


def save(image: Image.Image, size: int, root: pathlib.Path, path: str) -> str:
    """Saves an image, made square and resized, at `root/path`; returns `path`."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(square_image(image, size)).save(root / path)
    return path


def numbered() -> Callable[[str], str]:
    """center -> 'CENTER/0001', then 'CENTER/0002' and so on."""
    counts: dict[str, int] = {}

    def name(center):
        counts[center] = counts.get(center, 0) + 1
        return f'{center}/{counts[center]:04d}'

    return name


def mask_of(gray: np.ndarray, what: object) -> np.ndarray:
    """uint8 [H, W]: 2 where white (the nucleus), 1 where gray (the rest of the cell), else 0."""
    mask = np.select([gray > 200, gray > 50], [2, 1], 0).astype(np.uint8)
    if not (mask == 2).any():
        raise DataError(f'{what}: has no white nucleus: give the mask as it was published')
    return mask
