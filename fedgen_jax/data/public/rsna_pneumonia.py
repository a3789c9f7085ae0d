"""RSNA pneumonia: chest radiographs with boxes of opacities, and three classes.

    SOURCE/stage_2_train_images/PATIENTID.dcm
    SOURCE/stage_2_train_labels.csv         patientId,x,y,width,height,Target: a row a box
    SOURCE/stage_2_detailed_class_info.csv  patientId,class

The images of stage_2_test_images have no public labels here and are left out.
"""

import pathlib

from fedgen_jax.data.folder import dicom
from fedgen_jax.data.folder.reading import one_kind_of_error
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import layout
from fedgen_jax.data.public.layout import PublicSet

CLASSES = ('Normal', 'No Lung Opacity / Not Normal', 'Lung Opacity')
BOX_CLASSES = ('opacity',)
CENTER = 'nih'


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Labels, and boxes in annotations.json: 1 in Target is a box, and the class Lung Opacity."""
    boxes_file = layout.found(source, 'stage_2_train_labels.csv')
    classes_file = layout.found(source, 'stage_2_detailed_class_info.csv')
    images = layout.found(source, 'stage_2_train_images')
    label_of = read_labels(classes_file)
    boxes_of, row_of = read_boxes(boxes_file)
    for case, row in row_of.items():
        if case not in label_of:
            layout.fault(boxes_file, row, 'patientId', f'{case!r} is not in {classes_file.name}: '
                         'take both files as published')
        if bool(boxes_of[case]) != (label_of[case] == 'Lung Opacity'):
            layout.fault(boxes_file, row, 'Target', f'{len(boxes_of[case])} boxes, but '
                         f'{classes_file.name} says {label_of[case]!r}: take both as published')
    layout.check_files(
        boxes_file, ((row, 'patientId', images / f'{case}.dcm') for case, row in row_of.items())
    )
    rows, sizes, boxes = [], [], []
    for i, case in enumerate(row_of):
        path = layout.place(images / f'{case}.dcm', root, f'images/{case}.dcm')
        try:
            with one_kind_of_error():
                height, width = dicom.header(str(root / path)).size
        except ValueError as error:
            raise DataError(f'{images / case}.dcm: {error}') from error
        rows.append({
            'image': path, 'center': CENTER, 'patient': case, 'label': label_of[case],
        })
        sizes.append((path, width, height))
        boxes += [(i, 0, box) for box in boxes_of[case]]
    layout.write_boxes(root, sizes, boxes, BOX_CLASSES)
    layout.write_classes(root, CLASSES)
    layout.write_manifest(root, rows)
    return ()


def read_labels(file: pathlib.Path) -> dict[str, str]:
    """{patient: class}; a patient of several boxes comes several times."""
    label_of: dict[str, str] = {}
    for number, cells in layout.table(file, ('patientId', 'class')):
        layout.one_of(file, number, 'class', cells['class'], CLASSES)
        first = label_of.setdefault(cells['patientId'], cells['class'])
        if first != cells['class']:
            layout.fault(file, number, 'class', f'{cells["class"]!r}, and {first!r} above for this '
                         'patient: take the file as published')
    return label_of


def read_boxes(file: pathlib.Path) -> tuple[dict[str, list[list[float]]], dict[str, int]]:
    """{patient: its boxes (x, y, w, h)}, and {patient: its first row}."""
    boxes_of: dict[str, list[list[float]]] = {}
    row_of: dict[str, int] = {}
    sides = ('x', 'y', 'width', 'height')
    for number, cells in layout.table(file, ('patientId', *sides, 'Target')):
        case = cells['patientId']
        row_of.setdefault(case, number)
        boxes = boxes_of.setdefault(case, [])
        if layout.whole(file, number, 'Target', cells['Target'], 1):
            boxes.append([number_in(file, number, side, cells[side]) for side in sides])
    return boxes_of, row_of


def number_in(file: pathlib.Path, row: int, field: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        layout.fault(file, row, field, f'{value!r} is no number: take the file as published')


SET = PublicSet(
    name='rsna_pneumonia',
    task='classification, detection',
    images='26,684',
    centers=(CENTER,),
    size='about 4 GB',
    checksum='',
    licence='the terms of the challenge at Kaggle',
    citation='Shih et al., 2019, Radiology: Artificial Intelligence 1:e180041; the images: Wang et '
             'al., 2017, ChestX-ray8, CVPR',
    url='https://www.kaggle.com/c/rsna-pneumonia-detection-challenge',
    access='an account at Kaggle, and its terms',
    source='stage_2_train_images/, stage_2_train_labels.csv and stage_2_detailed_class_info.csv',
    prepare=prepare,
    caveats='One center: cut it (`data.cut`). Each image counts as a patient, as the set names '
            'them; several may be of one person of NIH. Never test on nih_chestxray14 what was '
            'trained on this: the images are the same. Needs the extra `medical`.',
)
