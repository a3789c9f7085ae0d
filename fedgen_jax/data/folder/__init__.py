"""A center folder on disk, in the format that people bring."""

from fedgen_jax.data.folder.manifest import DataError, row_error
from fedgen_jax.data.folder.records import Folder, fingerprint, records, scan

__all__ = ['DataError', 'Folder', 'fingerprint', 'records', 'row_error', 'scan']
