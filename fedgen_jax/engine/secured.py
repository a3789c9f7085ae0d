"""Rounds whose sum is taken under masks (`sums`): the server meets no center's message.

A round is two dispatches.  The clients' half returns their messages one by one, the sum is taken on
the host, and the server's half steps on it.  Contributions and metrics go through the same sum.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.engine.rounds import (
    COMPILER,
    all_finite,
    by_client,
    make_rounds,
    round_of_clients,
    round_of_server,
    share_left_out,
)
from fedgen_jax.engine.sums import Parties, Secure, summed
from fedgen_jax.privacy import Message, Protection, nothing
from fedgen_jax.privacy.extra import extra

Tree = Any


class Halves(NamedTuple):
    """Both halves of a round and the sum between them: wrapped, lowered or compiled, as the stages
    of what `rounds.make_rounds` returns.

    clients: (state, private_C, data_C, id_C, key, round) -> (messages, leaves [C, ...]; how many
             were left out; private_C).
    server:  (state, their sum, key, round) -> (state, mean metrics, whether the state is finite).
    between: (messages, id_C, what the server sent, round, parties) -> (their sum, what it cost).
    parties: of the run, whose rounds these are; a program serves several runs, and has none.
    """

    clients: Any
    server: Any
    between: Callable[[Message, np.ndarray, Tree, int, Parties], tuple[Message, dict]]
    parties: Parties | None = None

    def lower(self, *args) -> 'Halves':
        if jax.process_count() > 1:
            raise ValueError('secure.on: plays all parties in one process: start without --cluster')
        extra('cryptography', 'secure.on')
        *of_clients, _ = args
        state, *_, key, first = of_clients
        message_C = jax.eval_shape(self.clients, *of_clients)[0]
        message = jax.tree.map(lambda s: np.zeros(s.shape[1:], s.dtype), message_C)
        server = self.server.lower(state, message, key, first)
        return self._replace(clients=self.clients.lower(*of_clients), server=server)

    def compile(self) -> 'Halves':
        return self._replace(clients=self.clients.compile(), server=self.server.compile())

    def memory_analysis(self):
        return self.clients.memory_analysis()

    def cost_analysis(self):
        return self.clients.cost_analysis()

    def __call__(self, state, private_C, data_C, id_C, key, first, last):
        """As `rounds.make_rounds`; metrics 'secure': what the sums of these rounds cost."""
        if self.parties is None:
            raise ValueError('secure.on: these rounds have no parties, so nobody can sign')
        left_out, worst, costs, mean, finite = 0.0, 0.0, [], {}, True
        for r in range(int(first), int(last)):
            message_C, left, private_C = self.clients(
                state, private_C, data_C, id_C, key, np.int32(r)
            )
            message_C, ids, left = jax.device_get((message_C, id_C, left))
            sent = jax.device_get((state.shared, state.protection))
            message, cost = self.between(message_C, ids, sent, r, self.parties)
            worst = max(worst, float(share_left_out(message, left)))
            left_out += float(left)
            state, mean, finite = self.server(state, message, key, np.int32(r))
            costs.append(cost)
        told = {'left_out': left_out, 'left_out_share': worst, 'finite': finite, 'secure': costs}
        return state, private_C, {**mean, **told}


def rounds_of(
    c: ConfigDict,
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    protection: Protection,
    secure: Secure | None,
) -> jax.stages.Wrapped | Halves:
    """A configuration's rounds: in the clear, gathered for a robust rule, or under masks.

    Raises ValueError where the algorithm takes more than the sum that a rule replaces.
    """
    if secure:
        return make_secured_rounds(algorithm, mesh, c.client_map, protection, secure)
    gathered = c.robust.rule != 'none'
    if gathered and not algorithm.sum_only:
        raise ValueError(
            f'robust.rule={c.robust.rule!r}: replaces a sum, and {algorithm.title} takes none'
        )
    if c.privacy.unit == 'client' and not algorithm.sum_only:
        raise ValueError(
            f"privacy.unit='client': its noise is for a sum, and {algorithm.title} takes none: "
            'take another algorithm'
        )
    return make_rounds(algorithm, mesh, c.client_map, protection, gathered)


def make_secured_rounds(
    algorithm: Algorithm,
    mesh: jax.sharding.Mesh,
    client_map: str,
    protection: Protection | None,
    secure: Secure,
) -> Halves:
    """`rounds.make_rounds` with sums under masks.

    Raises ValueError where the algorithm needs more than sums.
    """
    if not algorithm.sum_only:
        raise ValueError(
            f'secure.on: {algorithm.title} needs every contribution by itself, which masks hide'
        )
    protection = protection or nothing()
    clients = round_of_clients(algorithm, mesh, client_map, protection, gathered=True)
    move = round_of_server(algorithm, protection, gathered=False)

    def server(state, message, key, round_):
        state, mean = move(state, message, key, round_)
        return state, mean, all_finite(state.shared)

    everywhere, by = NamedSharding(mesh, P()), by_client(mesh)
    return Halves(
        jax.jit(
            clients, donate_argnums=1, out_shardings=(by, everywhere, by),
            compiler_options=COMPILER,
        ),
        jax.jit(server, donate_argnums=0, out_shardings=everywhere),
        functools.partial(summed, secure),
    )
