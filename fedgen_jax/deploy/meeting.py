"""Which node is which center, and what each replies."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedgen_jax.data.check import say
from fedgen_jax.deploy import Net
from fedgen_jax.deploy.wire import pack, unpack
from fedgen_jax.interrupt import MayPass

PAUSE = 1.0  # seconds between looks at who is connected


class Hello(NamedTuple):
    """What a center tells of itself; `center.hello`."""

    name: str
    wish: str
    images: int
    train: int
    classes: tuple[str, ...]
    arrays: Mapping[str, Any]


Found = Mapping[int, Hello | None]  # nodes that were asked; None: it gave no usable answer


def greet(net: Net, terms: str, found: Found, classes: Sequence[str] = ()) -> dict[int, Hello | None]:
    """Asks nodes that have not been asked who they are; those that are gone are forgotten."""
    connected = net.nodes()
    request = pack({'action': 'hello', 'terms': terms, 'classes': list(classes)})
    new = [node for node in connected if node not in found]
    replies = ask(net, {node: request for node in new})
    met: dict[int, Hello | None] = {node: found[node] for node in connected if node in found}
    for node in new:
        met[node] = _hello(node, replies[node])
    return met


def _hello(node, reply):
    if 'error' in reply:
        say(f'node {node}: {reply["error"]}')
        return None
    texts = [reply.get('name'), reply.get('wish'), *reply.get('classes', [None])]
    counts = [reply.get('images'), reply.get('train')]
    arrays = reply.get('arrays')
    right = all(isinstance(x, str) for x in texts) and all(isinstance(x, int) for x in counts)
    if not (right and isinstance(arrays, dict)):
        say(f'node {node}: its greeting is malformed')
        return None
    return Hello(*texts[:2], *counts, tuple(texts[2:]), arrays)


def meet(net: Net, terms: str, names: Sequence[str], wait: float) -> dict[int, Hello | None]:
    """Waits until all named centers are there; the nodes that were asked.

    Raises MayPass where they are not after `wait` seconds, ValueError where two have one name.
    """
    until, found = time.monotonic() + wait, {}
    while True:
        found = greet(net, terms, found)
        missing = [name for name in names if name not in nodes_of(found)]
        if not missing:
            return found
        if time.monotonic() > until:
            raise MayPass(
                f'{", ".join(missing)}: not connected after {wait:g} s, or refused: start their '
                'nodes, and run again'
            )
        time.sleep(PAUSE)


def nodes_of(found: Found) -> dict[str, int]:
    """{name of a center: its node}; ValueError where two nodes have one name."""
    nodes: dict[str, int] = {}
    for node, hello in found.items():
        if hello and hello.name in nodes:
            raise ValueError(f'two nodes say that they are {hello.name!r}: stop one of them')
        if hello:
            nodes[hello.name] = node
    return nodes


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
