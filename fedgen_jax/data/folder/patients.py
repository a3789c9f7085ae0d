"""Who belongs together: the patient of each image, and names that look wrong.

A `patient` cell, which a person wrote, is believed.  A PatientID of a DICOM header is not where
anonymizing has plainly written one word for everybody: then a study counts as a patient, or a
series where all is of one study.
"""

import collections
from collections.abc import Sequence

from fedgen_jax.data.folder import words

MANY = 3  # one person seldom has as many studies, and more than half of a center's


def settle(pairs: Sequence[tuple]) -> tuple[list, list[str]]:
    """Rows with their patients, and notes; of (`manifest.Row`, `volumes.Slice`) of each image."""
    by_center = collections.defaultdict(list)
    for row, image in pairs:
        by_center[row.center].append((row, image))
    unit_of, doubts, believed = {}, [], []
    for center, of in by_center.items():
        nobody, many = _nobody(of)
        for patient, (part, parts) in nobody.items():
            unit_of[center, patient] = part
            doubts.append(f'center {center!r} (PatientID {patient!r} in {parts})')
        believed += [f'center {center!r} (PatientID {patient!r} in {n} studies)'
                     for patient, n in many.items()]
    rows = []
    for row, image in pairs:
        if not row.patient:
            part = unit_of.get((row.center, image.patient), {})
            unit = part.get(image.path, image.patient)
            row = row._replace(patient='' if part and unit == image.path else unit)
        rows.append(row)
    notes = [*_names(by_center), *_shared(pairs)]
    if believed:
        notes.insert(0, (
            f'{words.listed(believed, 4)}: counts as one person: if anonymizing wrote it for '
            'several, add a column patient'
        ))
    if doubts:
        notes.insert(0, (
            f'{words.listed(doubts, 4)}: no PatientID of one person, so each of these counts as a '
            'patient: if one person has several, add a column patient'
        ))
    return rows, notes


def _nobody(of) -> tuple[dict, dict]:
    """The PatientIDs of a center that are no person's, {PatientID: ({path: unit}, 'n studies')}.

    And of those that may be a person's, {PatientID: number of studies} if it is large.
    """
    images = [image for _, image in of]
    from_header = collections.defaultdict(list)
    for row, image in of:
        if not row.patient and image.patient not in ('', image.volume):
            from_header[image.patient].append(image)
    study_of: dict[str, str] = {}
    for image in images:  # all slices of a volume are of one study
        study_of.setdefault(image.volume or image.path, image.study)
    series = {image.path: image.volume or image.path for image in images}
    studies = {path: study_of[volume] or volume for path, volume in series.items()}
    found, many, total = {}, {}, len(set(studies.values()))
    for patient, mine in from_header.items():
        number, parts = (len({part[i.path] for i in mine}) for part in (studies, series))
        if words.is_nobody(patient) or (number >= MANY and 2 * number > total):
            found[patient] = studies, f'{number} studies'
        elif number == 1 and parts >= MANY and len(mine) == len(images):
            found[patient] = series, f'{parts} series or files'
        elif number >= MANY and 3 * number >= total:
            many[patient] = number
    return found, many


def _shared(pairs) -> list[str]:
    """A note on DICOM studies that lie in several centers: their patient is in two splits."""
    centers_of = collections.defaultdict[str, set[str]](set)
    for row, image in pairs:
        if image.study:
            centers_of[image.study].add(row.center)
    shared = [sorted(of) for of in centers_of.values() if len(of) > 1]
    if not shared:
        return []
    return [
        f'{len(shared)} DICOM studies lie in several centers, the first in '
        f'{words.listed(shared[0])}: one patient may be trained on in one and tested in another: '
        'keep a study in one center'
    ]


def _names(by_center) -> list[str]:
    """Notes on names of centers and patients that mean something else than they say."""
    notes = [
        f'centers {words.shown(names, " and ")} differ in spelling alone and count as '
        f'{len(names)} centers: write one name'
        for names in words.spellings(by_center)
    ]
    notes += [
        f'center {name!r} reads like a missing value and counts as a center: correct its name'
        for name in by_center if words.may_be_missing(name)
    ]
    twice, missing = [], []
    for center, of in by_center.items():
        count = collections.Counter(row.patient for row, _ in of if row.patient)
        for names in words.spellings(count):
            twice.append(f'center {center!r} ({words.shown(names, " and ")})')
        missing += [
            f'center {center!r} ({number} images of {name!r})'
            for name, number in count.items() if words.may_be_missing(name)
        ]
    if twice:
        notes.append(
            f'{words.listed(twice, 4)}: patients that differ in spelling alone count as several: '
            'write one name'
        )
    if missing:
        notes.append(
            f'{words.listed(missing, 4)}: the patient reads like a missing value, and counts as '
            'one person: leave the cell empty where none is known'
        )
    return notes
