"""Manifests as people and programs write them: words, spellings, further columns, patients."""

import json

import numpy as np
import pytest
from PIL import Image

from fedgen_jax.data.folder import words
from fedgen_jax.data.folder.manifest import DataError
from fedgen_jax.data.source import load

COLUMNS = ('image', 'center', 'patient', 'split', 'label', 'mask')


@pytest.fixture
def write(small_folder, manifest_writer):
    """Writes a manifest of the folder's images 02, 03, ... with these cells, and loads it."""
    (small_folder / 'annotations.json').unlink()

    def folder(rows, columns=COLUMNS, classes=None, **options):
        rows = [{'image': f'images/{r + 2:02d}.png', 'center': 'c', **row}
                for r, row in enumerate(rows)]
        manifest_writer(small_folder, rows, columns)
        names = {'mask_classes': ['none', 'cell', 'nucleus'], **(classes or {})}
        (small_folder / 'classes.json').write_text(json.dumps(names))
        options = {'target': 'label', **options}
        return load(small_folder, 8, 0, small_folder / 'cache', require_train=False, **options)

    return folder


def labels(*values):
    return [{'label': value} for value in values]


@pytest.mark.parametrize(
    'word',
    ['NA', 'None', '?', 'N/A', 'NULL', '<NA>', '-', 'nan', 'NaN', '#N/A', 'n.a.', 'null', '--',
     '#VALUE!', 'n/d', '-1', '-999', '-1.0'],
)
def test_a_missing_value_is_no_class(write, word):
    with pytest.raises(DataError) as error:
        write(labels('a', 'b', word))
    message = str(error.value)
    assert f"row 4, field label: '{word}' read like missing values" in message
    assert 'classes.json' in message and len(message.splitlines()) == 1
    meant = write(labels('a', 'b', word), classes={'classes': ['a', 'b', word]})
    assert meant.classes == ('a', 'b', word)


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ('benign', 'Benign'), ('1', '1.0'), ('TRUE', 'True'), ('cell a', 'cell  a'), ('2', '02'),
        ('cell a', 'cell\xa0a'), ('cell_a', 'cell a'), ('n\xe4vus', 'na\u0308vus'),
        ('benign', 'ben\u200bign'), ('1.50', '1.5'),
        ('benign', 'b\u0435nign'), ('non-tumor', 'non\u2011tumor'), ('1', '1e0'),
    ],
)
def test_spellings_of_one_class_are_refused(write, one, other):
    rows = labels('x', one, other, 'y')
    with pytest.raises(DataError, match='row 3, field label: .* differ in spelling alone') as error:
        write(rows)
    assert words.shown([one]) in str(error.value) and words.shown([other]) in str(error.value)
    assert write(rows, classes={'classes': ['x', 'y', one, other]}).classes[2:] == (one, other)


def test_all_that_is_wrong_with_labels_is_one_line(write):
    values = ['benign', 'Benign', 'None', '<NA>', '?', '1', '1.0', 'TRUE', 'True']
    with pytest.raises(DataError) as error:
        write(labels(*values))
    assert all(repr(value) in str(error.value) for value in values)


@pytest.mark.parametrize(
    'values',
    [('007', '01'), ('1', '2', '10'), ('HER2+', 'HER2-'), ('A', 'B'), ('-1', '1'), ('no', 'non')],
)
def test_what_differs_in_more_than_spelling_is_kept(write, values):
    assert write(labels(*values)).classes == tuple(sorted(values))


def test_what_may_be_missing_is_told(write):
    rows = [*labels('a', 'Unknown'), {'label': 'a', 'center': 'None'}]
    found = write(rows).notes
    assert len(found) == 2 and "center 'None'" in found[0] and "class 'Unknown'" in found[1]
    meant = {'classes': ['a', 'Unknown']}
    assert not write(labels('a', 'Unknown'), classes=meant).notes


@pytest.mark.parametrize('values', [('0', '1', '-1'), ('1', '2', '-1'), ('0.0', '1.0', '-1.0')])
def test_a_negative_number_among_numbered_classes_is_missing(write, values):
    with pytest.raises(DataError, match=f"'{values[2]}' read like missing"):
        write(labels(*values))


def test_two_classes_may_be_minus_one_and_one(write):
    assert write(labels('-1', '1', '1')).classes == ('-1', '1')


def test_a_mistake_in_labels_that_are_not_learned_is_a_note(write, small_folder):
    Image.fromarray(np.ones((10, 12), np.uint8)).save(small_folder / 'm.png')
    rows = [{'label': 'NA', 'mask': 'm.png'}, {'label': 'x', 'mask': 'm.png'}]
    with pytest.raises(DataError, match="'NA' read like missing"):
        write(rows)
    source = write(rows, target='mask')
    assert source.target == 'mask' and list(source.centers[0].examples.target) == ['mask']
    assert any("'NA' read like missing" in note and 'left out' in note for note in source.notes)
    with pytest.raises(DataError, match="'NA' read like missing"):
        write(rows, target=None)


