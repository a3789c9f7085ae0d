"""What a center answers, from its own folder: what leaves it is the reply, and nothing else.

    FOLDER/private/RUN/ROUND.msgpack   its private state after a round, of a method that keeps one
    FOLDER/private/RUN/images.json     what it trained on first, as a hash
    FOLDER/model/                      its own model after training, or since it joined (`handed`)

It learns by the functions of the simulation: `engine.rounds.round_of_clients` of one client, whose
number and draws are those that it has there.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import State
from fedgen_jax.canonical.centers import moments_of
from fedgen_jax.data.examples import SPLITS, Center, of_split, stack
from fedgen_jax.data.source import load
from fedgen_jax.data.targets import target_of
from fedgen_jax.deploy import secured
from fedgen_jax.deploy.handed import hand_over
from fedgen_jax.deploy.learner import first_private, learner, shapes_of_one, shapes_sent
from fedgen_jax.deploy.terms import Refused, check_deployable, check_terms, read_config
from fedgen_jax.deploy.wire import (
    from_statistic,
    pack,
    tree_from_bytes,
    tree_to_bytes,
    unpack,
)
from fedgen_jax.evaluate import model_of, score_seen, score_stranger, statistic_of
from fedgen_jax.federation import content_of
from fedgen_jax.feed import training_examples
from fedgen_jax.files import file_name, read_json, write_bytes, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.named import make_task
from fedgen_jax.plan import room
from fedgen_jax.program import build
from fedgen_jax.resolution import is_own, resolution_of
from fedgen_jax.run import Run, Trained

WISHES = ('', 'join', 'update', 'leave')


class Site(NamedTuple):
    """A center's own.

    config: the file of the settings that all agreed on.
    data:   its folder of images, as `launch.train` reads it, with one center.
    folder: where its private state and its model lie.
    wish:   of `WISHES`, what it asks the server of a trained run for.
    scores: whether the server hears how good its model is on its images.
    identities: the file that names all centers' identities, for sums under masks.
    columns: which headers of its table stand for our columns; None: as in the settings.
    """

    config: pathlib.Path
    data: pathlib.Path
    folder: pathlib.Path
    wish: str = ''
    scores: bool = True
    identities: pathlib.Path | None = None
    columns: str | None = None


def answer(site: Site, request: bytes) -> bytes:
    """The reply to a server's request.

    What goes wrong with the center's own files is told here, on stderr: its text may name rows and
    patients, so the server hears only that something did.  Nothing that a server sends, and no
    mistake of ours, ends a center.
    """
    try:
        asked = unpack(request)
        name = str(asked.get('action'))
        if name not in ACTIONS:
            raise Refused(f'there is no action {name!r}')
        wishes = site.wish in ('join', 'update') if name == 'join' else not site.wish
        if name != 'hello' and not wishes:
            raise Refused(f'it came to {site.wish or "train"}: no {name!r}')
        return pack(ACTIONS[name](site, asked))
    except Refused as error:
        told = str(error)
    except Exception as error:
        kind = '' if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: '
        print(f'error: {kind}{" ".join(str(error).split())}', file=sys.stderr, flush=True)
        told = 'something is wrong at the center, whose own log tells what'
    return pack({'error': told})


def hello(site: Site, asked: dict) -> dict:
    """Who is here.

    {'name', 'wish', 'images', 'train': how many, 'scored': whether some can be, 'classes',
     'arrays': {target: [shape, type]} of one image}.
    """
    config, classes, center = images_of(site, asked)
    target, split = center.examples.target, SPLITS.index(config.score_on)
    known = target_of(make_task(config.task, ()).target).known(target)
    return {
        'name': center.name,
        'wish': site.wish,
        'images': len(center.split),
        'train': int((center.split == SPLITS.index('train')).sum()),
        'scored': bool(np.any(known & (center.split == split))),
        'classes': list(classes),
        'arrays': {k: [list(x.shape[1:]), str(x.dtype)] for k, x in target.items()},
    }


def moments(site: Site, asked: dict) -> dict:
    """The additive moments of its training images, of which the reference is the mean."""
    run = opened(site, asked)
    made, examples = run.program.input, of_split(run.seen[0], 'train')
    assert made  # the server asks of a canonical input alone
    own = descriptor.statistic(moments_of(made, examples), examples.weight, 'moments')
    return {'statistic': from_statistic(made.release(own))}


def one_round(site: Site, asked: dict) -> dict:
    """Its message of a round: {'message'}; without finite numbers it says so, and is zeros.

    With sums under masks {'advert'} instead: the message waits here (`secured.begin`).
    """
    run = opened(site, asked)
    # A whole number alone: 0.0 draws as 0 does, and would name another sum of the same message.
    if type(asked['round']) is not int or asked['round'] not in range(run.config.rounds):
        raise Refused(f'round {asked["round"]!r}: there are {run.config.rounds}')
    state, id_1 = state_of(run, asked['state']), np.array([asked['number']], np.int32)
    private_1 = own_state(site, run, asked)
    data_1 = stack([training_examples(run, 0)], run.length)
    message, left, private_1 = learner(run.program)(
        state, private_1, data_1, id_1, run.key, np.int32(asked['round'])
    )
    if run.program.algorithm.keeps and not left:
        _keep(site, asked, tree_to_bytes(private_1))
    if not run.program.secure:
        return {'message': tree_to_bytes(message)}
    sent, name = (state.shared, state.protection), run.seen[0].name
    listed = secured.read_identities(site.identities)
    message = jax.device_get(message)
    return secured.begin(site.folder, listed, name, run.program.secure, asked, sent, message)


def in_sum(site: Site, asked: dict) -> dict:
    """The next of its messages in a sum under masks."""
    return secured.proceed(site.folder, asked)


def score(site: Site, asked: dict) -> dict:
    """{'scores'} of its model on its own images of a split; {} where it keeps them to itself."""
    if not site.scores:
        return {}
    trained = trained_of(site, opened(site, asked), asked)
    return {'scores': json.dumps(_own_scores(trained, asked['split']))}


def finish(site: Site, asked: dict) -> dict:
    """Makes and keeps its model; {'statistic'}, its additive one, {'scores'}, {'resolution'}."""
    run = opened(site, asked)
    trained, train = trained_of(site, run, asked), of_split(run.seen[0], 'train')
    reply: dict[str, Any] = {}
    if site.scores:
        reply = _at_the_end(run, trained, lambda done: _own_scores(done, asked['split']))
    model = jax.device_get(model_of(trained, train, 0))
    hand_over(
        site.folder / 'model', run, trained, model, 'training', site.data, asked['clients']
    )
    if run.program.describe:
        reply['statistic'] = from_statistic(statistic_of(trained, train))
    return reply


def join(site: Site, asked: dict) -> dict:
    """As a stranger to a trained run: makes its model from unlabelled images; as `finish`.

    One forward pass: its images stay, and its additive statistic alone is sent.
    """
    run = opened(site, asked)
    center, shared = run.seen[0], state_of(run, asked['state']).shared
    trained = Trained(
        run.program, shared, None, (), (), len(center.split), run.key, run.reference
    )
    statistic = statistic_of(trained, center.examples)
    variables = model_of(trained, center.examples, m_E=descriptor.mean(statistic))
    hand_over(
        site.folder / 'model', run, trained, jax.device_get(variables), 'onboard', site.data,
        asked['clients'],
    )
    reply: dict[str, Any] = {'statistic': from_statistic(statistic)}
    known = target_of(run.program.task.target).known(center.examples.target)
    if site.scores and np.any(known):
        reply |= _at_the_end(run, trained, lambda done: score_stranger(done, center, 'test'))
    return reply


ACTIONS: dict[str, Callable[[Site, dict], dict]] = {
    'hello': hello, 'moments': moments, 'round': one_round, 'sum': in_sum, 'score': score,
    'finish': finish, 'join': join,
}


def images_of(site: Site, asked: dict) -> tuple[ConfigDict, tuple[str, ...], Center]:
    """(settings, classes, the center with its images).

    Raises Refused where its settings are not the server's, ValueError where its folder is wrong.
    """
    config = read_config(site.config)
    check_terms(config, json.loads(asked['terms']))
    classes, center = read_images(site, config, asked['classes'])
    return config, classes, center


def check_site(site: Site) -> str:
    """The center's name; ValueError where its settings or its folder are wrong."""
    config = read_config(site.config)
    check_deployable(config)
    name = read_images(site, config, ())[1].name
    if config.secure.on and not site.wish:
        secured.check_listed(site.folder, secured.read_identities(site.identities), name)
    return name


