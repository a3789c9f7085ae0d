"""One NIfTI volume: its shape, its gray scale, the shape of its voxels."""

import numpy as np
import pytest

from fedgen_jax.data.folder import decode, nifti, reading
from fedgen_jax.data.source import load
from fedgen_jax.predictions import Said, write_predictions
from fedgen_jax.tasks import segmentation

nibabel = pytest.importorskip('nibabel')


def write(file, volume, affine=None):
    affine = np.eye(4) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume), affine), file)
    return str(file)


def gray(path):
    return np.asarray(decode.read_image(path))[..., 0]


@pytest.mark.parametrize('shape', [(6, 5, 3, 1), (6, 5, 3, 1, 1), (6, 5, 1, 1), (6, 5, 1), (6, 5)])
def test_further_axes_of_one_are_no_axes(tmp_path, manifest_writer, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole = x.reshape(6, 5, -1)
    write(tmp_path / 'v.nii', x)
    write(tmp_path / 'm.nii', (whole > 0).astype(np.uint8))
    (tmp_path / 'classes.json').write_text('{"mask_classes": ["a", "b"]}')
    manifest_writer(tmp_path, [{'image': 'v.nii', 'center': 'c', 'mask': 'm.nii'}])
    source = load(tmp_path, 6, 0, tmp_path / 'cache', require_train=False)
    assert len(source.centers[0].path) == whole.shape[2]
    shown = np.rot90(whole)[:, ::-1]
    for k in range(whole.shape[2]):
        mask = source.centers[0].examples.target['mask'][k]
        np.testing.assert_array_equal(mask[:5], shown[..., k] > 0)
        order = np.argsort(shown[..., k], None)
        assert np.all(np.diff(gray(f'{tmp_path}/v.nii#{k}').ravel()[order].astype(int)) >= 0)


@pytest.mark.parametrize('shape', [(4, 4, 3, 2), (4, 4, 3, 1, 2), (4, 4, 1, 2), (4,)])
def test_other_shapes_are_refused(tmp_path, shape):
    file = write(tmp_path / 'v.nii', np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match='save a volume of 3'):
        decode.read_image(f'{file}#0')


@pytest.mark.parametrize('share', [0.0001, 0.004, 0.005, 0.015])
@pytest.mark.parametrize('sign', [1, -1], ids=['bright', 'dark'])
def test_in_a_sparse_volume_ten_times_the_value_is_more(tmp_path, share, sign):
    n = round(25000 * share)
    volume = np.zeros(25000, np.float32)
    volume[:n] = np.linspace(100, 1000, n)
    volume = volume.reshape(50, 50, 10, order='F')
    file = write(tmp_path / 'v.nii', sign * volume)
    picture = decode.open_image(f'{file}#0')
    assert picture.assumed == (reading.SPARSE,)
    shown = gray(f'{file}#0').astype(int) * sign
    background, low, high = (
        shown[np.rot90(volume[:, :, 0])[:, ::-1] == v][0] for v in (0, 100, 1000)
    )
    assert background < low and high - background > 200
    assert abs((high - background) - 10 * (low - background)) < 15


def test_a_sparse_volume_may_have_noise(tmp_path):
    volume = np.random.default_rng(0).normal(0, 0.01, (50, 50, 10)).astype(np.float32)
    volume[10:20, 10:20, 5] = np.linspace(100, 1000, 100).reshape(10, 10)
    picture = decode.open_image(write(tmp_path / 'v.nii', volume) + '#5')
    shown = np.asarray(picture.image)[..., 0]
    assert picture.assumed == (reading.SPARSE,)
    assert np.percentile(shown, 90) == 0 and len(np.unique(shown)) > 80


@pytest.mark.parametrize('dtype', [np.complex64, [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]])
def test_voxels_that_are_no_real_number_are_refused(tmp_path, dtype):
    file = write(tmp_path / 'v.nii', np.zeros((4, 4, 2), dtype))
    with pytest.raises(ValueError, match='save one real number a voxel'):
        decode.read_image(f'{file}#0')


def test_a_single_slice_is_turned_as_its_affine_says(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    plain = gray(write(tmp_path / 'a.nii', x, np.diag([1, 1, 1, 1.0])))
    turned = gray(write(tmp_path / 'b.nii', x[::-1], np.diag([-1, 1, 1, 1.0])))
    np.testing.assert_array_equal(plain, turned)


def test_a_slice_listed_twice_in_two_ways_is_refused(tmp_path, manifest_writer):
    write(tmp_path / 'v.nii', np.zeros((4, 4, 3), np.float32))
    manifest_writer(tmp_path, [{'image': f'v.nii{k}', 'center': 'c'} for k in ('', '#01')])
    with pytest.raises(ValueError, match="row 3, field image: 'v.nii#1' is listed in row 2"):
        load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False)


def test_other_volumes_keep_their_percentiles(tmp_path):
    volume = np.random.default_rng(0).normal(size=(20, 20, 5)).astype(np.float32)
    volume[:, :10] = 0
    picture = decode.open_image(write(tmp_path / 'v.nii', volume) + '#2')
    low, high = np.percentile(volume, [0.5, 99.5])
    wanted = np.clip((np.rot90(volume[..., 2])[:, ::-1] - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(np.asarray(picture.image)[..., 0], wanted, atol=0.51)
    assert picture.assumed == ()


def ball(tmp_path, name, spacing):
    """A ball of 20 mm in a field of 64 x 64 x 8 mm."""
    counts = [round(n / s) for n, s in zip((64, 64, 8), spacing)]
    axes = [(np.arange(n) + 0.5) * s - n * s / 2 for n, s in zip(counts, spacing)]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    inside = (x**2 + y**2 + z**2 < 400).astype(np.uint8)
    write(tmp_path / f'{name}.nii', inside, np.diag([*spacing, 1.0]))
    return f'{name}.nii#{counts[2] // 2}'


@pytest.mark.parametrize('spacing', [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 3.2, 1), (0.5, 0.5, 4)])
def test_a_ball_stays_round(tmp_path, manifest_writer, spacing):
    path = ball(tmp_path, 'v', spacing)
    (tmp_path / 'classes.json').write_text('{"mask_classes": ["a", "b"]}')
    manifest_writer(tmp_path, [{'image': path, 'center': 'c', 'mask': path}])
    examples = load(tmp_path, 64, 0, tmp_path / 'cache', require_train=False).centers[0].examples
    for inside in (examples.image[0, ..., 0] > 127, examples.target['mask'][0] == 1):
        height, width = inside.any(1).sum(), inside.any(0).sum()
        assert abs(height - 40) <= spacing[1] and abs(width - 40) <= spacing[0]
    picture = decode.open_image(f'{tmp_path}/{path}')
    assert picture.aspect == pytest.approx(spacing[1] / spacing[0])
    assert (decode.NOT_SQUARE in picture.assumed) == (spacing[0] != spacing[1])


def test_a_spacing_that_cannot_be_is_refused(tmp_path, manifest_writer):
    write(tmp_path / 'v.nii', np.zeros((600, 600, 1), np.uint8), np.diag([1, 1e4, 1, 1.0]))
    manifest_writer(tmp_path, [{'image': 'v.nii', 'center': 'c'}])
    with pytest.raises(ValueError, match=r"row 2, field image: .*correct the\s+spacing"):
        load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False)


@pytest.mark.parametrize('turn', [
    np.diag([1, 1, 1]), np.diag([-1, -1, 1]), np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1]]),
])
def test_masks_of_a_volume_come_back_as_one_on_its_voxels(tmp_path, turn):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [0.5, 2.0, 3.0], [4, -5, 6]
    voxels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units('mm')
    nibabel.save(image, tmp_path / 'v.nii.gz')
    file = str(tmp_path / 'v.nii.gz')
    depth = nifti.geometry(file)[0][2]
    said = []
    for k in range(depth):
        mask = decode.read_mask(f'{file}#{k}', 3)
        said.append(
            Said(f'v.nii.gz#{k}', mask.shape[::-1], {'mask': mask}, source=f'{file}#{k}')
        )
    task, names = segmentation(('none', 'a', 'b')), ('none', 'a', 'b')
    write_predictions(tmp_path / 'all', said, task, names)
    (written,) = (tmp_path / 'all' / 'masks').iterdir()
    found = nibabel.load(written)
    np.testing.assert_array_equal(np.asarray(found.dataobj), voxels)
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert found.get_data_dtype() == np.uint8 and written.name == 'v.nii.gz'
    # Of some slices alone there is no volume.
    write_predictions(tmp_path / 'some', said[1:], task, names)
    assert len(list((tmp_path / 'some' / 'masks').glob('v.nii.gz#*.png'))) == depth - 1
