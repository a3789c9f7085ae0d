"""Folders to try each modality's preset on: drawn slices of MR and CT, ultrasound and skin.

    mri         lesions of the brain (masks)          differ in contrast, bias field, noise
    ct          liver with a cyst, a stone or none    differ in window, sharpness, noise
    ultrasound  masses (masks)                        differ in speckle, gain, dynamic range
    dermoscopy  two kinds of lesions                  differ in light, vignette, hair

They are drawings, as the others of `benchmarks.standins`, which writes them.
"""

import csv
import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE, EACH = 128, 60  # pixels, images a center

# Of four centers each; the last one is the farthest from the others.
MRI = ((0.35, 0.1, 0.02), (0.25, 0.3, 0.04), (0.45, 0.2, 0.05), (0.2, 0.5, 0.06))
CT = ((1.0, 0.0, 0.6, 6), (1.3, -0.05, 0.9, 10), (0.8, 0.08, 0.4, 14), (1.5, 0.12, 1.3, 8))
ULTRASOUND = ((0.8, 0.5, 1.0), (1.2, 0.3, 1.3), (0.6, 0.7, 0.8), (1.6, 0.9, 1.5))
SKIN = (
    ((226, 178, 156), 0.1, 0), ((205, 160, 150), 0.3, 4), ((236, 196, 160), 0.2, 8),
    ((190, 140, 150), 0.5, 12),
)


def place() -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel, from -1 to 1."""
    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE / 2) / (SIZE / 2)
    return x, y


def outline(rng, cx, cy, radius, rough: float, flat: float = 1.0) -> np.ndarray:
    """How far each pixel is inside a rough disc: positive inside, in units of its radius."""
    x, y = place()
    angle, r = np.arctan2((y - cy) / flat, x - cx), np.hypot(x - cx, (y - cy) / flat)
    waves = [rng.normal(0, rough / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5)]
    return 1 + sum(waves) - r / radius


def soft(inside: np.ndarray, edge: float = 0.1) -> np.ndarray:
    """From 0 outside to 1 inside, over `edge` radii."""
    return 1 / (1 + np.exp(np.clip(-inside / edge, -30, 30)))


def smooth(rng, sigma: float) -> np.ndarray:
    """Noise of unit deviation that is alike within `sigma` pixels."""
    x = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma)
    return x / x.std()


def grays(x: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 as uint8."""
    return np.clip(255 * x, 0, 255).astype(np.uint8)


def mri(rng, contrast: float, bias: float, noise: float):
    """A slice of a brain, and its lesions; four of five slices have one or two."""
    head, brain = soft(outline(rng, 0, 0, 0.9, 0.02, 1.1)), outline(rng, 0, 0, 0.75, 0.03, 1.1)
    image = 0.5 * head + soft(brain) * (-0.15 + 0.06 * smooth(rng, 6))
    for side in (-1, 1):
        image -= 0.25 * soft(outline(rng, side * 0.12, rng.normal(0, 0.03), 0.13, 0.1, 2.0))
    truth = np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        turn, far = rng.uniform(0, 6.3), rng.uniform(0.2, 0.5)
        inside = outline(rng, far * np.cos(turn), far * np.sin(turn), rng.uniform(0.1, 0.22), 0.15)
        image += contrast * soft(inside)
        truth |= inside > 0
    image *= 1 + bias * (smooth(rng, 40) / 2)
    rician = np.hypot(image + rng.normal(0, noise, image.shape), rng.normal(0, noise, image.shape))
    return grays(rician), truth


def ct(rng, contrast: float, level: float, blur: float, noise: float):
    """A slice of a belly, and what is in its liver."""
    body = soft(outline(rng, 0, 0, 0.92, 0.03, 0.75), 0.03)
    image = body * (0.4 + 0.02 * smooth(rng, 5))
    cx, cy = -0.4 + rng.normal(0, 0.03), -0.05 + rng.normal(0, 0.03)
    image += 0.12 * soft(outline(rng, cx, cy, 0.42, 0.08, 0.9))
    image += 0.12 * soft(outline(rng, 0.55, -0.05, 0.18, 0.08, 1.2))
    image += 0.45 * soft(outline(rng, 0, 0.42, 0.13, 0.03))
    label = ('clear', 'cyst', 'stone')[rng.integers(3)]
    at = cx + rng.normal(0, 0.1), cy + rng.normal(0, 0.08)
    spot = outline(rng, *at, rng.uniform(0.07, 0.14), 0.1)
    image += {'clear': 0.0, 'cyst': -0.14, 'stone': 0.3}[label] * soft(spot)
    image = ndimage.gaussian_filter(image, blur) + noise / 255 * smooth(rng, 0.7)
    return grays(0.4 + level + contrast * (image - 0.4)), label