@pytest.mark.parametrize(
    ('word', 'number'),
    [('validation', 1), ('valid', 1), ('dev', 1), ('Val', 1), ('Train', 0), ('TRAINING', 0),
     ('Test', 2), ('testing', 2)],
)
def test_words_for_splits(write, word, number):
    assert write([{'label': 'a', 'split': word}]).centers[0].split.tolist() == [number]


def test_further_columns_are_kept_and_not_refused(write, small_folder):
    source = write([{'label': 'a', 'age': '7'}, {'label': 'b'}], (*COLUMNS, 'age', 'scanner'))
    assert source.classes == ('a', 'b') and not source.notes


@pytest.mark.parametrize(
    'header', ['Label', 'labels', 'lable', 'LABEL', 'label_id', 'diagnosis', 'Class']
)
def test_a_header_that_looks_like_a_known_one_is_told(write, header):
    source = write([{header: 'a'}], ('image', 'center', header))
    assert any(f'column {header!r}' in note and 'write label' in note for note in source.notes)


def test_a_column_of_patients_by_another_name_is_told():
    for header in ('subject_id', 'Subject', 'patientID', 'MRN'):
        assert words.meant_by(header, COLUMNS) == 'patient'
    assert words.meant_by('fold', COLUMNS) == 'split'
    assert words.meant_by('subject', ('label',)) is None  # where there is a column patient


def test_a_column_without_a_header_is_told(write):
    rows = [{'': str(i), 'label': 'a'} for i in range(3)]
    assert any('column 1 has no header' in n for n in write(rows, ('', *COLUMNS)).notes)
    rows = [{'label': 'a'}] * 3  # as a spreadsheet leaves them behind
    assert not write(rows, (*COLUMNS, '', '')).notes


@pytest.mark.parametrize('header', ['age', 'sex', 'task', 'mass', 'table', 'site', 'laterality'])
def test_other_headers_are_not_taken_for_known_ones(header):
    assert words.meant_by(header, COLUMNS) is None


def test_many_mistakes_are_one_line_with_their_number(write):
    rows = [{'image': f'x/{i}.png'} for i in range(100)]
    with pytest.raises(DataError) as error:
        write([{'label': 'a'}, *rows])
    message = str(error.value)
    assert "row 3, field image: 'x/0.png' does not exist" in message
    assert '(100 rows' in message and len(message.splitlines()) == 1
    with pytest.raises(DataError, match=r'row 3, .*unknown label .* \(2 rows'):
        write(labels('a', 'x', 'y'), classes={'classes': ['a']})


def test_many_broken_files_are_one_line_with_their_number(write, small_folder):
    for r in (3, 4, 6):
        (small_folder / f'images/{r:02d}.png').write_bytes(b'x')
    with pytest.raises(DataError, match=r"row 3, field image: 'images/03.png'.* \(3 rows"):
        write(labels(*'aaaaaa'))
    assert list((small_folder / 'cache').iterdir()) == []


def test_a_control_character_is_refused(write):
    with pytest.raises(DataError, match='row 3, field center: .*control character'):
        write([{'label': 'a'}, {'label': 'a', 'center': 'a\tb'}])
    name = 'St/Luke, ~pooled'
    assert write([{'label': 'a', 'center': name}]).centers[0].name == name


def test_names_that_differ_in_spelling_alone_are_told(write):
    rows = [{'label': 'a', 'center': c} for c in ('North', 'north', 'south')]
    assert any("'North' and 'north'" in note for note in write(rows).notes)
    rows = [{'label': 'a', 'patient': p} for p in ('7', '7.0', '8')]
    assert any("'7' and '7.0'" in note for note in write(rows).notes)
    rows = [{'label': 'a', 'patient': p} for p in ('None', 'None', '8')]
    assert any("2 images of 'None'" in note for note in write(rows).notes)


# -- what the numbers of a mask mean


def masks(root, write, values, centers):
    for r, value in enumerate(values, start=2):
        x = np.resize(np.array(value, np.uint8), (10, 12))
        Image.fromarray(x).save(root / f'masks/{r:02d}.png')
    rows = [
        {'center': c, 'mask': f'masks/{r:02d}.png'} for r, c in enumerate(centers, start=2)
    ]
    return write(rows, target='mask')


