"""Published sets with several centers, made up in their layouts, become folders that are read."""

import gzip

import numpy as np
import pytest
from PIL import Image
from published import RNG, edit, laid, picture, read, refused, write_csv

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import catalog

CODES = ('MEL', 'NV', 'BCC', 'AK', 'BKL', 'DF', 'VASC', 'SCC')

# -- Fed-ISIC2019


@pytest.fixture
def isic(tmp_path):
    source = tmp_path / 'isic'
    header = ['image', *CODES, 'UNK', 'target', 'center', 'fold', 'fold2']
    rows = []
    for i in range(24):
        center, target = i % 6, i % 8
        # fold is the split of the pooled set, and differs.
        fold2 = f'{"test" if i >= 18 else "train"}_{center}'
        one_hot = [float(k == target) for k in range(9)]
        rows.append([f'ISIC_{i:07d}', *one_hot, target, center, 'test', fold2])
        picture(source / f'ISIC_2019_Training_Input/ISIC_{i:07d}.jpg')
    write_csv(source / 'train_test_split', header, *rows)
    return source


def test_fed_isic2019(isic, tmp_path):
    root, notes = laid('fed_isic2019', isic, tmp_path)
    centers, source = read(root, tmp_path)
    assert source.classes == CODES
    assert 'color constancy' in notes[0] and len(centers) == 6
    bcn = centers['BCN']
    assert [p.rpartition('/')[2] for p in bcn.path] == [
        f'ISIC_{i:07d}.jpg' for i in (0, 6, 12, 18)
    ]
    assert bcn.examples.target['label'].tolist() == [0, 6, 4, 2]
    assert bcn.split[3] == 2 and 2 not in bcn.split[:3]  # fold2
    made = root / 'images/BCN/ISIC_0000000.jpg'
    assert made.stat().st_ino == (
        isic / 'ISIC_2019_Training_Input/ISIC_0000000.jpg').stat().st_ino  # not copied


@pytest.mark.parametrize(('old', 'new', 'words'), [
    ('train_1\n', 'train_2\n', ['row 3', 'fold2', 'the center is 1']),
    ('train_1\n', 'dev_1\n', ['row 3', 'fold2', "'dev'"]),
    (',1,1,test,', ',2,1,test,', ['row 3', 'field target', 'BCC']),
    (',1,1,test,', ',8,1,test,', ['row 3', 'field target', '0 to 7']),
    (',fold2', ',fold3', ['field fold2', 'the column is missing']),
    ('ISIC_0000003', 'ISIC_9000003', ['row 5', 'ISIC_9000003.jpg is missing']),
])
def test_bad_fed_isic2019(isic, tmp_path, old, new, words):
    edit(isic / 'train_test_split', old, new)
    refused('fed_isic2019', isic, tmp_path, 'train_test_split', *words)


# -- Camelyon17-WILDS


