"""blood_det of RESULTS: boxes of white cells, red cells and platelets, four sources.

What lies in SOURCE: TXL-PBC of `blood.py`; centers.csv needs no labels.
"""

import pathlib

import numpy as np
import yaml

from fedgen_jax.data.folder.square import square_boxes
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import blood, layout
from fedgen_jax.data.public.layout import PublicSet

SIZE = 256
CLASSES = {'WBC': 'wbc', 'RBC': 'rbc', 'Platelets': 'platelet'}  # by the names of data.yaml


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """The authors' split; boxes in the pixels of the reduced images."""
    folder = layout.found(source, blood.TXL)
    names = read_names(layout.found(folder, 'data.yaml'))
    name = blood.numbered()
    rows, sizes, boxes = [], [], []
    for i, frame in enumerate(blood.frames(source, with_labels=False)):
        file = layout.found(folder, f'labels/{frame.split}/{frame.image.stem}.txt')
        image = blood.read(frame.image)
        path = blood.save(image, SIZE, root, f'images/{name(frame.center)}.png')
        rows.append({'image': path, 'center': frame.center, 'split': frame.split})
        sizes.append((path, SIZE, SIZE))
        boxes += [(i, k, box) for k, box in read_boxes(file, names, *image.size)]
    layout.write_boxes(root, sizes, boxes, tuple(CLASSES.values()))
    layout.write_manifest(root, rows)
    return ()


def read_names(file: pathlib.Path) -> list[str]:
    """The class names of data.yaml, by number."""
    try:
        names = yaml.safe_load(file.read_text())['names']
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataError(f'{file}: has no names ({error}): take it as published') from error
    names = list(names.values()) if isinstance(names, dict) else names
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(CLASSES):
        raise DataError(f'{file}: field names: {names}, not {list(CLASSES)}: take it as published')
    return names


def read_boxes(
    file: pathlib.Path, names: list[str], width: int, height: int
) -> list[tuple[int, list[float]]]:
    """(place in CLASSES, (x, y, w, h) in the square of SIZE) of a line `class cx cy w h` each."""
    found = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            k, *numbers = line.split()
            cx, cy, w, h = map(float, numbers)
            place = list(CLASSES).index(names[int(k)])
        except (ValueError, IndexError):
            layout.fault(file, number, 'box', f'{line!r} is no `class cx cy w h`: take it as '
                         'published')
        corners = np.array([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2])
        pixels = (corners * [height, width, height, width])[None]
        y0, x0, y1, x1 = map(float, square_boxes(pixels, width, height, SIZE)[0])
        found.append((place, [x0, y0, x1 - x0, y1 - y0]))
    return found


SET = PublicSet(
    name='blood_det',
    task='detection',
    images='1,260',
    centers=blood.CENTERS,
    size='not verified',
    checksum='',
    licence='MIT; the images of PBC: CC BY 4.0',
    citation='Gan, Li and Wang, 2025, TXL-PBC, Scientific Data 12:1694',
    url='https://github.com/nicoaira/TXL-PBC_Dataset',
    access='a repository, by git',
    source='TXL-PBC/ with images/, labels/, data.yaml and centers.csv',
    prepare=prepare,
    caveats='One team made all boxes, semi-automatically: images shift between centers, annotators '
            'do not. 2 and no platelets in the test images of raabin-wbc and bcdd. No patient is '
            'known. Never train on wbc_cls and test on this: they share images.',
    run_here=True,
)
