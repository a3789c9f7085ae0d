"""Dicom and nifti slices in a folder: order, place, patients, and what is refused."""

import numpy as np
import pytest
from medical_files import place, write_dicom

from fedgen_jax.data.folder import volumes
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.source import load
from fedgen_jax.evaluate import halves

pydicom = pytest.importorskip('pydicom')
nibabel = pytest.importorskip('nibabel')


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
    # In front is up, and the patient's right on the left, as radiologists look.
    assert [tuple(i) for i in np.argwhere(examples.image[1, ..., 0])] == [(0, 1)]
    np.testing.assert_array_equal(examples.target['mask'][1], examples.image[1, ..., 0] > 0)
    np.testing.assert_array_equal(examples.image[3], examples.image[1])


VOLUME = np.zeros((12, 10, 3), np.float32)
BAD_VOLUMES = {
    'nan': ('v.nii.gz#1', VOLUME + np.nan, 'NaN'),
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


def test_a_whole_volume_enters_as_its_slices(small_folder, manifest_writer):
    rng = np.random.default_rng(0)
    stored = rng.uniform(size=(8, 3, 8)).astype(np.float32)  # depth is the second axis here
    turned = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    for name, x in (('v', stored), ('m', stored > 0.5), ('w', stored)):
        file = small_folder / f'{name}.nii.gz'
        nibabel.save(nibabel.Nifti1Image(x.astype(np.float32), turned), file)
    rows = [
        {'image': 'v.nii.gz', 'center': 'c', 'mask': 'm.nii.gz'},
        {'image': 'w.nii.gz', 'center': 'c', 'patient': 'p'},
        {'image': 'images/02.png', 'center': 'c'},
    ]
    center = load_masks(small_folder, manifest_writer, rows)
    assert center.path[:4] == ('v.nii.gz#0', 'v.nii.gz#1', 'v.nii.gz#2', 'w.nii.gz#0')
    assert center.unit == ('v.nii.gz',) * 3 + ('p',) * 3 + ('images/02.png',)
    target = center.examples.target
    assert target['volume'].tolist() == [0, 0, 0, 1, 1, 1, -1]
    wanted = np.rot90(stored[:, 1, :] > 0.5)[:, ::-1]
    np.testing.assert_array_equal(target['mask'][1] == 1, wanted)


def write_series(folder, positions, patient='', series='1.2.3', size=(4, 4)):
    """A slice a position, its gray value the position, written in no order."""
    folder.mkdir()
    for i, z in enumerate(positions):
        write_dicom(
            folder / f'{i}.dcm', np.full(size, z), PatientID=patient, SeriesInstanceUID=series,
            InstanceNumber=1, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, z],
        )


def test_a_dicom_series_enters_in_the_order_of_its_slices(small_folder, manifest_writer):
    write_series(small_folder / 'a', [2000, 0, 4000, 1000], patient='anna')
    write_series(small_folder / 'b', [0, 1000], series='1.2.4')
    rows = [{'image': f, 'center': 'c'} for f in ('a', 'b', 'images/02.png')]
    center = load_masks(small_folder, manifest_writer, rows)
    assert center.path[:4] == ('a/1.dcm', 'a/3.dcm', 'a/0.dcm', 'a/2.dcm')
    gray = center.examples.image[:4, 0, 0, 0].astype(int)
    assert list(gray) == sorted(gray) and len(set(gray)) == 4
    assert center.unit[:6] == ('anna',) * 4 + ('1.2.4',) * 2
    assert center.examples.target['volume'].tolist() == [0] * 4 + [1] * 2 + [-1]


