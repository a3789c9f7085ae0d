"""The small private run of `private`, for the tests here."""

from private import cells, finished, run

__all__ = ['cells', 'finished', 'run']