def ultrasound(rng, grain: float, gain: float, power: float):
    """A mass with its shadow or its enhancement in speckle, and where it is."""
    x, y = place()
    flat = rng.uniform(0.5, 0.9)
    cx, cy, radius = rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.3), rng.uniform(0.2, 0.4)
    inside = outline(rng, cx, cy, radius, 0.1, flat)
    echo = 0.5 + 0.1 * smooth(rng, 10) + 0.15 * np.sin(9 * y + smooth(rng, 15)) * (y < -0.3)
    echo -= 0.35 * soft(inside)
    below = (np.abs(x - cx) < 0.7 * radius) & (y > cy + flat * radius)
    echo += rng.choice([-0.15, 0.15]) * ndimage.gaussian_filter(below.astype(float), 4)
    speckle = np.hypot(smooth(rng, grain), smooth(rng, grain)) / 1.25
    image = np.clip(echo, 0.03, None) * speckle * np.exp(-gain * (y + 1) / 2) * (1 + gain / 2)
    return grays(np.clip(image, 0, None) ** (1 / (1 + power)) * 0.8), inside > 0


def dermoscopy(rng, color, vignette: float, hairs: int):
    """A lesion of the skin, even and round or of many colors and rough, and which of both."""
    x, y = place()
    label = ('nevus', 'melanoma')[rng.integers(2)]
    rough = rng.uniform(0.02, 0.08) if label == 'nevus' else rng.uniform(0.1, 0.25)
    at, radius, flat = rng.normal(0, 0.1, 2), rng.uniform(0.3, 0.55), rng.uniform(0.75, 1.2)
    inside = outline(rng, *at, radius, rough, flat)
    dark = rng.uniform(0.35, 0.6) * np.array([0.75, 1.0, 1.1])
    spots = 0.05 if label == 'nevus' else 0.22
    depth = soft(inside, 0.08)[..., None] * (dark + spots * smooth(rng, 7)[..., None])
    image = np.array(color) * (1 - np.clip(depth, 0, 0.95)) * (1 + 0.03 * smooth(rng, 3)[..., None])
    for _ in range(rng.integers(0, hairs + 1)):
        across = np.cos(turn := rng.uniform(0, 6.3)) * x + np.sin(turn) * y
        image[np.abs(across - rng.uniform(-0.8, 0.8) + 0.1 * x**2) < 0.012] *= 0.35
    image *= (1 - vignette * (x**2 + y**2) / 2)[..., None] * rng.uniform(0.85, 1.1)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), label


def fill(root: pathlib.Path, draw: Callable, looks, classes: dict) -> None:
    """A folder with a center for each look; `draw` makes an image, and its mask or its label."""
    rng, rows = np.random.default_rng(2), []
    for center, look in zip('abcdef', looks):
        for i in range(EACH):
            image, truth = draw(rng, *look)
            row = {'image': f'images/{center}/{i}.png', 'center': center}
            if isinstance(truth, str):
                row['label'] = truth
            else:
                row['mask'] = f'masks/{center}/{i}.png'
                save(root / row['mask'], truth.astype(np.uint8))
            save(root / row['image'], image)
            rows.append(row)
    write(root, rows, classes)


def save(path: pathlib.Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write(folder: pathlib.Path, rows, classes) -> None:
    header = list(rows[0])
    with open(folder / 'manifest.csv', 'w', newline='') as file:
        table = csv.DictWriter(file, header)
        table.writeheader()
        table.writerows(rows)
    (folder / 'classes.json').write_text(json.dumps(classes))


def write_modalities(root: pathlib.Path) -> None:
    """A folder of each kind under `root`."""
    fill(root / 'mri', mri, MRI, {'mask_classes': ['background', 'lesion']})
    fill(root / 'ct', ct, CT, {'classes': ['clear', 'cyst', 'stone']})
    fill(root / 'ultrasound', ultrasound, ULTRASOUND, {'mask_classes': ['background', 'mass']})
    fill(root / 'dermoscopy', dermoscopy, SKIN, {'classes': ['nevus', 'melanoma']})
