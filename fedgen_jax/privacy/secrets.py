"""A center's secret, and the keys of streams that are derived from it.

A run's seed stands in its `config.json`, so a server that knows it could take noise and masks off
again.  They come from 32 random bytes of each center's own instead.
"""

import os
import pathlib
import secrets
import stat
from typing import Any

from fedgen_jax.privacy.extra import extra

SIZE = 32  # bytes of a secret and of every key
FILE = 'secret.key'
SIMULATION = 'simulation: secrets come from a seed, so noise and masks can be drawn again'


def randomness_of(config: Any) -> str:
    """Where a run's noise comes from, in words."""
    return 'secret' if config.privacy.seed == 'secret' else SIMULATION


def create_secret(folder: pathlib.Path, workdir: pathlib.Path | None = None) -> bytes:
    """Draws a center's secret, and writes it to `FILE` in its own folder for its owner alone.

    workdir: the run's folder, which the server reads: a secret in it is refused.

    Raises ValueError where the folder has a secret already: noise that was drawn from a lost one
    could not be drawn again.
    """
    file = _file_in(folder, workdir)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = secrets.token_bytes(SIZE)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ValueError(f'{file}: there already, and a secret is never replaced') from error
    with open(handle, 'wb') as out:
        out.write(secret)
        out.flush()
        os.fsync(out.fileno())
    return secret


def read_secret(folder: pathlib.Path, workdir: pathlib.Path | None = None) -> bytes:
    """The secret that `create_secret` wrote.

    Raises ValueError where the file is lost, of another size, or open to others than its owner.
    """
    file = _file_in(folder, workdir)
    if not file.is_file():
        raise ValueError(f'{file}: the secret of this center is lost: bring it back from a copy')
    mode = stat.S_IMODE(file.stat().st_mode)
    if os.name == 'posix' and mode & 0o077:
        raise ValueError(f'{file}: mode {mode:o} lets others than its owner in: chmod 600 it')
    secret = file.read_bytes()
    if len(secret) != SIZE:
        raise ValueError(f'{file}: {len(secret)} bytes, and a secret has {SIZE}: it is damaged')
    return secret


def check_secret(folder: pathlib.Path, workdir: pathlib.Path, used: bool) -> None:
    """Raises ValueError where a secret lies wrong, or is there or was used and cannot be read."""
    if _file_in(folder, workdir).is_file() or used:
        read_secret(folder, workdir)


def simulated_secret(seed: int, center: str) -> bytes:
    """A secret for simulations (`SIMULATION`), the same for everybody who knows the seed."""
    return stream_key(b'\0' * SIZE, 'simulation', seed, center)


def stream_key(secret: bytes, *info: str | bytes | int) -> bytes:
    """A key of 32 bytes for one use: HKDF-SHA256 (RFC 5869) of a secret, for this `info`.

    No two lists of `info` are written alike: each part goes with its kind and its length.
    """
    if len(secret) != SIZE:
        raise ValueError(f'a secret of {len(secret)} bytes, and not {SIZE}')
    hashes = extra('cryptography.hazmat.primitives.hashes', 'a secret')
    hkdf = extra('cryptography.hazmat.primitives.kdf.hkdf', 'a secret')
    written = b''.join(_written(part) for part in info)
    return hkdf.HKDF(hashes.SHA256(), SIZE, b'fedgen_jax', written).derive(secret)


def _written(part):
    if isinstance(part, bool) or not isinstance(part, str | bytes | int):
        raise TypeError(f'{part!r}: info is text, bytes and whole numbers')
    kind = {str: b's', bytes: b'b', int: b'i'}[type(part)]
    data = part if isinstance(part, bytes) else str(part).encode()
    return kind + len(data).to_bytes(8, 'big') + data


def _file_in(folder, workdir):
    inside = workdir and workdir.resolve() in (folder.resolve(), *folder.resolve().parents)
    if inside:
        raise ValueError(
            f'{folder}: a secret in the folder of the run, {workdir}, which the server reads: '
            "keep it in the center's own"
        )
    return folder / FILE
