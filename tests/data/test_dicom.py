"""One DICOM file or series: which gray a stored number becomes, by the tags of its files."""

import io
import logging

import numpy as np
import pytest
from medical_files import place, write_dicom
from PIL import Image

from fedgen_jax.data.folder import decode, dicom, dicom_gray
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.source import load

pydicom = pytest.importorskip('pydicom')

RAMP = np.rint(np.linspace(0, 4095, 8)).astype(int)[None]
RAMP_GRAY = np.rint(RAMP / 4095 * 255)


def gray(file, scale=None):
    return np.asarray(decode.open_image(str(file), scale).image)[..., 0]


def gray_of(tmp_path, stored, **fields):
    write_dicom(tmp_path / 'x.dcm', stored, **fields)
    return gray(tmp_path / 'x.dcm')


def folder(root, manifest_writer, *rows, **keywords):
    manifest_writer(root, [{'center': 'c', **row} for row in rows], ('image', 'center', 'mask'))
    (root / 'classes.json').write_text('{"mask_classes": ["a", "b", "c", "d"]}')
    return load(root, 8, 0, root / 'cache', require_train=False, **keywords).centers[0]


def test_rescale_and_window(tmp_path):
    hounsfield = np.array([[-1024, -160, 40], [240, 500, 3071]])
    scale = {'RescaleSlope': 1, 'RescaleIntercept': -1024}
    window = {'WindowCenter': 40, 'WindowWidth': 400}
    found = gray_of(tmp_path, hounsfield + 1024, **window, **scale)
    np.testing.assert_allclose(found, [[0, 0, 128], [255, 255, 255]], atol=1)
    found = gray_of(tmp_path, hounsfield + 1024, **scale)  # the range that 12 bits can hold
    np.testing.assert_allclose(found, (hounsfield + 1024) / 4095 * 255, atol=0.51)
    inverse = gray_of(
        tmp_path, hounsfield + 1024, PhotometricInterpretation='MONOCHROME1', **scale
    )
    np.testing.assert_allclose(inverse.astype(int) + found, 255, atol=1)


@pytest.mark.parametrize(
    'fields',
    [
        {'WindowCenter': None, 'WindowWidth': None},
        {'WindowCenter': ''},
        {'WindowCenter': 2048},
        {'WindowWidth': 100},
        {'WindowCenter': 0, 'WindowWidth': 0},
        {'WindowCenter': 0, 'WindowWidth': -5},
        {'RescaleSlope': None, 'RescaleIntercept': None},
        {'RescaleSlope': 1, 'RescaleIntercept': None},
    ],
)
def test_empty_tags_are_absent_ones(tmp_path, fields):
    write_dicom(tmp_path / 'x.dcm', RAMP, **fields)
    picture = decode.open_image(str(tmp_path / 'x.dcm'))
    np.testing.assert_array_equal(np.asarray(picture.image)[..., 0], RAMP_GRAY)
    assert dicom_gray.ABSENT in picture.assumed


def test_a_slope_without_intercept_counts(tmp_path):
    window = {'WindowCenter': 4095, 'WindowWidth': 8191}
    found = gray_of(tmp_path, RAMP, RescaleSlope=2, **window)
    np.testing.assert_array_equal(found, RAMP_GRAY)


def test_the_first_window_that_has_a_width_counts(tmp_path):
    found = gray_of(tmp_path, RAMP, WindowCenter=[9, 2047.5], WindowWidth=[0, 4096])
    np.testing.assert_array_equal(found, RAMP_GRAY)