def test_slices_of_a_patient_never_straddle_the_splits_nor_the_halves(
    small_folder, manifest_writer
):
    rows = []
    for i in range(10):
        write_series(small_folder / f's{i}', range(5), patient=f'p{i // 2}', series=f'1.2.{i}')
        rows.append({'image': f's{i}', 'center': 'c'})
    center = load_masks(small_folder, manifest_writer, rows)
    half = halves(center)
    assert 0 < half.sum() < len(half) == 50
    for p in range(5):
        of_patient = np.array([u == f'p{p}' for u in center.unit])
        assert of_patient.sum() == 10
        assert len(set(center.split[of_patient])) == len(set(half[of_patient])) == 1


BAD_SERIES = {
    'no_dicom': ('images', 'without .dcm'),
    'two_series': ('mixed', '2 dicom series'),
}


@pytest.mark.parametrize('case', BAD_SERIES)
def test_bad_series(small_folder, manifest_writer, case):
    path, hint = BAD_SERIES[case]
    write_series(small_folder / 'mixed', [0, 1], series='1.2.3')
    write_dicom(small_folder / 'mixed' / 'x.dcm', np.zeros((4, 4)), SeriesInstanceUID='1.2.9')
    check_refused(small_folder, manifest_writer, path, hint)


def test_a_mask_with_another_number_of_slices(small_folder, manifest_writer):
    for name, depth in (('v', 3), ('m', 2)):
        x = np.zeros((4, 4, depth), np.float32)
        nibabel.save(nibabel.Nifti1Image(x, np.eye(4)), small_folder / f'{name}.nii.gz')
    rows = [{'image': 'v.nii.gz', 'center': 'c', 'mask': 'm.nii.gz'}]
    with pytest.raises(DataError, match='row 2, field mask.*2 slices, its image 3'):
        load_masks(small_folder, manifest_writer, rows)


def test_a_nifti_mask_lies_on_its_dicom_series(small_folder, manifest_writer):
    rng = np.random.default_rng(0)
    head_XxYxZ = rng.uniform(size=(8, 8, 3)) > 0.5  # x to the right, y to the front, z up
    mask = nibabel.Nifti1Image(head_XxYxZ.astype(np.uint8), np.eye(4))
    nibabel.save(mask, small_folder / 'm.nii')
    (small_folder / 's').mkdir()
    for z in range(3):  # dicom counts x to the left and y to the back
        seen = head_XxYxZ[::-1, ::-1, z].T
        write_dicom(
            small_folder / 's' / f'{z}.dcm', np.where(seen, 4000, 0), SeriesInstanceUID='1',
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[-7, -7, z],
        )
    rows = [{'image': 's', 'center': 'c', 'mask': 'm.nii'}]
    examples = load_masks(small_folder, manifest_writer, rows).examples
    np.testing.assert_array_equal(examples.target['mask'] == 1, examples.image[..., 0] > 128)


@pytest.mark.parametrize(
    ('image', 'orientation'),
    [('s', [-1, 0, 0, 0, 1, 0]), ('s', [-1, 0, 0, 0, -1, 0]), ('s', None), ('v.nii', None)],
)
def test_a_mask_that_lies_otherwise_in_space_is_refused(
    small_folder, manifest_writer, image, orientation
):
    x = np.ones((8, 8, 3), np.uint8)
    nibabel.save(nibabel.Nifti1Image(x, np.eye(4)), small_folder / 'm.nii')
    nibabel.save(nibabel.Nifti1Image(x, np.diag([-1, -1, 1, 1])), small_folder / 'v.nii')
    (small_folder / 's').mkdir()
    for z in range(3):
        place = {'ImageOrientationPatient': orientation, 'ImagePositionPatient': [0, 0, z]}
        write_dicom(
            small_folder / 's' / f'{z}.dcm', np.zeros((8, 8)), SeriesInstanceUID='1',
            InstanceNumber=z, **(place if orientation else {}),
        )
    rows = [{'image': image, 'center': 'c', 'mask': 'm.nii'}]
    with pytest.raises(DataError, match='row 2, field mask.*otherwise in space'):
        load_masks(small_folder, manifest_writer, rows)