def read_images(
    site: Site, config: ConfigDict, classes: Sequence[str]
) -> tuple[tuple[str, ...], Center]:
    """(classes, the center); classes: those of the run, () where they are not known yet."""
    source = load(
        site.data, config.data.image_size, config.seed, config.data.cache or None,
        classes or None, require_train=not site.wish,
        target=make_task(config.task, ()).target, images=config.data.images,
        columns=config.data.columns if site.columns is None else site.columns,
        window=config.data.window,
    )
    if len(source.centers) != 1:
        names = ', '.join(c.name for c in source.centers)
        raise ValueError(f'{site.data}: holds {names}: a center deploys its own images alone')
    return source.classes, source.centers[0]


def opened(site: Site, asked: dict) -> Run:
    """The center's part of a run: its images, and the program of all of the run's clients."""
    config, classes, center = images_of(site, asked)
    if asked['center'] != center.name:
        raise Refused(f'it is {center.name!r}, and {asked["center"]!r} was asked')
    if not site.wish:
        check_images(site, asked, center)
    most = room() * 2**20 / (3 * config.data.image_size**2)
    if asked['length'] > most:  # of the largest center; a client has room for as many
        raise Refused(
            f'a center of the run states {asked["length"]} images, and {most:.0f} have room here'
        )
    program = build(config, classes, asked['clients'])
    reference = asked['reference']
    return Run(
        config, classes, program, (center,), (), asked['length'], jax.random.key(config.seed),
        reference=None if reference is None else np.asarray(reference, np.float32),
    )


