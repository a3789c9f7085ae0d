"""Center folders of drawn cells, for tests to read as they would read a hospital's."""

import csv
import functools
import json
import shutil

import jax
import numpy as np
from PIL import Image

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS


@functools.cache
def centers(num_centers, num_examples, size):
    """`synthetic.centers` of seed 0, drawn once in a process; its arrays cannot be written to."""
    drawn = synthetic.centers(num_centers, num_examples, size, seed=0)
    for center in drawn:
        jax.tree.map(lambda x: x.setflags(write=False), center.examples)
    return drawn


def cells_folder(root, num_centers, num_examples, size):
    """A folder of drawn centers with labels, 'synthetic-0' and so on; returns `root`."""
    rows = []
    for center in centers(num_centers, num_examples, size):
        for i, path in enumerate(center.path):
            _save(root / f'{path}.png', center.examples.image[i])
            label = synthetic.CLASSES[int(center.examples.target['label'][i])]
            rows.append((f'{path}.png', center.name, SPLITS[center.split[i]], label))
    with open(root / 'manifest.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('image', 'center', 'split', 'label'), *rows])
    return root


def newcomer_folder(root, center, folder, as_name=None, labelled=True, limit=40, order=None):
    """A folder of one center of `root`, perhaps under another name, or its labels in an order."""
    folder.mkdir()
    with open(root / 'manifest.csv', newline='') as file:
        rows = [r for r in csv.DictReader(file) if r['center'] == center][:limit]
    labels = [r['label'] for r in rows]
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['image', 'center', 'label'])
        for i, r in enumerate(rows):
            (folder / r['image']).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / r['image'], folder / r['image'])
            label = labels[i if order is None else order[i]]
            writer.writerow([r['image'], as_name or center, label if labelled else ''])
    return folder


def dense_folder(root, target, num_centers, num_examples, size):
    """The same with masks or boxes (target 'mask', 'box'), its files in images/CENTER/."""
    rows, images, annotations = [], [], []
    for center in centers(num_centers, num_examples, size):
        for i in range(num_examples):
            name = f'images/{center.name}/{i:02d}.png'
            mask = name.replace('images', 'masks') if target == 'mask' else ''
            _save(root / name, center.examples.image[i])
            if mask:
                _save(root / mask, center.examples.target['mask'][i])
            rows.append((name, center.name, SPLITS[center.split[i]], mask))
            images.append({'id': len(images), 'file_name': name, 'width': size, 'height': size})
            boxes = (center.examples.target[k][i] for k in ('box', 'box_class'))
            for (y0, x0, y1, x1), k in zip(*(b.tolist() for b in boxes)):
                if k >= 0:
                    annotations.append({
                        'id': len(annotations) + 1, 'image_id': images[-1]['id'],
                        'category_id': k + 1, 'bbox': [x0, y0, x1 - x0, y1 - y0],
                        'area': (x1 - x0) * (y1 - y0), 'iscrowd': 0,
                    })
    with open(root / 'manifest.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('image', 'center', 'split', 'mask'), *rows])
    classes = synthetic.CLASSES_OF[target]
    if target == 'mask':
        (root / 'classes.json').write_text(json.dumps({'mask_classes': classes}))
        return root
    categories = [{'id': k + 1, 'name': name} for k, name in enumerate(classes)]
    (root / 'annotations.json').write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
    )
    return root


def _save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(file)


def newcomer(cells, folder, name, limit=24, skip=0):
    """A folder of one center of `cells`: some of its images."""
    folder.mkdir()
    with open(cells / 'manifest.csv', newline='') as file:
        rows = [r for r in csv.DictReader(file) if r['center'] == name][skip : skip + limit]
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        target = folder / row['image']
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cells / row['image'], target)
    return str(folder)
