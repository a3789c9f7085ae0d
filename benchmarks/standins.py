"""Folders to try defaults on: drawn vessels, chests and images of other modalities.

python -m benchmarks.standins --root=FOLDER [--npz=pneumoniamnist.npz]

Writes FOLDER/vessels (masks), FOLDER/lungs (boxes), FOLDER/views (labels) and FOLDER/findings
(several labels an image), each with centers that differ in color, contrast, field and size, and the
folders of `benchmarks.modalities`.  They are drawings: they show that a default works
at all on such images, not how good it is on real ones.

With MedMNIST's file also FOLDER/pneumonia: real radiographs of 28 pixels from one hospital, shared
out among seven centers, whose tone, contrast, noise and black borders are drawn.
"""

import json
import pathlib

import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw
from scipy import ndimage

from benchmarks.modalities import fill, write, write_modalities

_ROOT = flags.DEFINE_string('root', None, 'where the folders are written')
_NPZ = flags.DEFINE_string('npz', None, "MedMNIST's pneumoniamnist.npz")

# (center, images, pixels, background red, green, blue; contrast of vessels; noise)
VESSELS = (
    ('a', 40, 584, (200, 110, 60), 0.38, 5.0),
    ('b', 20, 700, (150, 100, 50), 0.30, 7.0),
    ('c', 28, 960, (110, 40, 20), 0.42, 4.0),
)
# (center, images, gamma, contrast, noise, collimation, turned over)
CHESTS = (
    ('a', 60, 1.0, 1.0, 4.0, 0.00), ('b', 60, 0.7, 0.8, 8.0, 0.05), ('c', 45, 1.4, 1.1, 5.0, 0.00),
    ('d', 60, 0.9, 0.6, 10.0, 0.12), ('e', 40, 1.2, 1.3, 6.0, 0.08), ('f', 70, 0.6, 1.0, 7.0, 0.03),
)
FINDINGS = ('cardiomegaly', 'effusion', 'opacity')
VIEWS = ('PA', 'AP', 'lateral')
# Gamma, contrast, noise and widest black border of the centers of real radiographs.
LOOKS = (
    (1.0, 1.0, 0, 0), (0.7, 0.8, 3, 2), (1.4, 1.1, 6, 0), (0.9, 0.6, 8, 3), (1.2, 1.3, 4, 1),
    (0.6, 1.0, 5, 2), (1.6, 0.7, 8, 0),
)


def vessels(rng: np.random.Generator, size: int, color, contrast: float, noise: float):
    """A retina, uint8 [size, size, 3], and its vessels, bool [size, size]."""
    y, x = (np.mgrid[:size, :size] - size / 2) / (size / 2)
    inside = np.hypot(x, y) < 0.95
    mask = Image.new('L', (size, size))
    pen = ImageDraw.Draw(mask)
    disc = rng.choice([-1, 1]) * rng.uniform(0.35, 0.55), rng.uniform(-0.1, 0.1)

    def grow(at, angle, width, steps):
        for _ in range(steps):
            angle += rng.normal(0, 0.12)
            step = 0.02 * np.array([np.cos(angle), np.sin(angle)])
            ends = [tuple((p + 1) * size / 2) for p in (at, at + step)]
            pen.line([*ends[0], *ends[1]], fill=255, width=max(1, round(width * size / 584)))
            at = at + step
            if np.hypot(*at) > 0.95:
                return
            if width > 2 and rng.random() < 0.07:
                side = rng.choice([-1, 1])
                grow(at, angle + side * rng.uniform(0.4, 1.0), 0.7 * width, int(0.8 * steps) + 5)
                width *= 0.92

    for start in np.linspace(0, 2 * np.pi, 7)[:6] + rng.uniform(0, 1):
        grow(np.array(disc), start, rng.uniform(5, 8), 60)
    truth = (np.asarray(mask) > 0) & inside
    light = 1 - 0.35 * (x**2 + y**2) + 0.1 * rng.normal() * x
    light += 0.5 * np.exp(-((x - disc[0]) ** 2 + (y - disc[1]) ** 2) / 0.012)
    texture = ndimage.gaussian_filter(rng.normal(size=(size, size)), size / 40)
    light += 0.06 * texture / texture.std()
    for _ in range(rng.integers(0, 15)):  # lesions, bright and dark
        cx, cy, r = *rng.uniform(-0.7, 0.7, 2), rng.uniform(0.005, 0.03)
        light += rng.choice([-0.3, 0.3]) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)
    depth = ndimage.gaussian_filter(truth.astype(float), size / 584) * rng.uniform(0.6, 1.2)
    image = light[..., None] * np.array(color) * rng.uniform(0.8, 1.15)
    image *= 1 - contrast * depth[..., None] * np.array([0.45, 1.0, 0.8])
    image = image * inside[..., None] + rng.normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), truth


