"""The blood sets of RESULTS, made up in the layouts of their sources, become folders."""

import csv

import numpy as np
import pytest
from PIL import Image
from published import edit, laid, picture, read, refused, write_csv
from scipy import io as matlab

from fedgen_jax.data.public import catalog, wbc_seg
from fedgen_jax.data.public.blood import LABELS


@pytest.fixture
def blood(tmp_path):
    """In the order of centers.csv the classes are not sorted."""
    source = tmp_path / 'blood'
    txl = source / 'TXL-PBC'
    rows = []
    for i in range(24):
        center = ('pbc', 'raabin-wbc', 'bccd', 'bcdd')[i % 4]
        split = ('train', 'val', 'test')[i // 8]
        label = ('monocyte', 'basophil', 'neutrophil')[i // 4 % 3]
        picture(txl / f'images/{split}/u{i:02d}.jpg', (64, 48), 10 * i)
        file = txl / f'labels/{split}/u{i:02d}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.5\n' if i % 2 else '')
        rows.append([f'u{i:02d}.jpg', center, label])
    write_csv(txl / 'centers.csv', ['image', 'center', 'label'], *reversed(rows))
    (txl / 'data.yaml').write_text("nc: 3\nnames: ['WBC','RBC','Platelets']")
    for k, label in enumerate(('Basophil', 'Eosinophil', 'Lymphocyte', 'Monocyte', 'Neutrophil')):
        for i in range(2):
            picture(source / f'BCCD_cropped/{label}/BloodImage_{9 - i:05d}_1.jpg', (20, 18), 20 * k)
    for dataset, header in ((1, 'class label'), (2, 'class')):
        folder = source / 'segmentation_WBC'
        numbers = [[1, 2], [2, 1], [3, 1], [4, 5], [5, 4], [6, 3]]
        write_csv(folder / f'Class Labels of Dataset {dataset}.csv', ['image ID', header], *numbers)
        for number, _ in numbers:
            picture(folder / f'Dataset {dataset}/{number:03d}.bmp', (20, 20))
            Image.fromarray(np.pad(np.full((8, 8), 255, np.uint8), 6, constant_values=128)).save(
                folder / f'Dataset {dataset}/{number:03d}.png')
    return source


def test_wbc_cls(blood, tmp_path):
    root, _ = laid('wbc_cls', blood, tmp_path)
    centers, source = read(root, tmp_path, 96)
    assert set(centers) == set(catalog.named('wbc_cls').centers)
    with open(root / 'manifest.csv') as file:
        rows = [row for row in csv.DictReader(file) if row['center'] == 'pbc-barcelona']
    # By class, and within it in the order of centers.csv, which is from the last to the first.
    assert [row['label'] for row in rows] == ['basophil'] * 2 + ['monocyte'] * 2 + [
        'neutrophil'] * 2
    assert rows[0]['image'] == 'images/pbc-barcelona/0001.png'
    middle = [np.asarray(Image.open(root / row['image']))[48, 48, 0] for row in rows]
    np.testing.assert_allclose(middle, [160, 40, 120, 0, 200, 80], atol=3)
    jtsc = centers['jtsc-jiangxi']
    assert [source.classes[k] for k in jtsc.examples.target['label']] == [
        'lymphocyte', 'neutrophil', 'neutrophil', 'basophil', 'eosinophil', 'monocyte']


@pytest.mark.real
def test_labels_and_numbers_are_those_of_results(data_root):
    """The classes by number of the published csv, which begins so, in the real folder."""
    with open(data_root / 'wbc_cls/manifest.csv') as file:
        rows = list(csv.DictReader(file))
    published = {'jtsc-jiangxi': '211111211111', 'cellavision': '221111422233'}
    for center, numbers in published.items():
        own = [row for row in rows if row['center'] == center]
        assert [row['image'][-8:-4] for row in own[:3]] == ['0001', '0002', '0003']
        assert [row['label'] for row in own[:12]] == [LABELS[int(k) - 1] for k in numbers]
    bccd = [row['label'] for row in rows if row['center'] == 'bccd']
    assert list(dict.fromkeys(bccd)) == list(LABELS)


def test_bad_wbc_cls(blood, tmp_path):
    file = blood / 'TXL-PBC/centers.csv'
    edit(file, 'u21.jpg,raabin-wbc,neutrophil', 'u21.jpg,raabin-wbc,neu')
    refused('wbc_cls', blood, tmp_path, 'centers.csv: row 4', "'neu'")
    edit(file, 'u23.jpg', 'u22.jpg')
    refused('wbc_cls', blood, tmp_path, 'row 3, field image', 'u22.jpg comes twice')
    edit(file, 'u22.jpg', 'u99.jpg')
    refused('wbc_cls', blood, tmp_path, 'row 2, field image', 'u99.jpg is not below')
    edit(file, 'u99.jpg,bcdd,neutrophil\n', '')
    edit(file, 'raabin-wbc,neu\n', 'raabin-wbc,neutrophil\n')
    refused('wbc_cls', blood, tmp_path, 'lacks 1 images, the first u23.jpg')


def test_wbc_seg(blood, tmp_path):
    gray = np.zeros((480, 640), np.uint8)
    gray[10:60, 600:640], gray[20:40, 610:630] = 128, 255
    images = np.empty((2, 4), object)
    for i in range(2):
        images[i] = [f'BloodImage_{i}.jpg', np.full((480, 640, 3), 50 * i, np.uint8), 'gt', gray]
    matlab.savemat(blood / 'BCCD.mat', {'img_db_wbc': images})
    root, _ = laid('wbc_seg', blood, tmp_path)
    centers, source = read(root, tmp_path, 128)
    assert {name: len(c.path) for name, c in centers.items()} == {
        'bccd': 2, 'cellavision': 6, 'jtsc': 6}
    assert source.classes == wbc_seg.CLASSES
    mask = centers['bccd'].examples.target['mask'][0]
    # The window is moved into the image: the cell is at its upper right.
    np.testing.assert_allclose(
        [(mask == k).sum() for k in (1, 2)], np.array([1600, 400]) * (128 / 300) ** 2, rtol=0.1)
    assert mask[10, 120] == 2 and (mask[:, 64:] == 0).sum() + (mask > 0).sum() == 128 * 64
    gray[:] = 1
    matlab.savemat(blood / 'BCCD.mat', {'img_db_wbc': images})
    refused('wbc_seg', blood, tmp_path, 'BloodImage_0.jpg', 'no white nucleus')


def test_window_is_around_the_cell():
    mask = np.zeros((480, 640), np.uint8)
    mask[200:220, 300:340] = 1
    rows, columns = wbc_seg.window(mask)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (60, 360, 170, 470)


def test_blood_det(blood, tmp_path):
    root, _ = laid('blood_det', blood, tmp_path)
    centers, source = read(root, tmp_path, 256)
    assert source.classes == ('wbc', 'rbc', 'platelet')
    assert set(centers) == {'pbc', 'raabin-wbc', 'bccd', 'bcdd'}
    of = centers['raabin-wbc']  # every image has two boxes
    assert of.split.tolist() == [2, 2, 1, 1, 0, 0]  # the order of centers.csv
    assert of.examples.target['box_class'][0].tolist() == [0, 1]
    # 64 x 48 pixels in a square of 256: 4 times as large, and 32 pixels lower.
    np.testing.assert_allclose(of.examples.target['box'][0],
                               [[80, 96, 176, 160], [32, 0, 128, 128]], atol=1e-4)
    assert (centers['pbc'].examples.target['box_class'] < 0).all()
    edit(blood / 'TXL-PBC/labels/train/u01.txt', '0 0.5', '3 0.5')
    refused('blood_det', blood, tmp_path, 'u01.txt: row 1', "'3 0.5 0.5 0.25 0.5'")
    edit(blood / 'TXL-PBC/data.yaml', 'RBC', 'Red')
    refused('blood_det', blood, tmp_path, 'data.yaml: field names')