@pytest.mark.parametrize('function', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
def test_windows_are_as_pydicom_applies_them(tmp_path, function):
    stored = np.arange(4096).reshape(64, 64)
    found = gray_of(
        tmp_path, stored, WindowCenter=1000, WindowWidth=700, VOILUTFunction=function
    )
    dataset = pydicom.dcmread(tmp_path / 'x.dcm')
    wanted = pydicom.pixels.apply_windowing(stored.astype(float), dataset) / 4095 * 255
    np.testing.assert_allclose(found, wanted, atol=0.51)


def test_a_slope_of_its_own_on_each_slice_keeps_one_gray_for_one_value(
    tmp_path, manifest_writer
):
    for i, (stored, slope) in enumerate([(20000, 0.5), (2000, 5), (4000, 5), (4000, 0.5)]):
        write_dicom(
            tmp_path / f'{i}.dcm', np.full((8, 8), stored), RescaleSlope=slope,
            RescaleIntercept=0, SeriesInstanceUID='1.2', BitsStored=16, HighBit=15, **place(i),
        )
    image = folder(tmp_path, manifest_writer, *({'image': f'{i}.dcm'} for i in range(4)))
    values = image.examples.image[:, 0, 0, 0]
    assert values.tolist() == [128, 128, 255, 26]  # of 10000, 10000, 20000 and 2000
    assert set(image.assumed) == {dicom_gray.OF_SERIES}


def write_series(root, folder, of, **fields):
    (root / folder).mkdir()
    for i, (stored, slope) in of.items():
        write_dicom(
            root / f'{folder}/{i}.dcm', np.full((8, 8), stored), RescaleSlope=slope, BitsStored=16,
            HighBit=15, RescaleIntercept=0, SeriesInstanceUID='1.2', **place(i), **fields,
        )


def test_a_series_in_two_folders_has_one_scale(tmp_path, manifest_writer):
    write_series(tmp_path, 's', {0: (20000, 0.5), 1: (2000, 5)}, PatientID='p')
    write_series(tmp_path, 't', {2: (4000, 5)}, PatientID='p')
    found = folder(tmp_path, manifest_writer, {'image': 's'}, {'image': 't'})
    assert found.examples.image[:, 0, 0, 0].tolist() == [128, 128, 255]


def test_white_of_pet_is_the_largest_of_the_series(tmp_path, manifest_writer):
    write_series(tmp_path, 's', {0: (100, 2), 1: (50, 2)}, Modality='PT')
    found = folder(tmp_path, manifest_writer, {'image': 's'})
    assert found.examples.image[:, 0, 0, 0].tolist() == [255, 128]
    # One image by itself keeps its brightness, and is told.
    found = folder(tmp_path, manifest_writer, {'image': 's/1.dcm'})
    assert found.examples.image.max() == 0 and found.assumed == (dicom_gray.ALONE,)


@pytest.mark.parametrize('fields', [{'Modality': 'CT'}, {'WindowCenter': 500, 'WindowWidth': 1000}])
def test_a_scale_that_is_known_is_not_taken_from_pixels(tmp_path, fields):
    write_series(tmp_path, 's', {0: (20000, 0.01), 1: (2000, 0.1)}, **fields)
    files = [str(tmp_path / f's/{i}.dcm') for i in range(2)]
    scale = decode.scale_of_series(files)
    white = 3071 if 'Modality' in fields else 1000
    assert [gray(file, scale).max() for file in files] == [round(200 / white * 255)] * 2


def test_windows_that_differ_within_a_series_become_one(tmp_path):
    files = [tmp_path / f'{i}.dcm' for i in range(3)]
    for file, center in zip(files, (1000, 2000, 3000)):
        write_dicom(file, RAMP, WindowCenter=center, WindowWidth=1000)
    write_dicom(tmp_path / 'n.dcm', RAMP)
    scale = decode.scale_of_series([str(tmp_path / 'n.dcm'), *map(str, files)])
    found = [gray(file, scale) for file in files]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[0], np.clip((RAMP - 500) / 3000, 0, 1) * 255, atol=1)
    assert decode.open_image(str(files[0]), scale).assumed == (dicom_gray.MANY_SCALES,)
    assert not np.array_equal(gray(files[0]), found[0])
    # Nothing is assumed of the range of bits where another's window is used.
    assert decode.open_image(str(tmp_path / 'n.dcm'), scale).assumed == (dicom_gray.MANY_SCALES,)