def chest(rng: np.random.Generator, view: str, gamma, contrast, noise, collimation):
    """A radiograph, uint8 [H, W], and the boxes of right and left lung (x, y, w, h)."""
    h, w = 320, int(320 * rng.uniform(0.85, 1.2))
    y, x = np.mgrid[:h, :w] / h
    x = (x - w / h / 2) * rng.uniform(0.9, 1.1)

    def ellipse(cx, cy, rx, ry, edge=0.02):
        d = np.hypot((x - cx) / rx, (y - cy) / ry)
        return 1 / (1 + np.exp(np.clip((d - 1) / edge, -30, 30)))

    jx, jy, scale = rng.normal(0, 0.02), rng.normal(0, 0.03), rng.uniform(0.85, 1.1)
    body = ellipse(jx, 0.6 + jy, 0.46 * scale, 0.75 * scale, 0.05)
    image, boxes = 0.75 * body, []
    if view == 'lateral':
        lung = ellipse(jx + 0.02, 0.45 + jy, 0.22 * scale, 0.3 * scale)
        image -= 0.4 * lung
        image += 0.25 * ellipse(jx - 0.2 * scale, 0.5 + jy, 0.05, 0.5)  # spine
        image += 0.2 * ellipse(jx + 0.08, 0.55 + jy, 0.09, 0.11, 0.1) * lung
    else:
        heart = {'PA': 0.10, 'AP': 0.145}[view] * rng.uniform(0.85, 1.2) * scale
        for side in (-1, 1):  # the right lung is at the left of the picture
            cx, cy = jx + side * 0.2 * scale, 0.43 + jy + rng.normal(0, 0.01)
            rx, ry = (0.15 - 0.015 * (side > 0)) * scale, 0.28 * scale * rng.uniform(0.85, 1.1)
            image -= 0.42 * ellipse(cx, cy, rx, ry)
            x0, x1 = ((c / rng.uniform(1, 1) + w / h / 2) for c in (cx - rx, cx + rx))
            boxes.append([x0 * h, (cy - ry) * h, (x1 - x0) * h, 2 * ry * h])
        image += 0.35 * ellipse(jx + 0.05 * scale, 0.58 + jy, heart, heart * 1.1, 0.05)
        image += 0.2 * ellipse(jx, 0.4, 0.03, 0.6)
        clavicle = {'PA': 0.24, 'AP': 0.17}[view] + jy
        image += 0.12 * (np.abs(y - clavicle - 0.25 * np.abs(x)) < 0.012) * body
    for rib in np.arange(0.15, 0.8, 0.075):
        image += 0.05 * (np.abs(y - jy - rib - 0.35 * x**2) < 0.012) * body
    image += 0.03 * ndimage.gaussian_filter(rng.normal(size=image.shape), 12) * 12
    image = np.clip(0.5 + contrast * (image - 0.5) + rng.normal(0, 0.06), 0, 1) ** gamma
    edge = int(collimation * rng.uniform(0, 1) * h)
    if edge:
        image[:edge], image[:, :edge] = 0, 0
    image = 255 * image + rng.normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), boxes


