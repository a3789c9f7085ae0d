"""What models say of images, in files that other programs read.

    probabilities.csv            a row an image: classification
    images.csv                   of masks and boxes, where a table has further columns: these
    masks/IMAGE.png              the number of a class in each pixel, in the image's own size
    masks/VOLUME.nii.gz          the same of a NIfTI volume, if all its slices are asked for
    classes.json                 the names of the numbers
    detections.json, images.json COCO's results in the image's own pixels, and what their ids mean
    overlays/IMAGE.png           pictures for people, where they are asked for
"""

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fedgen_jax.data.folder import nifti
from fedgen_jax.files import write_json, write_text
from fedgen_jax.tasks import draw
from fedgen_jax.tasks.base import Task
from fedgen_jax.tasks.coco_metrics import Ids, to_results
from fedgen_jax.tasks.detection import SHOWN

BAR = 18  # pixels, a line of an overlay's legend


class Said(NamedTuple):
    """What a model says of one image.

    name:   of the image, a path relative to what was asked for.
    size:   (width, height) of the image.
    found:  the task's prediction, in the image's own pixels.
    image:  the picture itself; None where no overlay is wanted.
    more:   further cells of a table, by column, such as the center and the truth.
    source: the file that it was read from, of a volume with the slice; '' of none.
    kept:   the cells of the further columns of the data's own table.
    """

    name: str
    size: tuple[int, int]
    found: Mapping[str, Any]
    image: Image.Image | None = None
    more: Mapping[str, str] = {}
    source: str = ''
    kept: Mapping[str, str] = {}


