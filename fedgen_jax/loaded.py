"""A finished run's models, to be asked.

    run = fedgen_jax.load('RUN')
    run.centers                          # those that have a model
    model = run.model('NAME')            # a center's own
    model = run.model(images='FOLDER')   # of a new center, from its unlabelled images
    model('picture.png')                 # {'probability': [K]}, or a mask, or boxes
"""

import itertools
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.data.examples import Center, Examples, adapted_on
from fedgen_jax.data.folder import windows
from fedgen_jax.data.folder.headers import for_others
from fedgen_jax.data.folder.reading import Window
from fedgen_jax.data.inputs import (
    Listed,
    Picture,
    check_shallow,
    in_own_pixels,
    listed,
    of_array,
    read,
    window_of,
)
from fedgen_jax.evaluate import model_of
from fedgen_jax.files import expand, read_json
from fedgen_jax.guard import reopened
from fedgen_jax.kept import file_of, names_kept, read_model, why_not_kept
from fedgen_jax.own import own_model
from fedgen_jax.program import Program
from fedgen_jax.registry import choose
from fedgen_jax.run import Restored, Trained, after_training, reopen, restore
from fedgen_jax.statistics import read_statistics

CHUNK = 64  # pictures in memory at a time


class Model(NamedTuple):
    """A center's finished model, to be called with images.

    center:  '' of one that was made from images alone.
    kind:    'refined', 'finetuned' or 'local_only' (`run.CHOICES`).
    classes: in the order of their numbers.
    size:    S, of the square that images are padded to and resized to, as in training.
    window:  what is black and white of deep gray files; None: their own scales hold.
    blind:   why deep gray files cannot be read as in training; '' where they can.
    """

    center: str
    kind: str
    classes: tuple[str, ...]
    size: int
    program: Program
    variables: Any
    window: Window | None = None
    blind: str = ''

    def __call__(self, images: Any) -> Any:
        """Predictions, in the images' own pixels.

        Args:
          images: uint8 [H, W, 3], or [N, H, W, 3]; or the path of a file (a volume's slices are
              many), a folder or a glob, as `data.inputs.listed` takes them.

        Returns:
          Of classification {'probability': [K]}, of segmentation {'mask': uint8 [H, W]}, of
          detection {'box': [M, 4] (y0, x0, y1, x1), 'score': [M], 'box_class': [M]}.  Of N images
          each leads with N.  Of a path a dict, {image: predictions}.
        """
        if isinstance(images, str | os.PathLike):
            pictures = self.read(listed(images))
            return {picture.name: found for picture, found in self.ask(pictures)}
        x = np.asarray(images)
        if x.ndim == 4:
            if not len(x):
                raise ValueError('images: none: at least one')
            each = [found for _, found in self.ask(of_array(one, self.size) for one in x)]
            return jax.tree.map(lambda *y: np.stack(y), *each)
        return next(self.ask([of_array(x, self.size)]))[1]

    def read(
        self, pictures: Sequence[Listed], unread: list[str] | None = None
    ) -> Iterator[Picture]:
        """Reads files as the model's training did; unread: as of `data.inputs.read`.

        Raises ValueError where it cannot.
        """
        if self.blind:
            check_shallow(pictures, self.blind)
        return read(pictures, self.size, self.window, unread)

    def ask(self, pictures: Iterable[Picture]) -> Iterator[tuple[Picture, Any]]:
        """Each picture, and what the model says of it in its own pixels."""
        pictures = iter(pictures)
        while part := list(itertools.islice(pictures, CHUNK)):
            squares_NxSxSx3 = np.stack([picture.square for picture in part])
            said = self.program.predict(self.variables, squares_NxSxSx3)
            for i, picture in enumerate(part):
                found = jax.tree.map(lambda x, i=i: x[i], said)
                yield picture, in_own_pixels(found, picture.frame)


