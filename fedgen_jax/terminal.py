"""What a run shows while it trains: a bar where somebody looks on, else a line an evaluation."""

import sys
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm


class Display(NamedTuple):
    """What train tells, in the order of a run.

    compiling: (seconds of last time, or None).
    begin:     (first round, number of rounds).
    advance:   (rounds done, loss, or None of a private run).
    scored:    (rounds done, number of rounds, a line of metrics.jsonl).
    end:       ().
    """

    compiling: Callable
    begin: Callable
    advance: Callable
    scored: Callable
    end: Callable


def display(title: str, shown: bool) -> Display:
    """Tells of the run `title`, or nothing."""
    if not shown:
        silent = lambda *_: None  # noqa: E731
        return Display(silent, silent, silent, silent, silent)
    return _bar(title) if sys.stderr.isatty() else _lines(title)


def _compiling(title, last):
    took = f' ({last:.0f} s last time)' if last else ''
    print(f'{title}: compiling ...{took}', flush=True)


def _score(line) -> dict[str, float]:
    """The first metric of an evaluation, by its name; none where nothing could be scored."""
    return dict(list(line['seen']['mean'].items())[:1])


def _bar(title) -> Display:
    bar, told = [], {}

    def begin(first, rounds):
        bar.append(tqdm(total=rounds, initial=first, unit='round', desc=title))

    def advance(done, loss):
        bar[0].update(done - bar[0].n)
        show({} if loss is None else {'loss': loss})

    def show(values):
        told.update({name: f'{value:.3f}' for name, value in values.items()})
        bar[0].set_postfix(told)

    return Display(
        lambda last: _compiling(title, last), begin, advance,
        lambda done, rounds, line: show(_score(line)), lambda: bar[0].close(),
    )


def _lines(title) -> Display:
    def scored(done, rounds, line):
        loss = {} if line['loss'] is None else {'loss': line['loss']}
        values = {**loss, **_score(line)}
        text = ', '.join(f'{name} {value:.3f}' for name, value in values.items())
        print(f'{title}; round {done} of {rounds}: {text}; {line["seconds"]:.0f} s', flush=True)

    silent = lambda *_: None  # noqa: E731
    return Display(lambda last: _compiling(title, last), silent, silent, scored, silent)
