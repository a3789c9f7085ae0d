"""Files of a run: written whole or not at all, named after centers, and one process at a time."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import urllib.parse
import warnings
from collections.abc import Iterator
from typing import Any

from fedgen_jax.engine.processes import from_first, is_first
from fedgen_jax.interrupt import MayPass

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.lock'
_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


def expand(path: str | os.PathLike) -> pathlib.Path:
    """A path whose `~` stands for the home folder, as in a shell.

    Raises ValueError where there is no home folder to stand for.
    """
    text = os.path.expanduser(path)
    if text.startswith('~'):
        raise ValueError(f'{path}: no home folder is known for ~: write the whole path')
    return pathlib.Path(text)


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file whole or not at all; of many processes, the first alone writes."""
    if not is_first():
        return
    partial = path.with_name(f'{path.name}.partial')
    with _named(partial):
        partial.write_bytes(data)
    partial.rename(path)


def write_text(path: pathlib.Path, text: str) -> None:
    """The same of text."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
    """The same of a value as JSON."""
    write_text(path, json.dumps(value, indent=1, default=list) + '\n')


def read_json(path: pathlib.Path) -> Any:
    """A file of JSON.  Raises ValueError, which names it, where it is none or was cut."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f'{path}: not JSON, or cut ({error})') from None


def read_json_lines(path: pathlib.Path) -> list:
    """The same of a file with a value in each line."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise ValueError(f'{path}: a line is not JSON, or cut ({error})') from None


def write_first(path: pathlib.Path, value: Any) -> None:
    """Writes a value as JSON where no file is; of processes at once, one alone succeeds."""
    own = path.with_name(f'{path.name}.{os.getpid()}')
    with _named(own):
        own.write_text(json.dumps(value, indent=1) + '\n')
    with contextlib.suppress(FileExistsError):
        os.link(own, path)
    own.unlink()


def append_line(path: pathlib.Path, line: str) -> None:
    """Adds a line to a file; of many processes, the first alone does."""
    if is_first():
        with _named(path), open(path, 'a') as file:
            file.write(line + '\n')


@contextlib.contextmanager
def _named(path):
    """A full disk is told by the system without the file's name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_plain(name: str) -> bool:
    """Whether a name is a file's name on every disk, and no other plain name is the same file."""
    return re.fullmatch(r'[a-z0-9_-][a-z0-9_.-]{0,79}', name) is not None and name[-1] != '.'


def file_name(name: str) -> str:
    """A file's name for any text: no two texts have the same, on disks that ignore case too.

    A plain name is its own.  Another is readable in part, and ends in a hash of the whole.
    """
    if is_plain(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f'{urllib.parse.quote(name, safe="")[:80]}={digest}'  # quote leaves no '='


@contextlib.contextmanager
def alone_in(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a folder until the end, or until this process is dead.

    The processes of one run share it: the first of them asks for all, and all call this together.

    Raises MayPass where another run's process is at work there.
    """
    held, file = True, None
    try:
        if is_first():
            file = open(workdir / LOCK, 'a')  # noqa: SIM115
            held = _lock(file, workdir)
        if not from_first(held):
            raise MayPass(
                f'{workdir}: another process is at work in this folder: wait for its end, or name '
                'another workdir'
            )
        yield
    finally:
        if file:
            file.close()


def _lock(file, workdir) -> bool:
    """Whether this process holds the file now; the system lets go of it when the process ends."""
    try:
        if fcntl is None:
            raise OSError('this system has no flock')
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        warnings.warn(
            f'{workdir}: cannot be locked ({error}): start no second process in it', stacklevel=4
        )
    return True
