"""The commands, python -m launch.NAME: what all need before anything heavy is imported."""

import os
import signal
import sys

if sys.argv[:1] == ['-m']:  # a command begins; else somebody imports a part of one
    # XLA's own errors reach us as exceptions; it also logs one where compiling takes two minutes.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    # Python's own handler of Ctrl-C raises anywhere, also within a compilation.  What saves listens
    # by itself; all else ends at once.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