def write_predictions(
    folder: pathlib.Path,
    said: Iterable[Said],
    task: Task,
    classes: Sequence[str],
    ids: Ids | None = None,
    overlays: bool = False,
) -> list[pathlib.Path]:
    """Writes what is said of images; returns the files and folders that were written.

    ids: of images and classes in COCO's files; default: they count from 1.

    Raises ValueError where `folder` holds files already, or the task's predictions are no
    probabilities, masks or boxes.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f'{folder}: holds files already: name a new folder')
    rows, listed, found, sizes, written = [], [], [], [], {}
    has_kept = False
    slices: list[Said] = []  # of one volume, without their pictures
    for one in said:
        if 'mask' in one.found:
            if slices and volume_of(slices[0]) != volume_of(one):
                write_masks(folder / 'masks', slices)
                slices = []
            slices.append(one._replace(image=None))
            if not volume_of(one):
                write_masks(folder / 'masks', slices)
                slices = []
            written[folder / 'masks'] = True
        elif 'box' in one.found:
            found.append(one._replace(image=None))
        elif 'probability' in one.found and np.ndim(one.found['probability']) == 1:
            rows.append(row_of(one, task, classes))
        else:
            raise ValueError(
                f'task={task.name!r}: its predictions ({", ".join(one.found)}) are no '
                'probabilities, masks or boxes: ask fedgen_jax.load(RUN).model(NAME)'
            )
        sizes.append(one.size)
        listed.append(with_kept({'image': one.name, **one.more}, one.kept))
        has_kept |= bool(one.kept)
        if overlays and one.image:
            overlay(one, classes).save(file_in(folder / 'overlays', one.name))
            written[folder / 'overlays'] = True
    folder.mkdir(parents=True, exist_ok=True)
    if slices:
        write_masks(folder / 'masks', slices)
    if rows:
        write_text(folder / 'probabilities.csv', table(rows))
        written[folder / 'probabilities.csv'] = True
    elif has_kept:
        write_text(folder / 'images.csv', table(listed))
        written[folder / 'images.csv'] = True
    if folder / 'masks' in written:
        write_json(folder / 'classes.json', {'mask_classes': list(classes)})
        written[folder / 'classes.json'] = True
    if task.target == 'box':
        for name, value in coco_of(found, classes, ids).items():
            write_json(folder / name, value)
            written[folder / name] = True
    return list(written)


def volume_of(one: Said) -> str:
    """The NIfTI file that an image is a slice of; '' of none."""
    file, k = nifti.parts(one.source)
    return '' if k is None else file


def write_masks(folder: pathlib.Path, slices: Sequence[Said]) -> None:
    """Writes masks: all slices of a NIfTI volume as one file like it, others as a png each."""
    first, numbers = slices[0], [nifti.parts(one.source)[1] for one in slices]
    volume = volume_of(first)
    if volume and numbers == list(range(nifti.geometry(volume)[0][2])):
        file = new_file(folder / nifti.parts(first.name)[0])
        nifti.write_mask(file, volume, [one.found['mask'] for one in slices])
        return
    for one in slices:
        mask = Image.fromarray(np.asarray(one.found['mask'], np.uint8))
        mask.save(file_in(folder, one.name))


def row_of(one: Said, task: Task, classes: Sequence[str]) -> dict[str, str]:
    """A row of probabilities.csv; 'predicted' where an image has one class."""
    p_K = np.asarray(one.found['probability'])
    predicted = {'predicted': classes[int(p_K.argmax())]} if task.target == 'label' else {}
    row = {'image': one.name, **one.more, **predicted}
    for name, p in zip(classes, p_K.tolist()):
        row[f'{name} (probability)' if name in row else name] = f'{p:.7g}'
    return with_kept(row, one.kept)


def with_kept(row: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    """A row with the cells of further columns behind; one whose name is taken is told apart."""
    taken = {name: f'{name} (table)' if name in row else name for name in kept}
    return {**row, **{taken[name]: cell for name, cell in kept.items()}}


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """csv; a cell is empty where a row lacks the column."""
    text, columns = io.StringIO(), list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def coco_of(said: Sequence[Said], classes: Sequence[str], ids: Ids | None = None) -> dict:
    """{'detections.json': COCO's results, 'images.json': the images and categories of the ids}."""
    if ids is None:
        image_of = {one.name: i for i, one in enumerate(said, start=1)}
        ids = Ids(image_of, tuple(range(1, len(classes) + 1)))
    results = to_results({
        k: [one.found[k] for one in said] for k in ('box', 'box_class', 'score')
    })
    for r in results:
        r['image_id'] = ids.image[said[r['image_id'] - 1].name]
        r['category_id'] = ids.category[r['category_id'] - 1]
    images = [
        {'id': ids.image[one.name], 'file_name': one.name, 'width': one.size[0],
         'height': one.size[1]}
        for one in said
    ]
    categories = [{'id': k, 'name': name} for k, name in zip(ids.category, classes)]
    return {
        'detections.json': results,
        'images.json': {'images': images, 'annotations': [], 'categories': categories},
    }


def file_in(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The png of an image below a folder, which is made.

    Raises ValueError where it is there already, as of 'a' beside 'a.png'.
    """
    return new_file(folder / (name if name.lower().endswith('.png') else f'{name}.png'))


def new_file(file: pathlib.Path) -> pathlib.Path:
    """A file that is not there yet, whose folder is made.  Raises ValueError where it is."""
    if file.exists():
        raise ValueError(f'{file}: of two images: rename one of them')
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def overlay(one: Said, classes: Sequence[str]) -> Image.Image:
    """The image with what is said of it: outlines or boxes, and a legend below."""
    assert one.image is not None
    image_HxWx3, found = np.asarray(one.image), one.found
    if 'mask' in found:
        shown = [k for k in range(1, len(classes)) if np.any(found['mask'] == k)]
        picture = draw.masks(image_HxWx3, found['mask'], len(classes))
        lines = [(classes[k], draw.COLORS[(k - 1) % len(draw.COLORS)]) for k in shown]
    elif 'box' in found:
        class_M = np.where(found['score'] >= SHOWN, found['box_class'], -1)
        picture = draw.boxes(image_HxWx3, found['box'], class_M)
        lines = [
            (f'{classes[k]}: {int(np.sum(class_M == k))}', draw.COLORS[k % len(draw.COLORS)])
            for k in np.unique(class_M[class_M >= 0])
        ]
    else:
        picture, p_K = draw.enlarge(image_HxWx3), np.asarray(found['probability'])
        best = np.argsort(-p_K, kind='stable')[:3]
        lines = [(f'{classes[k]} {p_K[k]:.2f}', None) for k in best]
    return with_legend(picture, lines or [('nothing found', None)])


def with_legend(picture_HxWx3: np.ndarray, lines: Sequence[tuple[str, Any]]) -> Image.Image:
    """A picture over lines of text, each with a square of its color, if it has one."""
    height, width, _ = picture_HxWx3.shape
    page = Image.new('RGB', (max(width, draw.SIDE), height + BAR * len(lines)), 'white')
    page.paste(Image.fromarray(picture_HxWx3), (0, 0))
    pen = ImageDraw.Draw(page)
    for i, (text, color) in enumerate(lines):
        top = height + BAR * i
        if color is not None:
            pen.rectangle((3, top + 3, 14, top + 14), fill=tuple(int(v) for v in color))
        pen.text((20 if color is not None else 4, top + 3), text, fill='black')
    return page
