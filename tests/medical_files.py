"""Small DICOM files for tests."""

import numpy as np


def write_dicom(path, stored, syntax=None, pixels=None, **fields):
    """A gray slice of 12 bits in 16; a further field of None is there and empty."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, 'MONOCHROME2'
    dataset.PixelData = pixels or stored.astype(np.uint16).tobytes()
    for key, value in fields.items():
        setattr(dataset, key, value)
    if 'FloatPixelData' in dataset:
        del dataset.PixelData
    dataset.save_as(path, enforce_file_format=True)


def place(z=0.0, x=0.0, spacing=(1, 1)):
    """The tags of an axial slice."""
    return {
        'ImageOrientationPatient': [1, 0, 0, 0, 1, 0], 'ImagePositionPatient': [x, 0, z],
        'PixelSpacing': list(spacing),
    }