@pytest.mark.parametrize('bits', [8, 12, 16])
def test_a_voi_table_is_applied(tmp_path, bits):
    entries = np.rint((4095 - np.arange(4096)) / 4095 * (2**bits - 1))
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, bits]
    item.add_new('LUTData', 'OW', entries.astype('<u1' if bits == 8 else '<u2').tobytes())
    found = gray_of(tmp_path, 4095 - RAMP, VOILUTSequence=[item])
    np.testing.assert_allclose(found, RAMP_GRAY, atol=1)


def test_a_voi_table_for_negative_numbers(tmp_path):
    item = pydicom.Dataset()  # the tag of a file of unsigned numbers holds -1000 as 64536
    item.LUTDescriptor = [4096, 2**16 - 1000, 12]
    item.LUTData = np.arange(4096).astype('<u2').tobytes()
    fields = {'RescaleSlope': 1, 'RescaleIntercept': -1000, 'VOILUTSequence': [item]}
    np.testing.assert_allclose(gray_of(tmp_path, RAMP, **fields), RAMP_GRAY, atol=1)


@pytest.mark.parametrize('bits', [8, 10])
def test_a_voi_table_beyond_its_bits_is_refused(tmp_path, bits):
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, bits]
    item.LUTData = np.arange(4096).astype('<u2').tobytes()
    with pytest.raises(ValueError, match=f'entries above {2**bits - 1}'):
        gray_of(tmp_path, RAMP, VOILUTSequence=[item])


def test_bits_that_are_not_the_lowest_are_refused(tmp_path):
    with pytest.raises(ValueError, match='HighBit 15 of 12 BitsStored'):
        gray_of(tmp_path, RAMP * 16, HighBit=15)


