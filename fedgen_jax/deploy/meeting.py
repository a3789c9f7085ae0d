"""Which node is which center, and what each replies."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedgen_jax.data.check import say
from fedgen_jax.deploy import Net
from fedgen_jax.deploy.wire import pack, unpack
from fedgen_jax.interrupt import MayPass

KINDS = ('int8', 'uint8', 'int32', 'float32')  # of a target's arrays
LARGEST = 2**28  # numbers of one image's
MOST = 2**31 - 1  # images
PAUSE = 3.0  # seconds between looks at who is connected


class Hello(NamedTuple):
    """What a center tells of itself; `center.hello`."""

    name: str
    wish: str
    images: int
    train: int
    scored: bool
    classes: tuple[str, ...]
    arrays: Mapping[str, Any]


Found = Mapping[int, Hello | str]  # nodes that were asked, and what they said or why they cannot


def greet(
    net: Net, terms: str, found: Found, classes: Sequence[str] = ()
) -> dict[int, Hello | str]:
    """Asks nodes that have not said who they are; those that are gone are forgotten.

    Why a node cannot say it is told once.  A node that takes the name of one that was met before,
    and is still there, is not met.
    """
    connected = net.nodes()
    met = {node: found[node] for node in connected if isinstance(found.get(node), Hello)}
    request = pack({'action': 'hello', 'terms': terms, 'classes': list(classes)})
    replies = ask(net, {node: request for node in connected if node not in met})
    taken = set(nodes_of(met))
    for node, reply in replies.items():
        said = _hello(reply)
        if isinstance(said, Hello) and said.name in taken:
            said = f'says that it is {said.name!r}, as another node does: stop one'
        if isinstance(said, Hello):
            taken.add(said.name)
        met[node] = said
        if isinstance(met[node], str) and met[node] != found.get(node):
            say(f'node {node}: {met[node]}')
    return met


def _hello(reply) -> Hello | str:
    if 'error' in reply:
        return str(reply['error'])
    name, wish, images, train, scored, classes, arrays = (reply.get(x) for x in Hello._fields)
    right = isinstance(classes, list) and all(isinstance(x, str) for x in (name, wish, *classes))
    counts = all(isinstance(x, int) and 0 <= x <= MOST for x in (images, train))
    counts &= isinstance(scored, bool)
    if not (right and counts and isinstance(arrays, dict) and all(map(_is_array, arrays.values()))):
        return 'its greeting is malformed'
    return Hello(name, wish, images, train, scored, tuple(classes), arrays)


def _is_array(told) -> bool:
    """Whether it is [shape, type] of an array of numbers."""
    if not (isinstance(told, list) and len(told) == 2 and isinstance(told[0], list)):
        return False
    shape, kind = told
    whole = all(isinstance(n, int) and n > 0 for n in shape)
    return kind in KINDS and whole and math.prod(shape) <= LARGEST


def meet(net: Net, terms: str, names: Sequence[str], wait: float) -> Found:
    """Waits until all named centers are there to train; the nodes that were asked.

    Raises MayPass where they are not after `wait` seconds.
    """
    until = time.monotonic() + wait
    found: Found = {}
    while True:
        found = greet(net, terms, found)
        here = {h.name: h.wish for h in found.values() if isinstance(h, Hello)}
        missing = [name for name in names if here.get(name) != '']
        if not missing:
            return found
        if time.monotonic() > until:
            wishes = [f'{n} came to {here[n]} (launch.center --wish)' for n in missing if n in here]
            raise MayPass(
                f'{", ".join(missing)}: not connected after {wait:g} s, or refused: start their '
                'nodes, and run again' + ''.join(f'; {x}' for x in wishes)
            )
        time.sleep(PAUSE)


def nodes_of(found: Found) -> dict[str, int]:
    """{name of a center: its node}; `greet` meets no name twice."""
    return {hello.name: node for node, hello in found.items() if isinstance(hello, Hello)}


def ask(net: Net, requests: Mapping[int, bytes]) -> dict[int, dict]:
    """{node: its reply, {'error': why} where there is no usable one}."""
    replies = net.ask(requests) if requests else {}
    return {node: _read(replies.get(node)) for node in requests}


def _read(reply):
    if reply is None:
        return {'error': 'no reply in time'}
    try:
        return unpack(reply)
    except ValueError as error:
        return {'error': str(error)}
