"""Dicom and nifti slices: their gray values, their orientation, and what is refused."""

import numpy as np
import pytest

from fedgen_jax.data import decode
from fedgen_jax.data.manifest import DataError
from fedgen_jax.data.source import load

pydicom = pytest.importorskip('pydicom')
nibabel = pytest.importorskip('nibabel')


def write_dicom(path, stored, **fields):
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, 'MONOCHROME2'
    dataset.PixelData = stored.astype(np.uint16).tobytes()
    for key, value in fields.items():
        setattr(dataset, key, value)
    if 'FloatPixelData' in dataset:
        del dataset.PixelData
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_rescale_and_window(tmp_path):
    hounsfield = np.array([[-1024, -160, 40], [240, 500, 3071]])
    file = tmp_path / 'x.dcm'
    scale = {'RescaleSlope': 1, 'RescaleIntercept': -1024}
    write_dicom(file, hounsfield + 1024, WindowCenter=40, WindowWidth=400, **scale)
    gray = np.asarray(decode.read_image(str(file)))[..., 0]
    np.testing.assert_allclose(gray, [[0, 0, 128], [255, 255, 255]], atol=1)
    write_dicom(file, hounsfield + 1024, **scale)  # no window: the range that 12 bits can hold
    gray = np.asarray(decode.read_image(str(file)))[..., 0]
    np.testing.assert_allclose(gray, (hounsfield + 1024) / 4095 * 255, atol=0.51)
    write_dicom(file, hounsfield + 1024, PhotometricInterpretation='MONOCHROME1', **scale)
    inverse = np.asarray(decode.read_image(str(file)))[..., 0]
    np.testing.assert_allclose(inverse.astype(int) + gray, 255, atol=1)


def test_nifti_slices_and_their_masks(small_folder, manifest_writer):
    volume = np.zeros((8, 8, 3), np.float32)
    volume[6, 7, 1], volume[:, :, 2] = 1000, 1000  # to the right and in front, in slice 1
    mask = (volume > 500).astype(np.uint8)
    mirror = np.diag([-1.0, 1, 1, 1])  # the same head, stored from right to left
    for name, x, affine in (('v', volume, np.eye(4)), ('m', mask, np.eye(4)),
                            ('w', volume[::-1], mirror)):
        nibabel.save(nibabel.Nifti1Image(x, affine), small_folder / f'{name}.nii.gz')
    (small_folder / 'annotations.json').unlink()
    rows = [{'image': f'v.nii.gz#{k}', 'center': 'c', 'mask': f'm.nii.gz#{k}'} for k in range(3)]
    rows.append({'image': 'w.nii.gz#1', 'center': 'c'})
    manifest_writer(small_folder, rows)
    source = load(small_folder, 8, 0, small_folder / 'cache', require_train=False)
    examples = source.centers[0].examples
    assert examples.image[0].max() == 0 and examples.image[2].min() == 255
    assert [tuple(i) for i in np.argwhere(examples.image[1, ..., 0])] == [(0, 6)]
    np.testing.assert_array_equal(examples.target['mask'][1], examples.image[1, ..., 0] > 0)
    np.testing.assert_array_equal(examples.image[3], examples.image[1])


VOLUME = np.zeros((12, 10, 3), np.float32)
BAD_VOLUMES = {
    'nan': ('v.nii.gz#1', VOLUME + np.nan, 'NaN'),
    'no_slice': ('v.nii.gz', VOLUME, 'name one'),
    'far_slice': ('v.nii.gz#3', VOLUME, 'slices 0 to 2'),
    'four_dimensions': ('v.nii.gz#0', VOLUME[..., None] + np.zeros(2, np.float32), 'volume of 3'),
}


@pytest.mark.parametrize('case', BAD_VOLUMES)
def test_bad_nifti(small_folder, manifest_writer, case):
    path, volume, hint = BAD_VOLUMES[case]
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), small_folder / 'v.nii.gz')
    check_refused(small_folder, manifest_writer, path, hint)


NAN_PIXELS = np.full(6, np.nan, np.float32).tobytes()
BAD_FIELDS = {
    'frames': ({'NumberOfFrames': 2}, 'one slice a file'),
    'photometric': ({'PhotometricInterpretation': 'PALETTE COLOR'}, 'gray or RGB'),
    'short': ({'PixelData': bytes(6)}, 'replace the file'),
    'no_size': ({'Rows': None}, 'replace the file'),
    'nan': ({'BitsAllocated': 32, 'FloatPixelData': NAN_PIXELS}, 'NaN'),
}


@pytest.mark.parametrize('case', BAD_FIELDS)
def test_bad_dicom(small_folder, manifest_writer, case):
    fields, hint = BAD_FIELDS[case]
    write_dicom(small_folder / 'a.dcm', np.zeros((2, 3)), **fields)
    check_refused(small_folder, manifest_writer, 'a.dcm', hint)


def test_text_named_dicom(small_folder, manifest_writer):
    (small_folder / 'a.dcm').write_text('hello')
    check_refused(small_folder, manifest_writer, 'a.dcm', 'replace the file')


def check_refused(root, manifest_writer, path, hint):
    (root / 'annotations.json').unlink()
    rows = [{'image': 'images/02.png', 'center': 'c'}, {'image': path, 'center': 'c'}]
    manifest_writer(root, rows)
    with pytest.raises(DataError) as error:
        load(root, 8, 0, root / 'cache', require_train=False)
    message = str(error.value)
    assert message.startswith(f'{root / "manifest.csv"}: row 3, field image: {path!r}')
    assert hint in message and len(message.splitlines()) == 1