def write_pair(
    root, kind, shift=(0, 0, 0), spacing=(1, 1), place_known=True, of_image=(1, 1)
):
    """A series 's' of 3 slices, and a mask that lies `shift` mm (left, back, up) away."""
    for name in ('s', 't'):
        (root / name).mkdir()
    for z in range(3):
        of = place(z, spacing=of_image)
        write_dicom(root / f's/{z}.dcm', np.zeros((8, 8)), SeriesInstanceUID='1', **of)
        fields = place(z + shift[2], shift[0], spacing) if place_known else {'InstanceNumber': z}
        write_dicom(root / f't/{z}.dcm', np.zeros((8, 8)), SeriesInstanceUID='2', **fields)
    affine = np.diag([-spacing[1], -spacing[0], 1, 1.0])
    affine[:3, 3] = np.array(shift) * [-1, -1, 1]
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 3), np.uint8), affine), root / 'm.nii')
    own = np.diag([-of_image[1], -of_image[0], 1, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 3), np.uint8), own), root / 'v.nii')
    return {'nifti': ('s', 'm.nii'), 'series': ('s', 't'), 'slice': ('s/1.dcm', 't/1.dcm'),
            'volumes': ('v.nii', 'm.nii'), 'mixed': ('v.nii', 't')}[kind]


KINDS = ('nifti', 'series', 'slice', 'volumes', 'mixed')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'elsewhere',
    [{'shift': (0, 0, 100)}, {'shift': (0, 0, 1)}, {'shift': (3, 0, 0)}, {'spacing': (3, 3)}],
    ids=str,
)
def test_a_mask_elsewhere_is_refused(tmp_path, kind, elsewhere):
    assert not volumes.same_place(tmp_path, *write_pair(tmp_path, kind, **elsewhere))


@pytest.mark.parametrize('kind', KINDS)
def test_a_mask_in_place_is_not(tmp_path, kind):
    assert volumes.same_place(tmp_path, *write_pair(tmp_path, kind, shift=(0.01, 0, 0.01)))


@pytest.mark.parametrize('kind', ['nifti', 'series', 'volumes', 'mixed'])
def test_half_a_slice_is_elsewhere_where_pixels_are_larger(tmp_path, kind):
    pair = write_pair(tmp_path, kind, shift=(0, 0, 0.5), spacing=(4, 4), of_image=(4, 4))
    assert not volumes.same_place(tmp_path, *pair)


@pytest.mark.parametrize('affine', [np.diag([1.009, 1.009, 1, 1]), None])
def test_the_far_corner_counts(tmp_path, affine):
    if affine is None:  # half a degree
        c, s = np.cos(0.5 * np.pi / 180), np.sin(0.5 * np.pi / 180)
        affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for name, of in (('v', np.eye(4)), ('m', affine)):
        volume = np.zeros((256, 256, 2), np.uint8)
        nibabel.save(nibabel.Nifti1Image(volume, of), tmp_path / f'{name}.nii')
    assert volumes.same_place(tmp_path, 'v.nii', 'v.nii')
    assert not volumes.same_place(tmp_path, 'v.nii', 'm.nii')


def test_slices_are_compared_one_by_one(tmp_path):
    write_pair(tmp_path, 'nifti')
    for image, mask, same in (
        ('s/1.dcm', 't/1.dcm', True), ('s/1.dcm', 't/2.dcm', False), ('s/1.dcm', 'm.nii#1', True),
        ('s/1.dcm', 'm.nii#2', False), ('v.nii#1', 'm.nii#1', True), ('v.nii#1', 'm.nii#0', False),
    ):
        assert volumes.same_place(tmp_path, image, mask) == same, (image, mask)


