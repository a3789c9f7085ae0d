"""Average precision as COCO defines it, by `pycocotools`, and the FROC curve of its matches."""

import contextlib
import io
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fedgen_jax.data.folder import coco_forms
from fedgen_jax.data.folder.text import read_json

MIN_BOXES = 10  # a class with fewer true boxes is left out of a center's mean
LEAST_SCORE = 0.01  # detections below are dropped
FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # an image, where FROC is read


def scores(predictions: Any, target: dict, weight_N: np.ndarray, classes: Sequence[str]) -> dict:
    """AP at IoU 0.5, at 0.75, and the mean over 0.5, 0.55 .. 0.95; mean sensitivity of FROC.

    Args:
      predictions: box [N, D, 4] (y0, x0, y1, x1), score [N, D], box_class [N, D].
      target: box [N, M, 4], box_class [N, M], -1 for padding.

    Returns:
      ap50, ap75, map, froc: means over the classes with at least `MIN_BOXES` true boxes.  What is
      found of another class costs nothing.
      n: images.  boxes: of each class.  left_out: classes with fewer boxes than that.
      classes: of every class with a box, the four and the sensitivity at `FALSE_POSITIVES`.
    """
    scored = np.asarray(weight_N) > 0
    truth_NxM = np.asarray(target['box_class'])[scored]
    count = {name: int(np.sum(truth_NxM == k)) for k, name in enumerate(classes)}
    if not any(count.values()):
        return {'n': 0}
    run = matched(predictions, target, weight_N, classes)
    by_class = dict(zip(classes, _evaluate(run, len(truth_NxM), len(classes))))
    by_class = {name: by_class[name] for name in classes if count[name]}
    left_out = [name for name in classes if count[name] < MIN_BOXES]
    kept = [s for name, s in by_class.items() if name not in left_out]
    metrics = ('ap50', 'ap75', 'map', 'froc') if kept else ()
    return {
        **{m: float(np.mean([s[m] for s in kept])) for m in metrics},
        'n': len(truth_NxM),
        'boxes': count,
        'left_out': left_out,
        'classes': by_class,
    }


def to_coco(box_NxMx4: np.ndarray, box_class_NxM: np.ndarray, classes: Sequence[str]) -> dict:
    """A COCO data set of images 1 .. N and categories 1 .. K."""
    annotations: list[dict[str, Any]] = [
        {'image_id': i + 1, 'category_id': int(c) + 1, 'bbox': to_xywh(box), 'iscrowd': 0}
        for i, (boxes, of) in enumerate(zip(box_NxMx4, box_class_NxM))
        for box, c in zip(boxes, of) if c >= 0
    ]
    for i, a in enumerate(annotations):
        a['id'], a['area'] = i + 1, a['bbox'][2] * a['bbox'][3]
    return {
        'images': [{'id': i + 1} for i in range(len(box_NxMx4))],
        'annotations': annotations,
        'categories': [{'id': k + 1, 'name': name} for k, name in enumerate(classes)],
    }


def to_results(predictions: dict) -> list[dict]:
    """Detections in COCO's format of results, of images 1 .. N and categories 1 .. K."""
    detected = zip(*(predictions[k] for k in ('box', 'box_class', 'score')))
    return [
        {'image_id': i, 'category_id': int(c) + 1, 'bbox': to_xywh(box), 'score': float(s)}
        for i, boxes in enumerate(detected, start=1)
        for box, c, s in zip(*boxes) if s >= LEAST_SCORE
    ]


class Ids(NamedTuple):
    """What a folder's own `annotations.json` calls images and classes.

    image: {path of the manifest: its id}.  category: of each class, in the order of their numbers.
    """

    image: dict[str, Any]
    category: tuple[Any, ...]


