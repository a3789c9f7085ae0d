"""Flower's network under a deployed federation (docs/deploy.md): bytes to centers, and back.

It needs Flower and NumPy alone.  What learns, and what reads images, are processes beside it, each
behind a socket in a folder: `launch.center` at a hospital, `launch.serve` at the server.

    --node-config 'site="SITE"'     the folder of `launch.center --site`, or of its `--socket`
    --run-config 'server="RUN"'     the folder of `launch.serve --workdir`

Both are absolute paths: Flower starts these functions in a folder of its own.
"""

import json
import os
from multiprocessing.connection import Client, Connection

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.query()
def reply(message: Message, context: Context) -> Message:
    """Passes a request to the center's process, and its reply back."""
    with connected(context.node_config, 'site', 'launch.center') as pipe:
        pipe.send_bytes(data_in(message))
        return Message(content=record(pipe.recv_bytes()), reply_to=message)


@server.main()
def carry(grid: Grid, context: Context) -> None:
    """Carries what the server's process asks for, until it ends (`deploy.pipe.net_over`)."""
    timeout = float(context.run_config['timeout'])
    with connected(context.run_config, 'server', 'launch.serve') as pipe:
        while True:
            try:
                asked = json.loads(pipe.recv_bytes())
            except EOFError:
                return
            if asked is None:
                pipe.send_bytes(json.dumps(list(grid.get_node_ids())).encode())
                continue
            requests = {node: pipe.recv_bytes() for node in asked}
            replies, errors = carried(grid, requests, timeout)
            pipe.send_bytes(json.dumps([list(replies), errors]).encode())
            for data in replies.values():
                pipe.send_bytes(data)


def carried(grid: Grid, requests: dict, timeout: float) -> tuple[dict, dict]:
    """({node: reply}, {node: what went wrong there}) of those who replied in time."""
    messages = [
        Message(record(data), node, 'query', ttl=timeout) for node, data in requests.items()
    ]
    replies, errors = {}, {}
    for message in grid.send_and_receive(messages, timeout=timeout):
        node = message.metadata.src_node_id
        if message.has_error():
            errors[node] = message.error.reason
            continue
        try:
            replies[node] = data_in(message)
        except Exception as error:  # what a node sends can raise anything, and ends no other's
            errors[node] = f'a malformed reply ({type(error).__name__})'
    return replies, errors


def connected(values, name: str, command: str) -> Connection:
    """The socket of a process in the folder that a configuration names."""
    if not values.get(name):
        raise ValueError(f'{name} is missing: the folder of {command}')
    socket = os.path.join(os.path.expanduser(str(values[name])), 'net', 'socket')
    try:
        return Client(socket, 'AF_UNIX')
    except PermissionError as error:
        raise RuntimeError(
            f'{socket}: closed to this user: {command} --socket=FOLDER, of a folder of its group'
        ) from error
    except OSError as error:
        raise RuntimeError(f'{socket}: {command} is not running ({error})') from error


def record(data: bytes) -> RecordDict:
    """Bytes as a message's content: arrays are cut into pieces on their way."""
    return RecordDict({'fedgen': ArrayRecord({'bytes': Array(np.frombuffer(data, np.uint8))})})


def data_in(message: Message) -> bytes:
    """The bytes of a message's content."""
    return message.content['fedgen']['bytes'].numpy().tobytes()
