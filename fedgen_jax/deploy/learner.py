"""One client's part of a round, compiled: the simulation's, of one client."""

from typing import Any

import jax
import numpy as np

from fedgen_jax.data.examples import Examples
from fedgen_jax.engine.rounds import (
    COMPILER,
    client_mesh,
    init_run,
    round_of_clients,
    shapes_of_run,
)
from fedgen_jax.privacy import Message
from fedgen_jax.program import Program

Tree = Any

_LEARNERS: dict[Any, Any] = {}
_SHAPES: dict[Any, Tree] = {}
_FIRST: dict[Any, Tree] = {}


def learner(program: Program) -> Any:
    """`engine.rounds.round_of_clients` of one client, compiled once in a process."""
    if program.rounds not in _LEARNERS:
        one = round_of_clients(
            program.algorithm, client_mesh(1), 'map', program.protection, gathered=False
        )
        _LEARNERS[program.rounds] = jax.jit(one, compiler_options=COMPILER)
    return _LEARNERS[program.rounds]


def first_private(program: Program, seed: int, number: int) -> Tree:
    """The private state [1, ...] that a client begins a run with, made once in a process."""
    if (program.rounds, seed, number) not in _FIRST:
        _FIRST.clear()
        _, private_1 = init_run(
            program.algorithm, client_mesh(1), jax.random.key(seed), np.array([number], np.int32),
            program.protection,
        )
        _FIRST[program.rounds, seed, number] = private_1
    return _FIRST[program.rounds, seed, number]


def shapes_of_one(program: Program) -> Tree:
    """(state, private state [1, ...]) as shapes, traced once in a process."""
    if program.rounds not in _SHAPES:
        mesh = client_mesh(1)
        _SHAPES[program.rounds] = shapes_of_run(program.algorithm, mesh, 1, program.protection)
    return _SHAPES[program.rounds]


def shapes_sent(program: Program) -> Tree:
    """What the server sends, as shapes: (shared, the protection's state)."""
    state, _ = shapes_of_one(program)
    return state.shared, state.protection


def message_shapes(program: Program, data_1: Examples) -> Message:
    """A center's message, as shapes; data_1: examples of its arrays, [1, N, ...]."""
    state, private_1 = shapes_of_one(program)
    sent = state._replace(optimizer=())
    id_1, round_ = np.zeros(1, np.int32), np.int32(0)
    return jax.eval_shape(
        learner(program), sent, private_1, data_1, id_1, jax.random.key(0), round_
    )[0]