def test_dicom_that_does_not_say_where_it_lies_is_not_compared(tmp_path):
    image, mask = write_pair(tmp_path, 'series', place_known=False)
    assert not volumes.same_place(tmp_path, 'v.nii', mask)  # how NIfTI would be turned is unknown
    for z in range(3):  # two slices of one order
        write_dicom(tmp_path / f's/{z}.dcm', np.zeros((8, 8)), InstanceNumber=z,
                    SeriesInstanceUID='1', **place(z))
    assert volumes.same_place(tmp_path, image, mask)
    for z in range(3):  # from the head down: the first mask would lie on the last slice
        write_dicom(tmp_path / f's/{z}.dcm', np.zeros((8, 8)), InstanceNumber=2 - z,
                    SeriesInstanceUID='1', **place(z))
    assert not volumes.same_place(tmp_path, image, mask)
    assert volumes.same_place(tmp_path, 's/1.dcm', 't/1.dcm')


def test_an_oblique_series_and_its_nifti_mask(tmp_path):
    angle = 0.3
    row = np.array([np.cos(angle), np.sin(angle), 0])
    column = np.array([-np.sin(angle), np.cos(angle), 0])
    corner = np.array([10.0, -20, 5])
    write_dicom(tmp_path / 'x.dcm', np.zeros((6, 9)), PixelSpacing=[2, 1],
                ImageOrientationPatient=[*row, *column], ImagePositionPatient=list(corner))
    affine = np.eye(4)
    affine[:3] = np.array([row, 2 * column, [0, 0, 3], corner]).T * [[-1], [-1], [1]]
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 6, 1), np.uint8), affine), tmp_path / 'm.nii')
    assert volumes.same_place(tmp_path, 'x.dcm', 'm.nii')
    affine[:2, 3] += 1
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 6, 1), np.uint8), affine), tmp_path / 'm.nii')
    assert not volumes.same_place(tmp_path, 'x.dcm', 'm.nii')


@pytest.mark.parametrize(
    ('rows', 'field'),
    [
        ([('v.nii#0', 'c', 'p'), ('v.nii#1', 'c', '')], 'patient'),
        ([('v.nii#0', 'c', 'p'), ('v.nii#1', 'c', 'q')], 'patient'),
        ([('v.nii#0', 'c', ''), ('v.nii#1', 'd', '')], 'center'),
        ([('v.nii#0', 'c', 'p'), ('link.nii#1', 'c', 'q')], 'patient'),
        ([('v.nii#0', 'c', ''), ('link.nii#0', 'c', '')], 'image'),
    ],
)
def test_slices_of_a_volume_are_not_parted(small_folder, manifest_writer, rows, field):
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 2)), np.eye(4)), small_folder / 'v.nii')
    (small_folder / 'link.nii').symlink_to(small_folder / 'v.nii')
    rows = [dict(zip(('image', 'center', 'patient'), row)) for row in rows]
    with pytest.raises(DataError, match=f'row 3, field {field}'):
        load_masks(small_folder, manifest_writer, rows)


def test_an_anonymous_series_is_one_patient(small_folder, manifest_writer):
    write_series(small_folder / 'a', [0, 1, 2], series='')
    center = load_masks(small_folder, manifest_writer, [{'image': 'a', 'center': 'c'}])
    assert center.unit == ('a',) * 3


def load_masks(root, manifest_writer, rows):
    """The one center of a folder with these rows."""
    (root / 'annotations.json').unlink(missing_ok=True)
    manifest_writer(root, rows)
    cache = root / 'cache'
    return load(root, 8, 0, cache, require_train=False, target='mask').centers[0]


def check_refused(root, manifest_writer, path, hint):
    (root / 'annotations.json').unlink()
    rows = [{'image': 'images/02.png', 'center': 'c'}, {'image': path, 'center': 'c'}]
    manifest_writer(root, rows)
    with pytest.raises(DataError) as error:
        load(root, 8, 0, root / 'cache', require_train=False)
    message = str(error.value)
    assert message.startswith(f'{root / "manifest.csv"}: row 3, field image: {path!r}')
    assert hint in message and len(message.splitlines()) == 1
