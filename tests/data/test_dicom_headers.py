"""What else DICOM headers say: padding, studies, the modality."""

import numpy as np
import pytest
from medical_files import write_dicom
from test_dicom import RAMP

from fedgen_jax.data.folder import decode, dicom, dicom_gray, windows
from fedgen_jax.data.source import load
from fedgen_jax.modality import choose_modality

pytest.importorskip('pydicom')


@pytest.mark.parametrize('value, fields', [
    (-2000, {'PixelPaddingValue': -2000}),
    (-1990, {'PixelPaddingValue': -2000, 'PixelPaddingRangeLimit': -1980}),
])
def test_padding_is_black_and_in_no_scale(tmp_path, value, fields):
    body = np.array([[0, 1024, 2048, 3072]])
    stored = np.concatenate([np.full((1, 4), value), body])
    fields = {'PixelRepresentation': 1, 'BitsStored': 16, 'Modality': 'MR', **fields}
    write_dicom(tmp_path / 'a.dcm', stored, **fields)
    values = decode.read_values(str(tmp_path / 'a.dcm'))
    assert np.all(np.isnan(values[0])) and values[1].tolist() == body[0].tolist()
    window = windows.of_centers('center', ['c'], lambda: [str(tmp_path / 'a.dcm')])['c']
    assert window.low >= 0
    for kind in ('MONOCHROME1', 'MONOCHROME2'):
        write_dicom(tmp_path / 'a.dcm', stored, PhotometricInterpretation=kind, **fields)
        picture = decode.open_image(str(tmp_path / 'a.dcm'), window=window)
        shown = np.asarray(picture.image)[..., 0]
        assert not shown[0].any() and len(set(shown[1].tolist())) == 4
        assert dicom_gray.PADDED in picture.assumed


@pytest.mark.parametrize('signed, tag, expected', [
    (1, 63536, -2000), (1, -2000, -2000), (0, -2000, 63536), (0, 63536, 63536),
    (1, b'\x30\xf8', -2000), (0, b'\x30\xf8', 63536),
])
def test_the_sign_of_padding_is_that_of_the_pixels(signed, tag, expected):
    """Whatever a writer took it for, and where nothing says which it is."""
    tags = {'PixelRepresentation': signed, 'PixelPaddingValue': tag}
    assert dicom_gray.padding_of(tags) == (expected, expected)
    assert dicom_gray.padding_of({'PixelPaddingRangeLimit': tag}) is None


def test_padding_is_not_the_white_of_a_series(tmp_path):
    for i, slope in enumerate((1.0, 2.0)):  # scales of their own in each slice
        write_dicom(
            tmp_path / f'{i}.dcm', np.array([[0, 500, 1000, 4095]]), Modality='PT',
            RescaleSlope=slope, RescaleIntercept=0, PixelPaddingValue=4095,
        )
    files = [str(tmp_path / f'{i}.dcm') for i in range(2)]
    assert dicom.scale_of_series(files).high == 2000


def test_a_study_in_two_centers_is_told(tmp_path, manifest_writer):
    for name in ('a', 'b'):
        write_dicom(tmp_path / f'{name}.dcm', RAMP, PatientID='p', StudyInstanceUID='1.2.3')
    manifest_writer(tmp_path, [{'image': f'{x}.dcm', 'center': x} for x in 'ab'],
                    ('image', 'center'))
    notes = load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False).notes
    assert any('1 DICOM studies lie in several centers, the first in a, b' in n for n in notes)


@pytest.mark.parametrize('said, expected', [
    (('MR', 'MR'), ('mri', 'as its DICOM files say')),
    (('CT', ''), ('ct', "as the DICOM files of 'a' say; those of other centers say nothing")),
    (('CT', 'PT'), None), (('CT', 'MR'), None), (('PT', 'PT'), None),
])
def test_the_modality_that_files_say(tmp_path, manifest_writer, said, expected):
    for name, modality in zip('ab', said):
        write_dicom(tmp_path / f'{name}.dcm', RAMP, Modality=modality)
        content = (tmp_path / f'{name}.dcm').read_bytes()
        (tmp_path / f'{name}.dcm').write_bytes(content[132:])  # without preamble, as some are
    manifest_writer(tmp_path, [{'image': f'{x}.dcm', 'center': x} for x in 'ab'],
                    ('image', 'center'))
    source = load(tmp_path, 8, 0, tmp_path / 'cache', require_train=False)
    if expected:
        assert choose_modality('auto', source, tmp_path) == expected
    else:
        with pytest.raises(ValueError, match='state one by --config.modality'):
            choose_modality('auto', source, tmp_path)