@pytest.fixture
def camelyon(tmp_path):
    source = tmp_path / 'camelyon17_v1.0'
    rows = []
    for i in range(40):
        center, x = i % 5, 100 + i
        case, node = f'{20 * center + i // 20:03d}', i % 2
        of_node = f'patient_{case}_node_{node}'
        picture(source / f'patches/{of_node}/patch_{of_node}_x_{x}_y_7.png')
        rows.append([i, case, node, x, 7, i // 5 % 2, 10 * center, center, int(i >= 30)])
    header = ['', 'patient', 'node', 'x_coord', 'y_coord', 'tumor', 'slide', 'center', 'split']
    write_csv(source / 'metadata.csv', header, *rows)
    return source


def test_camelyon17(camelyon, tmp_path):
    root, _ = laid('camelyon17_wilds', camelyon, tmp_path)
    unseen = ('hospital-1', 'hospital-2')
    centers, source = read(root, tmp_path, unseen=unseen)
    assert source.classes == ('normal', 'tumor') and set(centers) == set(
        catalog.named('camelyon17_wilds').centers)
    splits = {name: set(center.split.tolist()) for name, center in centers.items()}
    assert splits == {'hospital-0': {0, 1}, 'hospital-1': {1}, 'hospital-2': {2},
                      'hospital-3': {0, 1}, 'hospital-4': {0, 1}}
    assert centers['hospital-0'].examples.target['label'].tolist() == [0, 1] * 4
    with pytest.raises(DataError, match='hospital-1'):
        read(root, tmp_path)  # trains on what the official split keeps out
    by_patient, _ = read(root / 'by_patient.csv', tmp_path)
    assert set(by_patient['hospital-1'].unit) == {'020', '021'}
    assert 0 in by_patient['hospital-1'].split


def test_bad_camelyon17(camelyon, tmp_path):
    (camelyon / 'patches/patient_000_node_0/patch_patient_000_node_0_x_100_y_7.png').unlink()
    (camelyon / 'patches/patient_020_node_1/patch_patient_020_node_1_x_101_y_7.png').unlink()
    refused('camelyon17_wilds', camelyon, tmp_path, 'metadata.csv: row 2', 'x_100_y_7.png is missi')
    edit(camelyon / 'metadata.csv', '39,081,1,139,7,1,40,4,1', '39,081,1,139,7,1,40,5,1')
    refused('camelyon17_wilds', camelyon, tmp_path, 'row 41, field center', '0 to 4')
    (camelyon / 'metadata.csv').unlink()
    refused('camelyon17_wilds', camelyon, tmp_path, 'has no metadata.csv')


# -- fundus


@pytest.fixture
def fundus(tmp_path):
    source = tmp_path / 'fundus'
    mask = np.full((10, 10), 255, np.uint8)
    mask[2:8, 2:8] = 128
    mask[4:6, 4:6] = 0
    for domain in range(1, 5):
        for split, n in (('train', 3), ('test', 2)):
            rois = source / f'Domain{domain}/{split}/ROIs'
            (rois / 'mask').mkdir(parents=True)
            for i in range(n):
                picture(rois / f'image/g{domain}_{i}.png', (10, 10))
                Image.fromarray(mask).save(rois / f'mask/g{domain}_{i}.png')
    return source


def test_fundus(fundus, tmp_path):
    root, _ = laid('fundus_dofe', fundus, tmp_path)
    centers, source = read(root, tmp_path, 10)
    assert source.classes == ('background', 'disc rim', 'cup')
    assert set(centers) == {'Drishti-GS', 'RIM-ONE-r3', 'REFUGE-train', 'REFUGE-val'}
    rim = centers['RIM-ONE-r3']
    assert sum(rim.split == 2) == 2 and len(rim.split) == 5
    mask = rim.examples.target['mask'][0]
    assert np.bincount(mask.ravel()).tolist() == [64, 32, 4] and mask[4, 4] == 2


def test_bad_fundus(fundus, tmp_path):
    rois = fundus / 'Domain2/test/ROIs'
    Image.fromarray(np.ones((10, 10), np.uint8)).save(rois / 'mask/g2_0.png')
    refused('fundus_dofe', fundus, tmp_path, 'g2_0.png', 'no white background')
    Image.fromarray(np.full((9, 10), 255, np.uint8)).save(rois / 'mask/g2_0.png')
    refused('fundus_dofe', fundus, tmp_path, 'g2_0.png', '10 x 10 pixels, its mask 10 x 9')
    (rois / 'mask/g2_0.png').unlink()
    refused('fundus_dofe', fundus, tmp_path, 'has no g2_0.png')
    (fundus / 'Domain1').rename(fundus / 'Domain5')
    refused('fundus_dofe', fundus, tmp_path, 'has no Domain1/train/ROIs')


# -- prostate


@pytest.fixture
def prostate(tmp_path):
    nib = pytest.importorskip('nibabel', reason='the extra `medical`')
    source = tmp_path / 'prostate'
    for site in ('BIDMC', 'HK', 'I2CVB', 'RUNMC', 'ISBI_1.5', 'UCL'):
        (source / site).mkdir(parents=True)
        for case in range(3):
            zone = np.zeros((8, 8, 3), np.float32)
            zone[2:4, 2:6, 1], zone[4:6, 2:6, 1] = 1, 2
            marked = nib.Nifti1Image(zone, np.diag([9.0, 9, 9, 1]))  # of another grid
            volume = nib.Nifti1Image(
                RNG.normal(size=(8, 8, 3)).astype(np.float32), np.diag([-1.0, -1, 3, 1]))
            end = 'Segmentation' if site == 'HK' else 'segmentation'
            nib.save(volume, source / site / f'Case{case:02d}.nii.gz')
            nib.save(marked, source / site / f'Case{case:02d}_{end}.nii.gz')
    return source


def test_prostate(prostate, tmp_path):
    root, _ = laid('prostate_saml', prostate, tmp_path)
    centers, source = read(root, tmp_path, 8)
    assert source.classes == ('background', 'prostate')
    assert set(centers) == {'BIDMC', 'HK', 'I2CVB', 'ISBI', 'ISBI_1.5', 'UCL'}  # RUNMC is ISBI
    hk = centers['HK']
    assert len(hk.path) == 9 and set(hk.unit) == {'Case00', 'Case01', 'Case02'}
    assert [int((m == 1).sum()) for m in hk.examples.target['mask']] == [0, 16, 0] * 3


def test_bad_prostate(prostate, tmp_path):
    import nibabel as nib

    file = prostate / 'UCL/Case01_segmentation.nii.gz'
    nib.save(nib.Nifti1Image(np.full((8, 8, 3), 3, np.uint8), np.eye(4)), file)
    refused('prostate_saml', prostate, tmp_path, 'Case01_seg', 'other than 0, 1 and 2')
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.uint8), np.eye(4)), file)
    refused('prostate_saml', prostate, tmp_path, 'Case01_seg', '[8, 8, 4]')
    file.write_bytes(gzip.compress(bytes(400))[:-30] + bytes(30))
    refused('prostate_saml', prostate, tmp_path, 'Case01_seg', 'cannot be read')
    file.write_bytes(gzip.compress(b'')[:10] + b'\xff' * 64)
    refused('prostate_saml', prostate, tmp_path, 'Case01_seg', 'cannot be read')
    file.write_bytes(b'no nifti')
    refused('prostate_saml', prostate, tmp_path, 'Case01_seg', 'cannot be read')
    file.unlink()
    refused('prostate_saml', prostate, tmp_path, 'Case01_segmentation.nii.gz or')
