"""Published chest radiographs, made up in their layouts, become folders that are read."""

import numpy as np
import pytest
from medical_files import write_dicom
from published import RNG, edit, laid, picture, read, refused, write_csv

from fedgen_jax.data.public import padchest


@pytest.fixture
def rsna(tmp_path):
    pytest.importorskip('pydicom', reason='the extra `medical`')
    source = tmp_path / 'rsna'
    (source / 'stage_2_train_images').mkdir(parents=True)
    classes = ('Normal', 'No Lung Opacity / Not Normal', 'Lung Opacity')
    boxes, infos = [], []
    for i in range(12):
        case, label = f'0004cfab-{i:02d}', classes[i % 3]
        write_dicom(source / f'stage_2_train_images/{case}.dcm', RNG.integers(0, 4096, (20, 16)),
                    PatientID=case)
        if i % 3 == 2:  # a row a box, in both files
            boxes += [[case, '2.0', '3.0', '8.0', '10.0', 1], [case, 1, 1, 2, 2, 1]]
            infos += [[case, label]] * 2
        else:
            boxes.append([case, '', '', '', '', 0])
            infos.append([case, label])
    write_csv(source / 'stage_2_train_labels.csv',
              ['patientId', 'x', 'y', 'width', 'height', 'Target'], *boxes)
    write_csv(source / 'stage_2_detailed_class_info.csv', ['patientId', 'class'], *infos)
    return source


def test_rsna(rsna, tmp_path):
    root, _ = laid('rsna_pneumonia', rsna, tmp_path)
    centers, source = read(root, tmp_path, 20)
    assert source.classes == ('Normal', 'No Lung Opacity / Not Normal', 'Lung Opacity')
    target = centers['nih'].examples.target
    assert target['label'].tolist() == [0, 1, 2] * 4
    centers, source = read(root, tmp_path, 20, target='box')
    target = centers['nih'].examples.target
    assert source.classes == ('opacity',)
    assert (target['box_class'] >= 0).sum(1).tolist() == [0, 0, 2] * 4
    # x, y, w, h of an image of 16 x 20 pixels, in its square of 20: 2 to the right.
    assert target['box'][2][0].tolist() == [3, 4, 13, 12]


@pytest.mark.parametrize(('file', 'old', 'new', 'words'), [
    ('stage_2_detailed_class_info.csv', '02,Lung Opacity', '02,Normal', ['row 5', 'field class']),
    ('stage_2_detailed_class_info.csv', '01,No Lung Opacity / Not Normal', '01,Ill',
     ['row 3', "'Ill'"]),
    ('stage_2_detailed_class_info.csv', '0004cfab-01', '0004cfab-99', ['row 3', "01' is not in"]),
    ('stage_2_train_labels.csv', '10.0,1', '10.0,2', ['row 4', 'field Target']),
    ('stage_2_train_labels.csv', '2.0,3.0', 'two,3.0', ['row 4', 'field x']),
    ('stage_2_train_labels.csv', '01,,,,,0', '01,1,1,1,1,1', ['row 3', '1 boxes']),
])
def test_bad_rsna(rsna, tmp_path, file, old, new, words):
    edit(rsna / file, old, new)
    refused('rsna_pneumonia', rsna, tmp_path, *words)


NIH_HEADER = (
    'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
    'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],'
)


@pytest.fixture
def nih(tmp_path):
    source = tmp_path / 'nih'
    labels = ('Cardiomegaly', 'Cardiomegaly|Emphysema', 'No Finding', 'Hernia')
    lines, names = [NIH_HEADER], []
    for i in range(16):
        name = f'{i // 2 + 1:08d}_{i % 2:03d}.png'
        names.append(name)
        lines.append(f'{name},{labels[i % 4]},0,{i // 2 + 1},58,M,{"PA" if i % 2 else "AP"},'
                     '2682,2749,0.143,0.143,')
        folder = 'images' if i < 8 else 'images_002/images'
        picture(source / folder / name)
    (source / 'Data_Entry_2017.csv').write_text('\n'.join(lines) + '\n')
    (source / 'train_val_list.txt').write_text('\n'.join(names[:12]) + '\n')
    (source / 'test_list.txt').write_text('\n'.join(names[12:]))
    return source