@pytest.mark.parametrize(
    ('values', 'row'),
    [
        ([[0, 1], [0, 255], [0, 1]], 3),  # two ways of saving the foreground, or one unknown part
        ([[0, 255], [255], [0]], 2),
        ([[255], [255], [0]], 2),
    ],
)
def test_255_has_one_meaning_at_a_center(small_folder, write, values, row):
    with pytest.raises(DataError, match=f"row {row}, field mask: .* of 'c' have 0 and 255 alone"):
        masks(small_folder, write, values, 'ccc')
    with pytest.raises(DataError, match=f'row {row}, field mask'):  # whatever another center does
        masks(small_folder, write, [*values, [0, 1, 255]], 'cccd')


@pytest.mark.parametrize('values', [
    [[0, 1, 255], [0, 255], [0, 1]], [[0, 1], [255], [1, 2]], [[0, 2], [0], [1, 255]],
])
def test_255_beside_classes_is_unknown(small_folder, write, values):
    target = masks(small_folder, write, values, 'ccc').centers[0].examples.target
    assert len(target['mask']) == 3


# -- PatientIDs after anonymizing


def dicoms(root, write, ids, studies, series=None, column=(), center='c'):
    """A file each, with its PatientID, study and series."""
    pydicom = pytest.importorskip('pydicom')
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    rng, rows = np.random.default_rng(0), []
    for i, (patient, study) in enumerate(zip(ids, studies)):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.SOPInstanceUID = generate_uid()
        data.Rows = data.Columns = 8
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, 'MONOCHROME2'
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelData = rng.integers(0, 65536, (8, 8)).astype(np.uint16).tobytes()
        data.PatientID, data.StudyInstanceUID = patient, study
        data.SeriesInstanceUID = series[i] if series else f'9.{i}'
        data.save_as(root / f'{i}.dcm', enforce_file_format=True)
        rows.append({'image': f'{i}.dcm', 'center': center, 'label': 'ab'[i % 2],
                     'patient': column[i] if column else ''})
    source = write(rows)
    return source.centers[0], source.notes


MANY = [f'1.{i}' for i in range(12)]


@pytest.mark.parametrize('ids', [
    ['ANONYMOUS'] * 12, ['0'] * 9 + ['p', 'q', 'r'], ['q'] * 12, ['Anonymized'] * 6 + ['anon'] * 6,
])
def test_one_patient_id_for_everybody_is_no_patient(small_folder, write, ids):
    center, notes = dicoms(small_folder, write, ids, MANY)
    assert len(set(center.unit)) == 12 and len(set(center.split)) == 3
    assert any(repr(ids[0]) in note and "center 'c'" in note for note in notes)


def test_a_study_of_several_series_stays_whole(small_folder, write):
    studies = [f'1.{i // 3}' for i in range(12)]
    center, notes = dicoms(small_folder, write, ['x'] * 12, studies)
    assert len(set(center.unit)) == 4 and 'studies' in ' '.join(notes)
    for i in range(4):
        assert len(set(center.split[[u == f'1.{i}' for u in center.unit]])) == 1


def test_two_studies_of_several_series_are_of_one_person(small_folder, write):
    center, _ = dicoms(small_folder, write, ['x'] * 4, ['1', '1', '2', '2'])
    assert set(center.unit) == {'x'}


def test_an_id_of_many_studies_is_told(small_folder, write):
    center, notes = dicoms(small_folder, write, ['x'] * 6 + [f'p{i}' for i in range(6)], MANY)
    assert len(set(center.unit)) == 7
    assert any("'x' in 6 studies" in note and 'one person' in note for note in notes)


def test_without_studies_series_or_files_count(small_folder, write):
    center, _ = dicoms(small_folder, write, ['x'] * 12, [''] * 12)
    assert len(set(center.unit)) == 12
    center, notes = dicoms(small_folder, write, ['x'] * 12, ['1.1'] * 12, [''] * 12)
    assert center.unit == center.path and notes


@pytest.mark.parametrize(
    ('ids', 'studies', 'units'),
    [
        ([f'p{i // 3}' for i in range(12)], MANY, 4),  # patients who came again
        (['p'] * 7 + ['q'] * 5, ['1'] * 7 + ['2'] * 5, 2),  # many series of one study
    ],
)
def test_patient_ids_of_persons_are_believed(small_folder, write, ids, studies, units):
    center, notes = dicoms(small_folder, write, ids, studies)
    assert len(set(center.unit)) == units and not notes


def test_a_patient_that_a_person_wrote_is_believed(small_folder, write):
    center, notes = dicoms(small_folder, write, ['x'] * 12, MANY, column=['anna'] * 12)
    assert set(center.unit) == {'anna'} and not notes  # `check.look` tells of one patient