def check_images(site: Site, asked: dict, center: Center) -> None:
    """Raises Refused where a run's rounds began with other images, targets or splits."""
    file, now = _private(site, asked) / 'images.json', {'content': content_of(center)}
    if not file.is_file():
        _make_private(file.parent)
        write_json(file, now)
    elif read_json(file) != now:
        raise Refused('its images, targets or splits are not those that it began this run with: '
                      'bring them back, or train in another --workdir')


def state_of(run: Run, data: bytes) -> State:
    """What the server sent."""
    shared, protection = tree_from_bytes(shapes_sent(run.program), data, "the server's state")
    return State(shared, (), protection)


def trained_of(site: Site, run: Run, asked: dict) -> Trained:
    """The center's part of a run after rounds."""
    state = state_of(run, asked['state'])
    private_1 = jax.device_get(own_state(site, run, asked))
    return Trained(
        run.program, state.shared, private_1, run.seen, (), run.length, run.key, run.reference
    )


def own_state(site: Site, run: Run, asked: dict) -> Any:
    """Its private state [1, ...], of the last round in which its message counted.

    asked['since']: the number of rounds by then; None: it has taken part in none, and begins with
        the run's first state, whatever the rounds since have made of it.
    """
    if asked['since'] is None or not run.program.algorithm.keeps:
        return first_private(run.program, run.config.seed, asked['number'])
    like_1 = shapes_of_one(run.program)[1]
    file = _private(site, asked) / f'{int(asked["since"])}.msgpack'
    if not file.is_file():
        raise Refused(f"the center's private state after round {asked['since']} is lost")
    return tree_from_bytes(like_1, file.read_bytes(), 'the private state')


def _own_scores(trained: Trained, split: str) -> dict:
    (scores,) = score_seen(trained, split)['centers'].values()
    return scores


def _at_the_end(run: Run, trained: Trained, scored: Callable[[Trained], dict]) -> dict[str, str]:
    """{'scores'} as a simulated run's summary has them, and of masks {'resolution'}, their size."""
    resolution = resolution_of(run.config, run.program.task, run.seen)
    reply = {'scores': json.dumps(scored(trained._replace(own_size=is_own(resolution))))}
    return {**reply, 'resolution': json.dumps(resolution)} if resolution else reply


def _private(site, asked):
    return site.folder / 'private' / file_name(asked['run'])


def _keep(site, asked, data):
    """Writes the state after this round; those that no server may ask for again go."""
    folder = _private(site, asked)
    _make_private(folder)
    write_bytes(folder / f'{asked["round"] + 1}.msgpack', data)
    needed = {asked['since'], *asked['saved'], asked['round'] + 1}
    for file in folder.glob('*.msgpack'):
        if int(file.stem) not in needed:
            file.unlink()


def _make_private(folder):
    """For its owner alone, as the secret beside it: a private state tells of images."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
