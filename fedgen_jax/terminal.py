"""What a run shows while it trains and scores: a bar where somebody looks on, else lines."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tqdm import tqdm

OFTEN = 10.0  # seconds between two lines of scoring, at least


class Display(NamedTuple):
    """What train tells, in the order of a run.

    compiling: (what, seconds of last time, or None).
    begin:     (first round, number of rounds).
    advance:   (rounds done, loss, or None of a private run).
    scored:    (rounds done, number of rounds, a line of metrics.jsonl).
    end:       ().
    scoring:   (what is scored from here on), after the rounds.
    """

    compiling: Callable
    begin: Callable
    advance: Callable
    scored: Callable
    end: Callable
    scoring: Callable


def silent(*_) -> None:
    """Tells nothing."""


@contextlib.contextmanager
def display(title: str, shown: bool) -> Iterator[Display]:
    """Tells of the run `title`, or nothing."""
    if not shown:
        yield Display(silent, silent, silent, silent, silent, silent)
        return
    with scoring(title) as score:
        yield (_bar if sys.stderr.isatty() else _lines)(title, score)


@contextlib.contextmanager
def scoring(title: str) -> Iterator[Callable[[str], None]]:
    """Yields what tells of each part of a scoring as it begins, as `display` does."""
    if not sys.stderr.isatty():
        told = [-OFTEN]

        def line(what):
            if time.monotonic() - told[-1] >= OFTEN:
                print(f'{title}: scoring {what} ...', flush=True)
                told.append(time.monotonic())

        yield line
        return
    with contextlib.ExitStack() as stack:
        bars: list[tqdm] = []

        def show(what):
            if not bars:
                form = '{desc} [{elapsed}]'
                bars.append(stack.enter_context(tqdm(bar_format=form, leave=False)))
            bars[0].set_description_str(f'{title}: scoring {what}')

        yield show


def _compiling(title, what, last):
    took = f' ({last:.0f} s last time)' if last else ''
    return f'{title}: compiling {what} ...{took}'


def _score(line) -> dict[str, float]:
    """The first metric of an evaluation, by its name; none where nothing could be scored."""
    return dict(list(line['seen']['mean'].items())[:1])


def _bar(title, score) -> Display:
    bar: list[tqdm] = []
    told: dict[str, str] = {}

    def compiling(what, last):
        if bar:
            bar[0].set_description_str(_compiling(title, what, last))
        else:
            print(_compiling(title, what, last), flush=True)

    def begin(first, rounds):
        bar.append(tqdm(total=rounds, initial=first, unit='round', desc=title))

    def advance(done, loss):
        bar[0].update(done - bar[0].n)
        show({} if loss is None else {'loss': loss})

    def scored(done, rounds, line):
        bar[0].set_description_str(title)
        show(_score(line))

    def show(values):
        told.update({name: f'{value:.3f}' for name, value in values.items()})
        bar[0].set_postfix(told)

    return Display(compiling, begin, advance, scored, lambda: bar[0].close(), score)


def _lines(title, score) -> Display:
    def scored(done, rounds, line):
        loss = {} if line['loss'] is None else {'loss': line['loss']}
        values = {**loss, **_score(line)}
        text = ', '.join(f'{name} {value:.3f}' for name, value in values.items())
        print(f'{title}; round {done} of {rounds}: {text}; {line["seconds"]:.0f} s', flush=True)

    def compiling(what, last):
        print(_compiling(title, what, last), flush=True)

    return Display(compiling, silent, silent, scored, silent, score)
