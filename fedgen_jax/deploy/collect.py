"""A round's messages at the server: which are usable, and what they are together."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fedgen_jax.canonical import on_canonical
from fedgen_jax.data.examples import Examples
from fedgen_jax.deploy.learner import message_shapes
from fedgen_jax.deploy.wire import tree_from_bytes
from fedgen_jax.privacy import Message
from fedgen_jax.program import Program

Tree = Any


def blank_examples(arrays: Mapping[str, Any], image_size: int) -> Examples:
    """One black image with the target's arrays that a center tells of, `center.hello`."""
    target = {k: np.zeros((1, *shape), np.dtype(kind)) for k, (shape, kind) in arrays.items()}
    image = np.zeros((1, image_size, image_size, 3), np.uint8)
    return Examples(image, target, np.ones(1, np.float32))


def shapes_of_messages(
    program: Program, blank: Examples, length: int, reference: np.ndarray | None
) -> Message:
    """A center's message, as shapes; blank: `blank_examples`."""
    if program.input:
        blank = on_canonical(program.input, program.input.change(reference, reference), blank)
    data_1 = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, length, *x.shape[1:]), x.dtype), blank)
    return message_shapes(program, data_1)


def usable(
    shapes: Message, replies: Mapping[int, dict]
) -> tuple[dict[int, Message], dict[int, str]]:
    """({number: message}, {number of a center that is left out: why}).

    A message of another shape, or with numbers that are not finite, is left out whole.
    """
    found, why = {}, {}
    for number, reply in replies.items():
        try:
            if 'error' in reply:
                raise ValueError(reply['error'])
            data = reply.get('message')
            if not isinstance(data, bytes):
                raise ValueError('its message is no bytes')
            message = tree_from_bytes(shapes, data, 'its message')
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(message)):
                raise ValueError('its message has NaN or infinite numbers')
            if message.took_part != 1:
                raise ValueError('its own numbers were NaN or infinite')
            found[number] = message
        except ValueError as error:
            why[number] = str(error)
    return found, why


def together(
    shapes: Message, found: Mapping[int, Message], clients: int, gathered: bool
) -> Message:
    """The sum of messages in the order of their numbers, or, gathered, all as leaves [C, ...].

    Of a client without a message there are exact zeros.
    """
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    if gathered:
        rows = [found.get(number, zeros) for number in range(clients)]
        return jax.tree.map(lambda *x: np.stack(x), *rows)
    total = zeros
    for number in sorted(found):
        total = jax.tree.map(lambda a, b: a + b, total, found[number])
    return total
