"""Center folders of drawn cells, for tests to read as they would read a hospital's."""

import csv

import numpy as np
from PIL import Image

from fedgen_jax.data import synthetic
from fedgen_jax.data.examples import SPLITS


def cells_folder(root, num_centers, num_examples, size):
    """A folder of drawn centers with labels, 'synthetic-0' and so on; returns `root`."""
    rows = []
    for center in synthetic.centers(num_centers, num_examples, size, seed=0):
        for i, path in enumerate(center.path):
            file = root / f'{path}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(center.examples.image[i])).save(file)
            label = synthetic.CLASSES[int(center.examples.target['label'][i])]
            rows.append((f'{path}.png', center.name, SPLITS[center.split[i]], label))
    with open(root / 'manifest.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('image', 'center', 'split', 'label'), *rows])
    return root