class Loaded(NamedTuple):
    """A finished run.

    centers: that have a model: those that trained, and those that joined since.
    done:    what the run's folder tells: its program, weights, classes, configuration.
    """

    workdir: pathlib.Path
    centers: tuple[str, ...]
    done: Restored

    @property
    def config(self) -> ConfigDict:
        return self.done.config

    @property
    def columns(self) -> str:
        """Which headers of tables stand for our columns, as in the run, if they are there."""
        return for_others(self.done.config.data.columns)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.done.classes

    @property
    def state(self) -> Any:
        """What the server holds: `algorithms.base.State`."""
        return self.done.state

    def model(
        self, center: str = '', images: Any = None, data: str | None = None,
        columns: str | None = None,
    ) -> Model:
        """A center's model.

        Args:
          center: one of `centers`; its model is read, or made from its images where the run's
              folder does not keep it.
          images: of a new center, unlabelled: uint8 [N, H, W, 3], or a folder, glob or files.  Its
              model is made from these.
          data: the folder that the run was trained on, if it has moved; read only where the
              center's model is not kept.
          columns: which headers of the table in `images` stand for our columns; None: as in the
              run.

        Raises ValueError, in one line.
        """
        if images is not None:
            if center in self.centers:
                raise ValueError(f'{center!r} has a model: name the center, or pass images, not '
                                 'both (launch.onboard --update: its images have changed)')
            return self._new(center, images, columns)
        choose('center', center, self.centers)
        done, file = self.done, file_of(self.workdir, center)
        if not file.is_file():
            return self._anew(center, data)
        kept = read_model(file, done.program.input, done.reference)
        if kept.round != done.round:
            raise ValueError(
                f'{file}: made at round {kept.round}, and the run has reached {done.round}: '
                + ('let launch.train finish' if kept.made == 'training' else
                   f'onboard {center!r} again')
            )
        return self._model(center, kept.kind, kept.variables, kept.window)

    def _model(self, center: str, kind: str, variables: Any, window: str) -> Model:
        """A model whose deep gray files are read as its center's were, in the window `window`."""
        text = window or self.config.data.window
        blind = 'data.window=center: its model was not made from such files, so that none says ' \
            'which values are black and white: pass arrays, or images= (--data=) of the center'
        return Model(
            center, kind, self.classes, self.config.data.image_size, self.done.program, variables,
            windows.parse(text), blind if text == 'center' else '',
        )

    def _anew(self, center: str, data: str | None) -> Model:
        """A center's model of its training images, where the folder does not keep it."""
        if center not in self.done.seen:
            raise ValueError(
                f'{self.workdir}: keeps no model of {center!r}, for '
                f'{why_not_kept(self.config) or "its file is gone"}: pass its images (images=, '
                '--data=)'
            )
        if self.config.data.source == 'folder' and not (data or self.config.data.root):
            raise ValueError(
                f'{center}: of a deployed run, whose centers keep their models themselves '
                '(launch.predict --workdir=SITE/model there)'
            )
        done, run = reopen(self.workdir, data)
        run = reopened(run, self.workdir, done.round)
        trained = after_training(run, done.state, done.private_C)
        kind = chosen_of(self.workdir).get(center, 'refined')
        i = self.done.seen.index(center)
        return self._model(center, kind, own_model(trained, i, kind), run.seen[i].window)

    def _new(self, center: str, images: Any, columns: str | None) -> Model:
        """A stranger's model, from its unlabelled images."""
        done = self.done
        if not done.program.algorithm.server_model:
            raise ValueError(
                f'{self.workdir}: {done.program.algorithm.title} has no model for a new center: '
                f'name one of {", ".join(self.centers)}'
            )
        size, text = self.config.data.image_size, self.config.data.window
        if _are_paths(images):
            pictures = listed(images, self.columns if columns is None else columns)
            window = window_of(text, pictures)
            found = [picture.square for picture in read(pictures, size, window)]
        else:
            window, found = None, [of_array(x, size).square for x in images]
        if not found:
            raise ValueError('images: none: a new center needs some to make its model from')
        examples = Examples(np.stack(found), {}, np.ones(len(found), np.float32))
        variables = model_of(stranger(done, len(found)), examples)
        return self._model(center, 'refined', jax.device_get(variables), windows.text_of(window))


def unfinished(workdir: pathlib.Path, done: int, rounds: int) -> str:
    """What is told where a run's models are asked for before its end."""
    return f'{workdir}: after {done} of {rounds} rounds: launch.train goes on with it'


def load(workdir: str | pathlib.Path) -> Loaded:
    """A finished run, from its folder alone.  Raises ValueError where it is none.

    Of one that was stopped before its end the last checkpoint counts, with a warning.
    """
    workdir = expand(workdir)
    done = restore(workdir)
    if done.round < done.config.rounds:
        warnings.warn(unfinished(workdir, done.round, done.config.rounds), stacklevel=2)
    names = list(done.seen)
    if done.program.describe and (workdir / 'statistics' / 'pooled.json').is_file():
        names = list(read_statistics(workdir).own)  # some may have joined, and some left
    kept = [name for name in names_kept(workdir) if name not in names]
    return Loaded(workdir, (*names, *kept), done)


def asked_model(
    run: Loaded, center: str | None, data: str | None, columns: str | None = None
) -> Model:
    """The model that a command asks for: a center's, or that of a new center's images in `data`.

    columns: as of `Loaded.model`.

    Raises ValueError unless it is one of the two, or where `data` lists several centers.
    """
    if bool(center) == bool(data):
        raise ValueError('pass --center=NAME, or --data=FOLDER of a new center: one of the two')
    if not data:
        return run.model(center or '')
    pictures = listed(data, run.columns if columns is None else columns)
    centers = sorted({x.center for x in pictures})
    if len(centers) > 1:
        raise ValueError(
            f'{data}: holds {len(centers)} centers ({", ".join(centers)}): a folder for each'
        )
    return run.model(images=data, columns=columns)


def stranger(done: Restored, length: int) -> Trained:
    """The run as a new center of `length` images meets it."""
    key = jax.random.key(done.config.seed)
    return Trained(done.program, done.state.shared, None, (), (), length, key, done.reference)


def model_as_scored(
    workdir: pathlib.Path, trained: Trained, center: Center, client: int | None
) -> Any:
    """The variables of a center's model of a finished run: of a seen one what it chose.

    client: its number; None: a stranger.  What it chose is as the folder keeps it, or made again.
    """
    if client is None:
        return jax.device_get(model_of(trained, adapted_on(center), None))
    kind = chosen_of(workdir).get(center.name, 'refined')
    file, program = file_of(workdir, center.name), trained.program
    if file.is_file():
        kept = read_model(file, program.input, trained.reference)
        round_ = read_json(workdir / 'summary.json')['rounds']
        if (kept.kind, kept.made, kept.round) == (kind, 'training', round_):
            return kept.variables
    return own_model(trained, client, kind)


def chosen_of(workdir: pathlib.Path) -> dict[str, str]:
    """{seen center: which of its models it chose}, {} where there was no choice."""
    file = workdir / 'summary.json'
    if not file.is_file():
        return {}
    return read_json(file).get('own', {}).get('chosen', {})


def _are_paths(images: str | os.PathLike | Sequence) -> bool:
    one = images if isinstance(images, str | os.PathLike) else next(iter(images), None)
    return isinstance(one, str | os.PathLike)