def test_nih(nih, tmp_path):
    root, _ = laid('nih_chestxray14', nih, tmp_path)
    centers, source = read(root, tmp_path, target='labels')
    assert len(source.classes) == 14 and 'No Finding' not in source.classes
    of = centers['nih']
    known = of.examples.target['labels'][:4]
    named = [{source.classes[k] for k in np.flatnonzero(row)} for row in known]
    assert named == [{'Cardiomegaly'}, {'Cardiomegaly', 'Emphysema'}, set(), {'Hernia'}]
    assert (of.split == 2).sum() == 4 and len(set(of.unit)) == 8
    views, _ = read(root, tmp_path, target='labels', columns='center:view')
    assert {name: len(center.path) for name, center in views.items()} == {'AP': 8, 'PA': 8}


def test_bad_nih(nih, tmp_path):
    (nih / 'images_002/images/00000008_001.png').unlink()
    refused('nih_chestxray14', nih, tmp_path, 'row 17', '00000008_001.png is missing')
    table = nih / 'Data_Entry_2017.csv'
    lines = table.read_text().splitlines(keepends=True)
    table.write_text(''.join([*lines[:16], lines[3]]))
    refused('nih_chestxray14', nih, tmp_path, 'row 17', '00000002_000.png stands in row 4 too')
    table.write_text(''.join(lines))
    edit(nih / 'Data_Entry_2017.csv', 'Hernia', 'Hernias')
    refused('nih_chestxray14', nih, tmp_path, 'row 5', "'Hernias'")
    edit(nih / 'train_val_list.txt', '00000001_000.png\n', '')
    refused('nih_chestxray14', nih, tmp_path, 'row 2', 'in neither')
    edit(nih / 'train_val_list.txt', '00000002_000.png', '00000008_000.png')
    refused('nih_chestxray14', nih, tmp_path, '00000008_000.png is in train_val_list.txt too')
    (nih / 'test_list.txt').write_bytes(b'\xff\xfe')
    refused('nih_chestxray14', nih, tmp_path, 'test_list.txt: is no text')


@pytest.fixture
def pad(tmp_path):
    source = tmp_path / 'padchest'
    labels = (
        "['pleural effusion', 'cardiomegaly', '']", "['normal']", "['exclude', 'nodule']", '',
        "[' cardiomegaly', 'cardiomegaly']", "['normal', 'nodule']",
    )
    header = ['', 'ImageID', 'ImageDir', 'StudyID', 'PatientID', 'Projection', 'MethodLabel',
              'Report', 'Labels']
    rows = []
    for i, cell in enumerate(labels * 2):
        name = f'{i}.png'
        view = 'L' if i == 11 else ('PA', 'AP', 'AP_horizontal')[i % 3]
        rows.append([i, name, i % 2, f's{i}', f'p{i}', view, 'Physician', 'line\nline, 2', cell])
        if view != 'L':
            picture(source / str(i % 2) / name)
    rows.append([99, padchest.DAMAGED[0], 0, 's', 'p', 'PA', 'RNN_model', '', "['normal']"])
    write_csv(source / padchest.TABLE, header, *rows)
    return source


def test_padchest(pad, tmp_path):
    root, notes = laid('padchest', pad, tmp_path)
    assert '1 images that are not frontal, 1 that' in notes[0] and notes[1].startswith('4 images')
    centers, source = read(root, tmp_path, target='labels')
    assert source.classes == ('cardiomegaly', 'nodule', 'pleural effusion')
    labels = centers['san-juan'].examples.target['labels']
    assert len(labels) == 11
    assert labels[:6].tolist() == [
        [1, 0, 1], [0, 0, 0], [-1, -1, -1], [-1, -1, -1], [1, 0, 0], [0, 1, 0],
    ]


def test_bad_padchest(pad, tmp_path):
    (pad / '1/3.png').unlink()
    refused('padchest', pad, tmp_path, '1/3.png is missing')
    edit(pad / padchest.TABLE, "['normal']", 'normal')
    refused('padchest', pad, tmp_path, 'field Labels', "'normal' is no list")
    edit(pad / padchest.TABLE, ',normal\n', ",'normal'\n")  # text, whose letters are no findings
    refused('padchest', pad, tmp_path, 'field Labels', 'is no list')
