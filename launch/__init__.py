"""The commands, python -m launch.NAME: what all need before anything heavy is imported."""

import os
import signal
import sys

if sys.argv[:1] == ['-m']:  # a command begins; else somebody imports a part of one
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA tells of its work below that
    # Python's own handler of Ctrl-C raises anywhere, also within a compilation.  What saves listens
    # by itself; all else ends at once.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
