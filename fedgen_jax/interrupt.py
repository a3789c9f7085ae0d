"""What ends a run early: SIGTERM and Ctrl-C, what may pass, and a run that went wrong."""

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator

AGAIN = b'stopping after this round; Ctrl-C again ends at once\n'


class MayPass(OSError):
    """A full disk, or processes that do not meet: run again, and it may work."""


class Stopped(Exception):
    """The run was told to stop, and has saved where it was."""


class Failed(ValueError):
    """The run itself went wrong, in training or in scoring."""


def disk_is_full(error: BaseException) -> bool:
    """Whether there was no room to write, so that nothing else can be written either."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _end(exit_code):
    told = 'stopped unsaved: the last checkpoint stands, if there is one; run again to go on\n'
    os.write(2, told.encode())
    os._exit(exit_code or 1)


@contextlib.contextmanager
def told_to_stop(exit_code: int = 0, grace: float = 25.0) -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; `grace` seconds later the process ends (`exit_code`).

    Whoever sees it in time saves; else, as in a long compilation, the last checkpoint stands, and
    an exit code of 0 is 1.  A second Ctrl-C ends the process at once.

    A thread listens, for Python's own handlers wait until a compilation is over.  Outside the main
    thread the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    near, far = socket.socketpair()
    far.setblocking(False)
    ends: list[threading.Timer] = []
    # What is ignored, as in the background of a script, stays ignored.
    heard = [s for s in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(s) != signal.SIG_IGN]

    def listen():
        for (number,) in iter(lambda: near.recv(1), b''):
            if number == signal.SIGINT and event.is_set():
                _end(exit_code)
            elif number in heard and not event.is_set():
                event.set()
                ends.append(threading.Timer(grace, _end, [exit_code]))
                ends[-1].daemon = True
                ends[-1].start()
                if number == signal.SIGINT and os.isatty(2):
                    os.write(2, AGAIN)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    handlers = {s: signal.signal(s, lambda *_: None) for s in heard}
    wakeup = signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
    try:
        yield event
    finally:
        signal.set_wakeup_fd(wakeup)
        for s, handler in handlers.items():
            signal.signal(s, handler)
        far.close()  # ends the listener
        listener.join()
        near.close()
        for end in ends:  # what was asked to stop is over
            end.cancel()
