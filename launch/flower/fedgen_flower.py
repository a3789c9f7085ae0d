"""Flower's network under a deployed federation (docs/deploy.md): bytes to centers, and back.

A node is a hospital's: its --node-config names its files.

    settings   the file of the settings that all agreed on
    data       its folder of images, with one center
    site       where its private state and its model lie
    wish       join | update | leave, asked of a trained run; without it, it trains
    scores     false: its scores stay with it
"""

import pathlib

import jax
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedgen_jax.data.check import say
from fedgen_jax.deploy import Net
from fedgen_jax.deploy.center import Site, answer
from fedgen_jax.deploy.change import change
from fedgen_jax.deploy.server import train
from fedgen_jax.deploy.terms import read_config
from fedgen_jax.files import expand
from fedgen_jax.run import names_in

client = ClientApp()
server = ServerApp()


@client.query()
def reply(message: Message, context: Context) -> Message:
    """What a center answers."""
    site = site_of(context.node_config)
    keep_compilations(site.folder)  # Flower starts a process for each message
    return Message(content=record(answer(site, data_in(message))), reply_to=message)


@server.main()
def rounds(grid: Grid, context: Context) -> None:
    """What the server does."""
    c = context.run_config
    workdir, net = path_in(c, 'workdir'), net_of(grid, c['timeout'])
    keep_compilations(workdir)
    if c['action'] == 'change':
        told = change(workdir, net)
    elif c['action'] == 'train':
        config = read_config(path_in(c, 'settings'))
        names = names_in(c['centers'], ())
        if not names:
            raise ValueError('centers is empty: name those that train, comma-separated')
        told = train(config, workdir, names, net, float(c['wait']))
    else:
        raise ValueError(f'action={c["action"]!r}: train or change')
    print(f'done: {workdir}: {told}', flush=True)


def site_of(node_config) -> Site:
    """A hospital's files, as its node names them."""
    settings, data, site = (path_in(node_config, k) for k in ('settings', 'data', 'site'))
    site.mkdir(parents=True, exist_ok=True)
    wish, scores = node_config.get('wish', ''), node_config.get('scores', True)
    return Site(settings, data, site, str(wish), bool(scores))


def path_in(values, name: str) -> pathlib.Path:
    """A path that a configuration must name."""
    if not values.get(name):
        raise ValueError(f'{name} is missing: a path')
    return expand(str(values[name])).absolute()


def keep_compilations(folder: pathlib.Path) -> None:
    """Keeps compiled programs from process to process."""
    jax.config.update('jax_compilation_cache_dir', str(folder / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def net_of(grid: Grid, timeout: float) -> Net:
    """Flower's network as a `Net`; timeout: seconds for all replies to a request."""

    def ask(requests):
        messages = [
            Message(record(data), node, 'query', ttl=float(timeout))
            for node, data in requests.items()
        ]
        found = {}
        for message in grid.send_and_receive(messages, timeout=float(timeout)):
            node = message.metadata.src_node_id
            if message.has_error():
                say(f'node {node}: {message.error.reason}')
            else:
                found[node] = data_in(message)
        return found

    return Net(lambda: list(grid.get_node_ids()), ask)


def record(data: bytes) -> RecordDict:
    """Bytes as a message's content: arrays are cut into pieces on their way."""
    return RecordDict({'fedgen': ArrayRecord({'bytes': Array(np.frombuffer(data, np.uint8))})})


def data_in(message: Message) -> bytes:
    """The bytes of a message's content."""
    return message.content['fedgen']['bytes'].numpy().tobytes()
