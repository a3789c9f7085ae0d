"""What an audit is given, and what it tells."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedgen_jax import guard
from fedgen_jax.algorithms import pools
from fedgen_jax.algorithms.local import Local
from fedgen_jax.files import expand
from fedgen_jax.program import make_algorithm, seen_size
from fedgen_jax.run import Run, Trained, after_training, reopen


class Subject(NamedTuple):
    """A finished run with its images: what an auditor has, and more than most attackers do.

    local: how its clients learn.
    """

    workdir: pathlib.Path
    run: Run
    trained: Trained
    local: Local


class Picture(NamedTuple):
    """A picture uint8 [H, W, 3] with what it is."""

    image: np.ndarray
    caption: str


class Curve(NamedTuple):
    """A line of a figure: points (x, y), arrays of one length."""

    name: str
    x: Any
    y: Any


class Finding(NamedTuple):
    """What an audit found; all texts are for readers who are no programmers.

    asked:    the question.  answer: what was found, with its numbers.
    control:  what had to come out the other way, and how it came out.
    holds:    whether it did; None: there was no control, because there was no audit.
    head, rows: a table.
    numbers:  the same for programs, as JSON.
    missing:  what could not be done for this run, a line; '' if all could.
    """

    title: str
    asked: str
    answer: str = ''
    control: str = ''
    holds: bool | None = None
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numbers: Mapping[str, Any] = {}
    missing: str = ''
    pictures: Sequence[Picture] = ()
    curves: Sequence[Curve] = ()


def subject_of(workdir: str | pathlib.Path, data: str | None = None) -> Subject:
    """A finished run from its folder.

    Raises ValueError where there is none, or its data are others.
    """
    done, run = reopen(workdir, data)
    if done.round < done.config.rounds:
        raise ValueError(
            f'{workdir}: has {done.round} of {done.config.rounds} rounds: let launch.train finish'
        )
    run, c = guard.reopened(run, expand(workdir), done.round), run.config
    if pools(c.algorithm):
        raise ValueError(
            f'{workdir}: algorithm={c.algorithm!r} has all images in one place, and an audit is of '
            'what leaves a center: name a run of another'
        )
    local = make_algorithm(c, seen_size(c), run.classes, len(run.seen))[1]
    trained = after_training(run, done.state, done.private_C)
    return Subject(expand(workdir), run, trained, local)


def told(value: float) -> str:
    """A number in three digits."""
    return f'{value:.1e}' if value and abs(value) < 1e-3 else f'{value:.3g}'