def test_a_voi_table_follows_the_rescaling(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor = [11, 100, 8]
    item.add_new('LUTData', 'US', list(range(0, 110, 10)))
    found = gray_of(
        tmp_path, np.array([[0, 1, 5, 10, 99]]), VOILUTSequence=[item],
        RescaleSlope=1, RescaleIntercept=100,
    )
    assert found.tolist() == [[0, 10, 50, 100, 100]]


def test_the_range_is_that_of_the_bits_stored(tmp_path):
    found = gray_of(tmp_path, RAMP >> 2, BitsStored=10, HighBit=9)
    np.testing.assert_allclose(found, RAMP_GRAY, atol=1)


def test_ct_of_16_bits_without_a_window_is_scaled_from_12(tmp_path):
    hounsfield = np.array([[-2000, -1024, 0, 1000, 3071, 9000]], np.int16)
    fields = {'BitsStored': 16, 'HighBit': 15, 'PixelRepresentation': 1, 'RescaleSlope': 1}
    write_dicom(tmp_path / 'x.dcm', hounsfield, Modality='CT', **fields)
    found = decode.open_image(str(tmp_path / 'x.dcm'))
    wanted = np.clip((hounsfield + 1024) / 4095 * 255, 0, 255)
    np.testing.assert_allclose(np.asarray(found.image)[..., 0], wanted, atol=0.51)
    assert found.assumed == (dicom_gray.HOUNSFIELD,)


def test_a_single_frame_of_an_enhanced_object_has_its_tags_in_groups(tmp_path):
    def group(**fields):
        item = pydicom.Dataset()
        for key, value in fields.items():
            setattr(item, key, value)
        return item

    rescale = group(RescaleSlope=2, RescaleIntercept=0)
    measures = group(PixelSpacing=[3, 1])
    window = group(WindowCenter=4095, WindowWidth=8191)
    write_dicom(
        tmp_path / 'x.dcm', RAMP, NumberOfFrames=1,
        SharedFunctionalGroupsSequence=[
            group(PixelValueTransformationSequence=[rescale], PixelMeasuresSequence=[measures])
        ],
        PerFrameFunctionalGroupsSequence=[group(FrameVOILUTSequence=[window])],
    )
    picture = decode.open_image(str(tmp_path / 'x.dcm'))
    np.testing.assert_array_equal(np.asarray(picture.image)[..., 0], RAMP_GRAY)
    assert picture.aspect == 3


@pytest.mark.parametrize(
    ('fields', 'aspect'),
    [
        ({'PixelSpacing': [4, 1]}, 4),
        ({'ImagerPixelSpacing': [1, 2]}, 0.5),
        ({'PixelAspectRatio': [3, 2]}, 1.5),
        ({'PixelSpacing': None, 'PixelAspectRatio': [2, 1]}, 2),
        ({'PixelSpacing': [0, 0]}, 1),
        ({'PixelSpacing': [0.48828, 0.48829]}, 1),
    ],
)
def test_pixels_that_are_not_square(tmp_path, fields, aspect):
    write_dicom(tmp_path / 'x.dcm', np.zeros((6, 6)), **fields)
    picture = decode.open_image(str(tmp_path / 'x.dcm'))
    assert picture.aspect == aspect and picture.image.size == (6, 6)
    assert (decode.NOT_SQUARE in picture.assumed) == (aspect != 1)


def test_image_and_mask_are_resampled_to_square_pixels(tmp_path, manifest_writer):
    stored = np.zeros((4, 16), int)
    stored[1:3, 4:12] = 4095  # a square, for pixels are 4 times as high as wide
    write_dicom(tmp_path / 'x.dcm', stored, PixelSpacing=[4, 1])
    Image.fromarray((stored > 0).astype(np.uint8)).save(tmp_path / 'm.png')
    examples = folder(tmp_path, manifest_writer, {'image': 'x.dcm', 'mask': 'm.png'}).examples
    square = np.zeros((8, 8), bool)
    square[2:6, 2:6] = True
    np.testing.assert_array_equal(examples.target['mask'][0] == 1, square)
    np.testing.assert_array_equal(examples.image[0, ..., 0] > 128, square)


def test_boxes_on_pixels_that_are_not_square_are_refused(small_folder):
    write_dicom(small_folder / 'x.dcm', np.zeros((10, 12)), PixelSpacing=[4, 1])
    for name in ('manifest.csv', 'annotations.json'):
        text = (small_folder / name).read_text()
        (small_folder / name).write_text(text.replace('images/02.png', 'x.dcm'))
    with pytest.raises(DataError, match="row 2, field image: 'x.dcm' has pixels 4 times"):
        load(small_folder, 12, 0, small_folder / 'cache')


def test_files_are_known_by_their_content(tmp_path, manifest_writer):
    (tmp_path / 's').mkdir()
    for z in range(4):
        write_dicom(tmp_path / f's/{z}', RAMP * (z > 1), SeriesInstanceUID='1.2', **place(-z))
    bare = (tmp_path / 's/0').read_bytes()[132:]
    (tmp_path / 's/0').write_bytes(bare)  # without the preamble
    (tmp_path / 's/1').rename(tmp_path / 's/1.2.840.113')
    dataset = pydicom.dcmread(tmp_path / 's/2')
    del dataset.file_meta  # and nothing that tells how it is encoded
    dataset.save_as(tmp_path / 's/2', implicit_vr=True, little_endian=True)
    (tmp_path / 's/notes.txt').write_text('not an image')
    (tmp_path / 's/.hidden').write_bytes(bare)
    center = folder(tmp_path, manifest_writer, {'image': 's'})
    assert center.path == ('s/3', 's/2', 's/1.2.840.113', 's/0')
    assert center.examples.image.max((1, 2, 3)).tolist() == [255, 255, 0, 0]
    for name in ('s/0', 's/1.2.840.113'):
        assert folder(tmp_path, manifest_writer, {'image': name}).path == (name,)
    with pytest.raises(DataError, match='row 2, field image: .*of no type that is read'):
        folder(tmp_path, manifest_writer, {'image': 's/notes.txt'})


def test_study_and_series_of_a_slice(tmp_path):
    from fedgen_jax.data.folder import volumes

    write_dicom(tmp_path / 'x', RAMP, StudyInstanceUID='1.3', SeriesInstanceUID='1.2',
                PatientID='p')
    assert volumes.slices(tmp_path, 'x') == [volumes.Slice('x', '1.2', 'p', '1.3', '1.2')]


# -- compression


def jpeg_2000(stored, **keywords):
    out = io.BytesIO()
    Image.fromarray(stored).save(out, 'JPEG2000', no_jp2=True, **keywords)
    return pydicom.encaps.encapsulate([out.getvalue()])


BYTES = {'BitsAllocated': 8, 'BitsStored': 8, 'HighBit': 7}
SQUARES = np.kron([[0, 3], [1, 2]], np.ones((4, 4))).astype(np.uint8)
# SQUARES as other programs compressed them: no library that is installed writes these two.
LOSSLESS = {
    '1.2.840.10008.1.2.4.70': (
        'ffd8ffc3000b080008000801011100ffc400170001010101000000000000000000000000'
        '00010208ffda0008010100010000e7f1b01b01b01b145014050147ffd9'
    ),
    '1.2.840.10008.1.2.4.80': (
        'ffd8fff7000b020008000801011100ffda0008010100000000f2bdbcf5c76fd3e38cffd9'
    ),
}


@pytest.mark.parametrize('syntax', LOSSLESS)
def test_lossless_jpeg_is_read(tmp_path, syntax):
    pixels = pydicom.encaps.encapsulate([bytes.fromhex(LOSSLESS[syntax])])
    file = tmp_path / 'x.dcm'
    write_dicom(file, SQUARES, syntax, pixels, **BYTES)
    np.testing.assert_array_equal(gray(file), SQUARES)
    np.testing.assert_array_equal(decode.read_mask(str(file), 4), SQUARES)


def test_masks_compressed_with_loss_are_refused(tmp_path):
    from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit

    out = io.BytesIO()
    Image.fromarray(SQUARES).save(out, 'JPEG', quality=100)
    jpeg = pydicom.encaps.encapsulate([out.getvalue()])
    j2k = jpeg_2000(SQUARES, irreversible=False)
    file = tmp_path / 'x.dcm'
    for syntax, pixels, lossy in (
        (JPEGBaseline8Bit, jpeg, None), (JPEG2000, j2k, None), (JPEG2000, j2k, '01'),
    ):
        write_dicom(file, SQUARES, syntax, pixels, LossyImageCompression=lossy, **BYTES)
        with pytest.raises(ValueError, match='compressed with loss'):
            decode.read_mask(str(file), 4)
    for syntax, lossy in ((JPEG2000Lossless, None), (JPEG2000, '00')):
        write_dicom(file, SQUARES, syntax, j2k, LossyImageCompression=lossy, **BYTES)
        np.testing.assert_array_equal(decode.read_mask(str(file), 4), SQUARES)


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    from pydicom.uid import MPEG2MPML, JPEGLSLossless

    file = tmp_path / 'x.dcm'
    empty = pydicom.encaps.encapsulate([b'\xff\xd8\xff\xd9'])
    write_dicom(file, SQUARES, JPEGLSLossless, empty, **BYTES)
    with monkeypatch.context() as patch:
        decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
        patch.setattr(decoder, '_available', {})
        with pytest.raises(ValueError, match=r"JPEG-LS.*: pip install 'fedgen_jax\[medical\]'"):
            decode.read_image(str(file))
    with monkeypatch.context() as patch:
        told, handler = [], logging.Handler()
        handler.emit = told.append
        patch.setattr(logging.getLogger(), 'handlers', [handler])
        with pytest.raises(ValueError, match='does not decode'):
            decode.read_image(str(file))
        assert not told  # no traceback besides
    write_dicom(file, SQUARES, MPEG2MPML, empty, **BYTES)
    with pytest.raises(ValueError, match='MPEG2.*: save them without compression'):
        decode.read_image(str(file))


def test_the_cache_of_headers_sees_an_edited_file(tmp_path):
    assert gray_of(tmp_path, RAMP, WindowCenter=10, WindowWidth=4)[0, 1] == 255
    assert dicom.header(tmp_path / 'x.dcm').scale.given
    np.testing.assert_array_equal(gray_of(tmp_path, RAMP), RAMP_GRAY)
