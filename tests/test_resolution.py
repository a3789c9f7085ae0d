"""Masks are scored as they lie in their files, in pixels and in mm, one run at one size."""

import json

import numpy as np
import pytest
from medical_files import place, write_dicom
from PIL import Image

from fedgen_jax.config import base
from fedgen_jax.data.examples import SPLITS, Original, of_split
from fedgen_jax.data.folder import decode
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.inputs import in_own_pixels
from fedgen_jax.data.originals import read_mask, spacing_of
from fedgen_jax.data.source import draw, load
from fedgen_jax.data.targets import Frame
from fedgen_jax.resolution import at_own_size, resolution_of
from fedgen_jax.tasks import classification, segmentation
from fedgen_jax.tasks.base import Predicted

CLASSES = ('background', 'organ')
TASK = segmentation(CLASSES)


def folder(root, rows, columns='image,center,split,mask'):
    (root / 'classes.json').write_text(json.dumps({'mask_classes': CLASSES}))
    (root / 'manifest.csv').write_text('\n'.join([columns, *rows]) + '\n')
    return root


def said(center, masks_N):
    """Predictions of all images of a center."""
    return Predicted(
        {'mask': np.stack(masks_N)}, center.examples, center.path, center.unit, center.original
    )


def scores_of(found):
    found = at_own_size(found, TASK)
    return TASK.metrics(found.predictions, found.examples.target, found.examples.weight)


def box(height, width, y, x):
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + 10, x : x + 8] = 1
    return mask


def test_a_mask_is_scored_as_it_lies_in_its_file(tmp_path):
    truth, guess = box(60, 90, 20, 40), box(60, 90, 20, 43)
    for name, pixels in (('image', np.repeat(truth[..., None], 3, 2) * 255), ('mask', truth)):
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    rows = ['image.png,a,train,mask.png']
    (center,) = load(folder(tmp_path, rows), 30, 0, tmp_path / 'store', target='mask').centers
    assert center.original == (
        Original(str(tmp_path / 'image.png'), str(tmp_path / 'mask.png')),
    )
    square = decode.square_mask(guess, 30)
    found = scores_of(said(center, [square]))
    own = in_own_pixels({'mask': square}, Frame(90, 60, 1.0, 30))
    assert found == TASK.metrics(
        {'mask': own['mask'][None]}, {'mask': truth[None]}, np.ones(1)
    )
    small = TASK.metrics({'mask': square[None]}, center.examples.target, np.ones(1))
    assert found['hd95'] > 2 * small['hd95'] and 'hd95_mm' not in found


def test_millimetres_of_a_volume_with_pixels_that_are_not_square(tmp_path):
    nib = pytest.importorskip('nibabel')
    truth = box(30, 20, 8, 6)
    for name, scale in (('image', 900), ('mask', 1)):
        # Shown with rows from front to back and columns from the patient's right.
        shown = np.stack([truth, 0 * truth], 2)[::-1, ::-1] * np.int16(scale)
        volume = nib.Nifti1Image(shown.swapaxes(0, 1), np.diag([2.0, 0.5, 3.0, 1.0]))
        volume.header.set_xyzt_units('mm')
        nib.save(volume, tmp_path / f'{name}.nii.gz')
    rows = ['image.nii.gz,a,train,mask.nii.gz']
    (center,) = load(folder(tmp_path, rows), 80, 0, tmp_path / 'store', target='mask').centers
    assert [spacing_of(x) for x in center.original] == [(0.5, 2.0)] * 2
    np.testing.assert_array_equal(read_mask(center.original[0]), truth)
    nothing = decode.square_mask(0 * truth, 80, 0.25)
    for axis, step in ((0, 0.5), (1, 2.0)):
        guess = decode.square_mask(np.roll(truth, 3, axis), 80, 0.25)
        found = scores_of(said(center, [guess, nothing]))
        assert (found['hd95'], found['hd95_mm']) == pytest.approx((3.0, 3 * step))
        assert found['n_mm'] == found['n'] == 2
        assert found['dice_volume'] == found['dice'] == pytest.approx((1 - 3 / 10, 1 - 3 / 8)[axis])


def test_a_header_tells_the_spacing_and_a_column_before_it(tmp_path):
    pytest.importorskip('pydicom')
    Image.new('RGB', (9, 9)).save(tmp_path / 'plain.png')
    write_dicom(tmp_path / 'slice.dcm', np.zeros((9, 9)), **place(spacing=(0.7, 0.4)))
    mask = np.full((9, 9), 1, np.uint8)
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    rows = ['plain.png,a,train,,', 'slice.dcm,a,train,mask.png,']
    columns = 'image,center,split,mask,spacing'

    def spacings(rows):
        (center,) = load(
            folder(tmp_path, rows, columns), 8, 0, tmp_path / 'store', target='mask'
        ).centers
        return [spacing_of(x) for x in center.original]

    assert spacings(rows) == [(), (0.7, 0.4)]
    assert spacings([row + '0.5' for row in rows]) == [(0.5, 0.5)] * 2
    assert spacings([row + '0.5 2' for row in rows]) == [(0.5, 2.0)] * 2
    for bad in ('0', 'half', '1 2 3', '-1', 'inf'):
        with pytest.raises(DataError, match=r'row 3, field spacing: .*write 0.5, or height'):
            spacings([rows[0], rows[1] + bad])


def test_a_run_is_scored_at_one_size_and_says_which(tmp_path):
    Image.new('RGB', (9, 9)).save(tmp_path / 'a.png')
    Image.new('L', (9, 9), 1).save(tmp_path / 'm.png')
    rows = ['a.png,a,train,m.png']
    files = load(folder(tmp_path, rows), 8, 0, tmp_path / 'store', target='mask').centers
    drawn = draw(2, 4, 16, 0, 1.0, 'mask', cache=tmp_path / 'store').centers
    c = base()
    c.data.image_size = 8
    assert resolution_of(c, TASK, files) == {'size': 'own', 'pixels': 8, 'why': ''}
    for centers in (drawn, (*files, *drawn)):
        found = resolution_of(c, TASK, centers)
        assert found['size'] == 'model' and 'no files' in found['why']
    assert resolution_of(c, TASK._replace(measure=None), files)['size'] == 'model'
    assert resolution_of(c, classification('ab'), files) is None
    c.score_size = 'model'
    assert resolution_of(c, TASK, files)['why'] == 'score_size=model'


def test_an_image_without_a_mask_is_not_scored(tmp_path):
    for name in 'ab':
        Image.new('RGB', (9, 9)).save(tmp_path / f'{name}.png')
    Image.fromarray(np.ones((9, 9), np.uint8)).save(tmp_path / 'm.png')
    rows = ['a.png,a,test,m.png', 'b.png,a,test,']
    (center,) = load(
        folder(tmp_path, rows), 4, 0, tmp_path / 'store', target='mask', require_train=False
    ).centers
    assert len(of_split(center, SPLITS[2]).weight) == 2
    found = scores_of(said(center, np.ones((2, 4, 4), np.uint8)))
    assert (found['n'], found['dice']) == (1, 1)
