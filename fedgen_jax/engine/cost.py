"""What a round costs, read from its compiled program before it runs."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from fedgen_jax.engine.clients import client_map_of, group_size


class Cost(NamedTuple):
    """Of one round.

    flops:      of all clients together, about; 0 where the backend does not say.
    arguments, temporaries: bytes that each device holds for it.
    per_device: clients of each device; at_once: how many of them run at a time.
    devices:    'NUMBER x KIND (PROCESSES processes)'.
    """

    flops: float
    arguments: int
    temporaries: int
    per_device: int
    at_once: int
    devices: str


def cost_of(
    compiled: Any, num_clients: int, mesh: jax.sharding.Mesh, config: ConfigDict, image_size: int
) -> Cost:
    """The cost of a compiled `rounds` function of `num_clients` a round, padding included.

    image_size: pixels, square, that the network sees.

    XLA counts the body of a loop once.  Nearly all of a round stands inside the loops over groups
    of clients and local steps, so the count is taken times both; clients that are left over by the
    groups stand after their loop.
    """
    per_device = num_clients // mesh.size
    at_once = group_size(client_map_of(config, image_size), per_device)
    times = mesh.size * per_device / (at_once + per_device % at_once) * config.local_steps
    memory = compiled.memory_analysis()
    return Cost(
        times * max((compiled.cost_analysis() or {}).get('flops', 0.0), 0.0),
        memory.argument_size_in_bytes if memory else 0,
        memory.temp_size_in_bytes if memory else 0,
        per_device,
        at_once,
        f'{mesh.size} x {mesh.devices.flat[0].device_kind} ({jax.process_count()} processes)',
    )


def line_of(cost: Cost) -> str:
    """The cost in a line."""
    return (
        f'{cost.devices}, {cost.per_device} clients on each, {cost.at_once} at once; a round: '
        f'about {cost.flops / 1e9:.3g} GFLOP, on a device {cost.arguments / 2**20:.0f} MiB of data '
        f'and state and {cost.temporaries / 2**20:.0f} MiB to work in'
    )
