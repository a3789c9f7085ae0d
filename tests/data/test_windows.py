"""Deep gray files keep their bits until a window is applied, one for all images of a center."""

import numpy as np
import pytest
from medical_files import write_dicom
from PIL import Image

from fedgen_jax.data.check import look
from fedgen_jax.data.folder import decode, reading
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.folder.windows import parse
from fedgen_jax.data.source import load

X = np.arange(256).reshape(16, 16)
NARROW = (1000 + X).astype(np.uint16)  # 256 values, of 65536


def shown(path, window=None):
    return np.asarray(decode.open_image(str(path), None, window).image)[..., 0]


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_a_window_shows_what_8_bits_would_lose(tmp_path, suffix):
    file = tmp_path / f'x.{suffix}'
    Image.fromarray(NARROW).save(file)
    assert len(np.unique(shown(file))) <= 2
    np.testing.assert_array_equal(shown(file, parse('1000:1255')), X)
    assert set(np.unique(shown(file, parse('1100:1101')))) == {0, 255}
    picture = decode.open_image(file.read_bytes(), None, parse('1000:1255'))
    np.testing.assert_array_equal(np.asarray(picture.image)[..., 0], X)


def test_floats_in_units_of_their_own(tmp_path):
    file = tmp_path / 'x.tif'
    Image.fromarray((X - 100).astype(np.float32)).save(file)
    with pytest.raises(ValueError, match='floats outside'):
        shown(file)
    np.testing.assert_array_equal(shown(file, parse('-100:155')), X)


def test_dicom_and_nifti_are_windowed_after_rescaling(tmp_path):
    nibabel = pytest.importorskip('nibabel')
    pytest.importorskip('pydicom')
    fields = {'RescaleSlope': 2, 'RescaleIntercept': -1024, 'WindowCenter': 0, 'WindowWidth': 5}
    write_dicom(tmp_path / 'x.dcm', X, **fields)
    np.testing.assert_array_equal(shown(tmp_path / 'x.dcm', parse('-1024:-514')), X)
    fields['PhotometricInterpretation'] = 'MONOCHROME1'
    write_dicom(tmp_path / 'y.dcm', X, **fields)
    np.testing.assert_array_equal(shown(tmp_path / 'y.dcm', parse('-1024:-514')), 255 - X)
    volume = np.stack([X - 1024, X], -1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / 'x.nii')
    path = tmp_path / 'x.nii#0'
    assert sorted(shown(path, parse('-1024:-769')).ravel()) == list(range(256))


def folder(tmp_path):
    """Center n holds 1000 to 1255 in 12-bit ways, s 0 to 25500, and e 8 bits."""
    root = tmp_path / 'set'
    root.mkdir()
    images = {
        'n0': NARROW, 'n1': np.full_like(NARROW, 1255), 's0': (X * 100).astype(np.uint16),
        's1': (X * 50).astype(np.uint16), 'e0': X.astype(np.uint8), 'e1': X.astype(np.uint8) // 2,
    }
    lines = ['image,center']
    for name, x in images.items():
        Image.fromarray(x).save(root / f'{name}.png')
        lines.append(f'{name}.png,{name[0]}')
    (root / 'manifest.csv').write_text('\n'.join(lines))
    return root


def read(root, window):
    source = load(root, 16, 0, root.parent / 'cache', require_train=False, window=window)
    return {c.name: c for c in source.centers}, source


def test_one_scale_for_all_images_of_a_center(tmp_path):
    root = folder(tmp_path)
    centers, source = read(root, 'center')
    image = {name: c.examples.image[..., 0].astype(int) for name, c in centers.items()}
    assert np.all(image['n'][1] >= 250)  # the bright image stays bright beside the other
    assert len(np.unique(image['n'][0])) > 200
    np.testing.assert_allclose(image['s'][0] / 2, image['s'][1], atol=3)
    np.testing.assert_array_equal(image['e'][0], X)
    notes = look(source).notes
    told = [note for note in notes if reading.UNWINDOWED in note]
    assert len(told) == 1 and "'e' (2 of 2 images)" in told[0] and "'n'" not in told[0]
    assert not any('few gray' in note for note in notes)
    assert any('few gray' in n and 'data.window' in n for n in look(read(root, '')[1]).notes)


def test_the_window_is_part_of_what_is_stored(tmp_path):
    root = folder(tmp_path)
    first, again, other = (read(root, w)[0]['n'].examples.image
                           for w in ('1000:1255', '1000:1255', '1000:1510'))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0, ..., 0], X)
    np.testing.assert_array_equal(other[0, ..., 0], np.rint(X / 2))


def test_a_damaged_deep_image_is_told_with_its_row(tmp_path):
    root = folder(tmp_path)
    (root / 'n1.png').write_bytes(b'x')
    with pytest.raises(DataError, match="row 3, field image: 'n1.png'"):
        read(root, 'center')


@pytest.mark.parametrize('text', ['5', '5:', '5:5', '9:5', 'a:b', 'nan:5', '0:inf', 'image'])
def test_what_is_no_window(text):
    with pytest.raises(DataError, match='neither LOW:HIGH'):
        parse(text)
