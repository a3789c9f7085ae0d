"""A deployed run at its server, before its rounds: who takes part, and what all begin with."""

import json
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.canonical import mean_moments
from fedgen_jax.deploy import Net
from fedgen_jax.deploy.collect import blank_examples, shapes_of_messages
from fedgen_jax.deploy.meeting import Found, Hello, ask, nodes_of
from fedgen_jax.deploy.wire import pack, to_statistic
from fedgen_jax.federation import other_data, other_names
from fedgen_jax.files import read_json, write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.interrupt import Failed
from fedgen_jax.privacy import Message
from fedgen_jax.program import Program, build, seen_size
from fedgen_jax.run import Run, read_federation, read_reference, reference_images, write_reference

FILE = 'deployed.json'


class Deployed(NamedTuple):
    """A deployed run at its server.

    run:    as of the simulation, without images.
    names:  of the centers, sorted; a center's number is its place.
    terms:  the settings that all must share, as text.
    token:  the run's name at the centers.
    shapes: of a message.
    listed: {center: its identity}, where sums are taken under masks; else {}.
    """

    run: Run
    names: tuple[str, ...]
    terms: str
    token: str
    net: Net
    shapes: Message
    listed: Mapping[str, bytes] = {}


def deployed(
    config: ConfigDict, workdir: pathlib.Path, names: Sequence[str], net: Net, terms: str,
    found: Found,
) -> Deployed:
    """The run of centers that have been met, whose files in `workdir` are written.

    Raises ValueError where `workdir` has other centers or data, Failed where a center's moments,
    which the canonical input needs, are not there.
    """
    hellos = {h.name: h for h in found.values() if isinstance(h, Hello)}
    hellos = {name: hellos[name] for name in sorted(names)}
    classes = classes_of(hellos)
    if not any(h.scored for h in hellos.values()):
        raise ValueError(
            f'no center has an image of the {config.score_on} split whose target is known, so '
            f'nothing could be scored: write {config.score_on} in some rows of a table'
        )
    program = build(config, classes, len(hellos))
    length = max(h.images for h in hellos.values())
    run = Run(config, classes, program, (), (), length, jax.random.key(config.seed))
    token = _token(workdir)
    done = Deployed(run, tuple(hellos), terms, token, net, Message((), ()))
    _check_federation(done, hellos, workdir)
    if program.input:
        known = read_reference(workdir)  # of the rounds that are done
        reference = _reference(done, found) if known is None else known
        done = done._replace(run=run._replace(reference=reference))
    write_json(workdir / 'config.json', config.to_dict())
    write_reference(workdir, done.run)
    arrays = dict(next(iter(hellos.values())).arrays)
    if 'labels' in arrays:  # one a class, and a center may have but some
        arrays['labels'] = [[len(classes)], arrays['labels'][1]]
    try:
        blank = blank_examples(arrays, config.data.image_size)
        shapes = shapes_of_messages(program, blank, length, done.run.reference)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{done.names[0]}: what it tells of its targets ({", ".join(arrays) or "none"}) does '
            f'not fit task={config.task!r}: look at its table'
        ) from error
    return done._replace(shapes=shapes)


def classes_of(hellos: Mapping[str, Hello]) -> tuple[str, ...]:
    """The classes of all centers, as one folder of all of them would have them.

    Raises ValueError where they have orders of their own that differ, or masks, whose numbers are
    places in the list.
    """
    lists = {h.classes for h in hellos.values()}
    if len(lists) == 1:
        return lists.pop()
    masks = any('mask' in h.arrays for h in hellos.values())
    if masks or any(list(x) != sorted(x) for x in lists):
        told = '; '.join(f'{h.name}: {", ".join(h.classes)}' for h in hellos.values())
        raise ValueError(f'the centers have other classes ({told}): give all one classes.json')
    return tuple(sorted(set().union(*lists)))


def request(done: Deployed, action: str, center: str, **more: Any) -> bytes:
    """A request to the center of this name, which tells all that it needs for it."""
    return pack({
        'action': action, 'center': center, 'terms': done.terms, 'classes': list(done.run.classes),
        'clients': len(done.names), 'length': done.run.length, 'reference': done.run.reference,
        'run': done.token, **more,
    })


def ask_centers(
    done: Deployed, found: Found, requests: Mapping[str, bytes]
) -> dict[str, dict]:
    """{center: its reply, or {'error': why}}, in the order of the requests."""
    nodes = nodes_of(found)
    replies = ask(done.net, {nodes[n]: data for n, data in requests.items() if n in nodes})
    away = {'error': 'it is not connected'}
    return {n: replies[nodes[n]] if n in nodes else away for n in requests}


def statistic_in(reply: dict, name: str, length: int, psi: str) -> Statistic:
    """A center's additive statistic [length]; Failed where there is none."""
    try:
        if 'error' in reply:
            raise ValueError(reply['error'])
        return to_statistic(reply.get('statistic') or {}, length, psi)
    except ValueError as error:
        raise Failed(f'{name}: {error}: once it is right, run again to go on') from error


def told_in(replies: Mapping[str, dict], key: str = 'scores') -> dict[str, dict]:
    """{center: its scores, or what else stands under a key as JSON} of those who told it.

    A value that holds NaN or infinity is not told.
    """
    told = {}
    for name, reply in replies.items():
        try:
            value = json.loads(reply.get(key) or 'null')
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            told[name] = value
    return told


def descriptor_of(program: Program, shared: Any, c: ConfigDict) -> tuple[int, str]:
    """(the length of a statistic, the hash of the network that makes it)."""
    assert program.describe
    image = blank_examples({}, seen_size(c)).image
    return program.describe(shared, image).shape[1], descriptor.hash_of(shared['psi'])


def _reference(done: Deployed, found: Found) -> np.ndarray:
    """The mean moments [M] of all training images, or of drawn smears."""
    c, made = done.run.config, done.run.program.input
    assert made
    if c.input.reference == 'drawn':
        return mean_moments(made, reference_images(c, ()))
    replies = ask_centers(done, found, {n: request(done, 'moments', n) for n in done.names})
    length = made.moments(blank_examples({}, c.data.image_size).image).shape[1]
    return descriptor.mean(descriptor.pool(
        statistic_in(reply, name, length, 'moments') for name, reply in replies.items()
    ))


def _token(workdir):
    file = workdir / FILE
    if not file.exists():
        write_json(file, {'run': secrets.token_hex(8)})
    return read_json(file)['run']


def _check_federation(done, hellos, workdir):
    """Writes `federation.json`, or raises ValueError where it tells of another federation."""
    data = {
        name: {'images': h.images, 'train': h.train, 'content': None, 'labels': None}
        for name, h in hellos.items()
    }
    now = {
        'classes': list(done.run.classes), 'seen': list(done.names), 'unseen': [], 'data': data
    }
    if (workdir / 'federation.json').exists():
        was = read_federation(workdir)
        if told := other_names(was, now) or other_data(was, now):
            raise ValueError(f'{workdir}: {told}: bring these back, or name a new workdir')
    write_json(workdir / 'federation.json', now)
