"""Files at plain https addresses, taken only if their checksum is the published one."""

import hashlib
import pathlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public.layout import Download

_AT_ONCE = 2**20  # bytes


def fetch(
    one: Download, folder: pathlib.Path, opened: Callable[[str], Any] = urllib.request.urlopen
) -> pathlib.Path:
    """The file in `folder`, downloaded.  Raises DataError where it is not what was published.

    opened: opens an address, as `urllib.request.urlopen` does.
    """
    file = folder / one.name
    if not one.url.startswith('https://'):
        raise DataError(f'{one.url}: no https address: download it yourself, and pass --source')
    try:
        with opened(one.url) as stream, open(file, 'wb') as target:
            shutil.copyfileobj(stream, target, _AT_ONCE)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DataError(
            f'{one.url}: cannot be downloaded ({error}): download it otherwise, and pass --source'
        ) from error
    problem = mismatch(file, one.checksum)
    if problem:
        raise DataError(f'{one.url}: {problem}: download it again, or see what its publisher says')
    return file


def mismatch(file: pathlib.Path, checksum: str) -> str:
    """How a file's checksum, 'sha256:...' or 'md5:...', differs from the published one, or ''."""
    kind, _, published = checksum.partition(':')
    with open(file, 'rb') as opened:
        own = hashlib.file_digest(opened, kind).hexdigest()
    return '' if own == published else f'its {kind} is {own}, the published one {published}'