def ids_of(root: pathlib.Path, paths: Sequence[str], classes: Sequence[str]) -> Ids:
    """The ids of a folder's images and of a model's classes.  Raises ValueError where some lack."""
    file = root / 'annotations.json'
    truth = read_json(file)
    named = coco_forms.find_paths([x['file_name'] for x in truth['images']], paths)
    image_of = {path: x['id'] for path, x in zip(named, truth['images']) if path}
    category_of = {x['name']: x['id'] for x in truth['categories']}
    for name in classes:
        if name not in category_of:
            raise ValueError(f'{file}: field categories: no {name!r}, which the model detects')
    for path in paths:
        if path not in image_of:
            raise ValueError(f'{file}: field images: no {path!r}, which manifest.csv lists')
    return Ids(image_of, tuple(category_of[name] for name in classes))


def only_images(root: pathlib.Path, paths: set[str]) -> dict:
    """A folder's `annotations.json` with these images alone."""
    truth = read_json(root / 'annotations.json')
    found = coco_forms.find_paths([x['file_name'] for x in truth['images']], sorted(paths))
    images = [x for x, path in zip(truth['images'], found) if path]
    image_of = {coco_forms.key_of(x['id']): x for x in images}
    annotations: list[dict] = []
    for a in truth['annotations']:
        image = image_of.get(coco_forms.key_of(a['image_id']))
        if image:  # with what pycocotools cannot do without, whatever the folder left out
            x, y, w, h = coco_forms.bbox_of(a, int(image['width']), int(image['height']))
            number = len(annotations) + 1
            given = {'id': number, 'iscrowd': 0, 'area': w * h, 'bbox': [x, y, w, h]}
            annotations.append({**a, **given, 'image_id': image['id']})
    return {**truth, 'images': images, 'annotations': annotations}


def to_xywh(box_4: np.ndarray) -> list[float]:
    """(y0, x0, y1, x1) -> COCO's [x, y, width, height]."""
    y0, x0, y1, x1 = (float(v) for v in box_4)
    return [x0, y0, x1 - x0, y1 - y0]


def matched(
    predictions: Any, target: dict, weight_N: np.ndarray, classes: Sequence[str]
) -> COCOeval:
    """COCO's evaluation of the images that count, with detections and boxes matched."""
    scored = np.asarray(weight_N) > 0
    box_NxMx4, class_NxM = (np.asarray(target[k])[scored] for k in ('box', 'box_class'))
    truth = to_coco(box_NxMx4, class_NxM, classes)
    found = to_results({k: np.asarray(v)[scored] for k, v in predictions.items()})
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to the terminal
        data = COCO()
        data.dataset = truth
        data.createIndex()
        empty = [{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 0, 0], 'score': 0.0}]
        run = COCOeval(data, data.loadRes(found or empty), 'bbox')
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ['all']
        run.evaluate()
    return run


def _evaluate(run: COCOeval, num_images: int, num_classes: int) -> list[dict]:
    """The scores of each class."""
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
    precision_TxRxK = run.eval['precision'][:, :, :, 0, -1]
    each = np.array(run.evalImgs, dtype=object).reshape(num_classes, num_images)
    return [
        {
            'ap50': float(precision_TxRxK[0, :, k].mean()),
            'ap75': float(precision_TxRxK[5, :, k].mean()),
            'map': float(precision_TxRxK[:, :, k].mean()),
            **_froc([x for x in each[k] if x is not None], num_images),
        }
        for k in range(num_classes)
    ]


def _froc(images, num_images) -> dict:
    """Sensitivity where the false positives an image first exceed each of `FALSE_POSITIVES`."""
    total = sum(len(x['gtIds']) for x in images)
    if not total:
        return {'froc': 0.0, 'sensitivity': [0.0] * len(FALSE_POSITIVES)}
    score = np.concatenate([x['dtScores'] for x in images])
    hit = np.concatenate([x['dtMatches'][0] > 0 for x in images])  # IoU 0.5
    hit = hit[np.argsort(-score, kind='stable')]
    false_positives, found = np.cumsum(~hit) / num_images, np.cumsum(hit) / total
    at = [
        float(found[false_positives <= limit].max(initial=0.0)) for limit in FALSE_POSITIVES
    ]
    return {'froc': float(np.mean(at)), 'sensitivity': at}
