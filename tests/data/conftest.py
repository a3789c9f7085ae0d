"""A small well-formed center folder, for tests to read, to vary and to spoil."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

COLUMNS = ('image', 'center', 'patient', 'split', 'label', 'mask')


def write_manifest(root, rows, columns=COLUMNS):
    with open(root / 'manifest.csv', 'w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([[row.get(key, '') for key in columns] for row in rows])


@pytest.fixture(scope='session')
def manifest_writer():
    return write_manifest


@pytest.fixture
def small_folder(tmp_path):
    """Two centers of 6 images, 12 x 10 pixels, with labels, masks and one or two boxes each.

    Row r of the manifest (2 to 13) is image images/{r:02d}.png; even rows are labelled 'a'.
    """
    root = tmp_path / 'root'
    (root / 'images').mkdir(parents=True)
    (root / 'masks').mkdir()
    rng = np.random.default_rng(0)
    rows, images, annotations = [], [], []
    for r in range(2, 14):
        name = f'images/{r:02d}.png'
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(root / name)
        mask = rng.integers(0, 3, (10, 12), np.uint8)
        Image.fromarray(mask).save(root / f'masks/{r:02d}.png')
        rows.append({
            'image': name, 'center': 'north' if r < 8 else 'south', 'patient': '',
            'split': 'train' if r in (2, 8) else '', 'label': 'ab'[r % 2],
            'mask': f'masks/{r:02d}.png',
        })
        images.append({'id': r, 'file_name': name, 'width': 12, 'height': 10})
        for i in range(1 + r % 2):
            annotations.append({'image_id': r, 'category_id': 5 - i, 'bbox': [1 + i, 2, 4, 3]})
    write_manifest(root, rows)
    (root / 'classes.json').write_text(json.dumps({'mask_classes': ['none', 'cell', 'nucleus']}))
    categories = [{'id': 5, 'name': 'wbc'}, {'id': 4, 'name': 'rbc'}]
    (root / 'annotations.json').write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
    )
    return root
