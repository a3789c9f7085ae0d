"""The cost that is told before a run is of the size that its arithmetic has."""

import jax
import numpy as np
import pytest

from configs.common import base
from fedgen_jax.data.examples import Examples
from fedgen_jax.engine.cost import cost_of, line_of
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.program import make_algorithm

SIZE, WIDTHS, BATCH, STEPS, CLASSES = 32, (32, 64), 16, 3, 5


@pytest.mark.extended
@pytest.mark.parametrize(('client_map', 'devices'), [('map', 1), ('vmap', 1), ('2', 2)])
def test_flops_are_those_of_the_convolutions_and_little_more(client_map, devices):
    c = base()
    c.algorithm, c.client_map, c.local_steps, c.batch_size = 'fedavg', client_map, STEPS, BATCH
    c.model.widths, c.shifts.acquisition = WIDTHS, 0.0
    c.shifts.flips = c.shifts.turns = False
    algorithm, _ = make_algorithm(c, SIZE, 'abcde', 4)
    mesh, key = client_mesh(devices), jax.random.key(0)
    data = Examples(
        np.zeros((4, BATCH, SIZE, SIZE, 3), np.uint8),
        {'label': np.zeros((4, BATCH), np.int32)}, np.ones((4, BATCH), np.float32),
    )
    data_C, id_C = shard_clients((data, np.arange(4, dtype=np.int32)), mesh)
    args = (*init_run(algorithm, mesh, key, id_C), data_C, id_C, key, np.int32(0), np.int32(1))
    compiled = make_rounds(algorithm, mesh, client_map).lower(*args).compile()
    cost = cost_of(compiled, 4, mesh, c, SIZE)
    side, channels, forward = SIZE, 3, 0
    for width in WIDTHS:
        side //= 2
        forward += 2 * side**2 * 9 * channels * width
        channels = width
    # Forward, and backward twice that but for the gradient of the images.
    least = 4 * STEPS * BATCH * 2.5 * forward
    assert least < cost.flops < 2 * least
    assert cost.per_device == 4 // devices and f'{devices} x ' in line_of(cost)
    assert cost.arguments >= data.image.nbytes / devices and cost.temporaries > 0
