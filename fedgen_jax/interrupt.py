"""What ends a run early: SIGTERM, as schedulers send it, and failures that may pass."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator


class MayPass(OSError):
    """A full disk, or processes that do not meet: run again, and it may work."""


class Stopped(Exception):
    """The run was told to stop, and has saved where it was."""


def _end(exit_code):
    os.write(2, b'stopped unsaved: the last checkpoint stands; run again to go on\n')
    os._exit(exit_code)


@contextlib.contextmanager
def sigterm(exit_code: int = 0, grace: float = 25.0) -> Iterator[threading.Event]:
    """An event that SIGTERM sets; `grace` seconds later the process ends with `exit_code`.

    Whoever sees it in time saves; else, as in a long compilation, the last checkpoint stands.

    A thread listens, for Python's own handlers wait until a compilation is over.  Outside the main
    thread the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    near, far = socket.socketpair()
    far.setblocking(False)

    def listen():
        for byte in iter(lambda: near.recv(1), b''):
            if byte[0] == signal.SIGTERM:
                event.set()
                end = threading.Timer(grace, _end, [exit_code])
                end.daemon = True
                end.start()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    wakeup = signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
    try:
        yield event
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        far.close()  # ends the listener
        listener.join()
        near.close()
