"""A federation between hospitals: each center keeps its images, and bytes travel.

    wire     trees, statistics and requests as bytes
    center   what a center answers: (its folder, a request) -> reply
    terms    what all agree on, and what cannot be deployed
    server   the rounds: it asks centers and steps on what they reply
    meeting, deployment, collect   its parts: who is there, what a run is, what messages are worth
    change   a center joins, changes or leaves afterwards
    secured  a round's sum under masks, over the same requests
    pipe     sockets to the process that reaches the network

`Net` is what a network must bring; `launch/flower` brings Flower's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Net(NamedTuple):
    """How a server reaches centers.

    nodes: () -> the nodes that are connected.
    ask:   {node: request} -> {node: reply} of those who replied in time.
    """

    nodes: Callable[[], Sequence[int]]
    ask: Callable[[Mapping[int, bytes]], Mapping[int, bytes]]
