"""Sockets in a folder, between a process of this package and the one that reaches the network.

What reaches the network (`launch/flower`) can so run in an environment of its own, and at a
hospital as a user who may not read the images.  Who may connect, the folder's permissions say: it
must let that user in, and the socket is for its owner and its group.
"""

import contextlib
import errno
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Listener

from fedgen_jax.data.check import say
from fedgen_jax.deploy import Net
from fedgen_jax.files import alone_in
from fedgen_jax.interrupt import MayPass

SOCKET = 'net/socket'
LARGEST = 2**33  # bytes of a request
LONGEST = 100  # bytes of a socket's path, which systems bound


@contextlib.contextmanager
def listening(folder: pathlib.Path) -> Iterator[Listener]:
    """A socket in a folder, which is made if need be, until the end.

    Raises ValueError where its path is too long for one, MayPass where another process listens.
    """
    file = folder.absolute() / SOCKET
    if len(str(file).encode()) > LONGEST:
        raise ValueError(f'{file}: longer than {LONGEST} bytes, too long for a socket: shorten it')
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(folder.stat().st_mode & 0o2770 | 0o700)
    with alone_in(file.parent):
        file.unlink(missing_ok=True)  # of a process that was killed
        with Listener(str(file), 'AF_UNIX') as listener:
            file.chmod(0o660)
            yield listener


def answer_all(listener: Listener, answer: Callable[[bytes], bytes]) -> None:
    """Answers requests one after another, until the listener is closed."""
    # A size that cannot be, which who connects may state, ends that connection alone.
    ended = (EOFError, OSError, MemoryError, OverflowError)
    while True:
        try:
            pipe = listener.accept()
        except OSError as error:
            if error.errno in (None, errno.EBADF, errno.EINVAL):  # closed: none will ever connect
                return
            time.sleep(0.1)  # too many files are open, say: it may pass
            continue
        with contextlib.suppress(*ended), pipe:
            pipe.send_bytes(answer(pipe.recv_bytes(LARGEST)))


def net_over(pipe: Connection) -> Net:
    """A `Net` whose requests the process at the other end carries (`fedgen_flower.carry`).

    Its functions raise MayPass where that process has ended.
    """

    def nodes():
        with _met():
            pipe.send_bytes(b'null')
            return json.loads(pipe.recv_bytes())

    def ask(requests):
        with _met():
            pipe.send_bytes(json.dumps(list(requests)).encode())
            for data in requests.values():
                pipe.send_bytes(data)
            replied, errors = json.loads(pipe.recv_bytes())
            replies = {int(node): pipe.recv_bytes() for node in replied}
        for node, reason in errors.items():
            say(f'node {node}: {reason}')
        return replies

    return Net(nodes, ask)


@contextlib.contextmanager
def _met():
    try:
        yield
    except (EOFError, OSError) as error:
        raise MayPass('the network was lost (the run of Flower ended): run both again') from error