def write_vessels(root: pathlib.Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for center, number, size, *look in VESSELS:
        for sub in ('images', 'masks'):
            (root / sub / center).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            image, truth = vessels(rng, size, *look)
            row = {'image': f'images/{center}/{i}.png', 'center': center,
                   'mask': f'masks/{center}/{i}.png'}
            Image.fromarray(image).save(root / row['image'])
            Image.fromarray(truth.astype(np.uint8)).save(root / row['mask'])
            rows.append(row)
    write(root, rows, {'mask_classes': ['background', 'vessel']})


def write_chests(root: pathlib.Path, views) -> None:
    rng, rows, images, annotations = np.random.default_rng(1), [], [], []
    for center, number, *look in CHESTS:
        (root / 'images' / center).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            view = views[rng.integers(len(views))]
            image, boxes = chest(rng, view, *look)
            path = f'images/{center}/{i}.png'
            Image.fromarray(image).save(root / path)
            label = {'label': view} if 'lateral' in views else {}
            rows.append({'image': path, 'center': center, **label})
            images.append({'id': len(images) + 1, 'file_name': path,
                           'width': image.shape[1], 'height': image.shape[0]})
            for k, box in enumerate(boxes, start=1):
                annotations.append({'id': len(annotations) + 1, 'image_id': len(images),
                                    'category_id': k, 'bbox': [float(v) for v in box]})
    if 'lateral' in views:
        write(root, rows, {'classes': list(views)})
        return
    write(root, rows, {})
    names = [{'id': 1, 'name': 'right lung'}, {'id': 2, 'name': 'left lung'}]
    (root / 'annotations.json').write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': names})
    )


def write_pneumonia(root: pathlib.Path, npz: str, each: int = 90) -> None:
    with np.load(npz) as file:
        images, labels = (
            np.concatenate([file[f'{split}_{what}'] for split in ('train', 'val', 'test')])
            for what in ('images', 'labels')
        )
    rng, rows = np.random.default_rng(0), []
    order = rng.permutation(len(images))
    for c, (gamma, contrast, noise, border) in enumerate(LOOKS):
        (root / 'images' / f'c{c}').mkdir(parents=True, exist_ok=True)
        for i in range(each):
            k = order[each * c + i]
            x = np.clip(0.5 + contrast * (images[k] / 255 - 0.5), 0, 1) ** gamma
            small = Image.fromarray((x * 255).astype(np.uint8))
            x = np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC)).astype(float)
            edge = 3 * rng.integers(0, border + 1)
            x[:edge], x[:, 96 - edge :] = 0, 0
            x = np.clip(x + rng.normal(0, noise, x.shape), 0, 255).astype(np.uint8)
            path = f'images/c{c}/{i}.png'
            Image.fromarray(x).save(root / path)
            label = ('normal', 'pneumonia')[int(labels[k].item())]
            rows.append({'image': path, 'center': f'c{c}', 'label': label})
    write(root, rows, {'classes': ['normal', 'pneumonia']})


def findings(rng, *look):
    """A chest from the front, and the names of what is to be found there, `|` between them."""
    image, boxes = chest(rng, 'PA', *look)
    found = [name for name in FINDINGS if rng.random() < 0.35]
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    added = np.zeros(image.shape)
    (x0, y0, w, h), side = boxes[rng.integers(2)], rng.uniform(0.25, 0.4)
    if 'opacity' in found:
        cx, cy, r = x0 + w * rng.uniform(0.3, 0.7), y0 + h * rng.uniform(0.2, 0.6), w * side
        added += 70 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)
    if 'effusion' in found:
        rises = y0 + h * rng.uniform(0.65, 0.8) - 0.15 * np.abs(x - x0 - w / 2)
        added += 80 * ((x > x0) & (x < x0 + w) & (y > rises) & (y < y0 + h))
    if 'cardiomegaly' in found:
        cx, cy, r = width / 2 + 0.06 * height, 0.58 * height, 0.2 * height
        added += 60 / (1 + np.exp(np.clip((np.hypot(x - cx, y - cy) / r - 1) / 0.03, -30, 30)))
    added = ndimage.gaussian_filter(added, 3)
    return np.clip(image + added, 0, 255).astype(np.uint8), '|'.join(found) or 'No Finding'


def main(argv):
    del argv
    root = pathlib.Path(_ROOT.value)
    write_vessels(root / 'vessels')
    write_chests(root / 'lungs', ('PA', 'AP'))
    write_chests(root / 'views', VIEWS)
    looks = [look for _, _, *look in CHESTS]
    fill(root / 'findings', findings, looks, {'classes': list(FINDINGS)})
    write_modalities(root)
    if _NPZ.value:
        write_pneumonia(root / 'pneumonia', _NPZ.value)


if __name__ == '__main__':
    flags.mark_flags_as_required(['root'])
    app.run(main)
