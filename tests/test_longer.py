"""A run whose rate falls over its rounds is made longer: the rate begins anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import small_run

from fedgen_jax.algorithms.optimizers import schedule
from fedgen_jax.config import base
from fedgen_jax.run import restore
from fedgen_jax.train import train


@pytest.mark.extended
def test_a_cosine_begins_anew_in_a_run_that_is_made_longer(tmp_path):
    c = small_run(tmp_path)
    c.rounds, c.eval_every, c.checkpoint_every, c.devices = 4, 3, 2, 1
    c.algorithm, c.client.schedule = 'fedavg', 'cosine'
    train(c, tmp_path / 'run', progress=False)
    c.rounds, c.client.restarts = 7, (4,)
    extended = train(c, tmp_path / 'run', progress=False)
    at_once = train(c, tmp_path / 'once', progress=False)
    assert {**extended, 'cost': 0} == {**at_once, 'cost': 0}
    states = (restore(tmp_path / x).state for x in ('run', 'once'))
    jax.tree.map(np.testing.assert_array_equal, *states)
    for field, value in (('rounds', 9), ('client.restarts', (3,)), ('client.restarts', ())):
        other = c.copy_and_resolve_references()
        other.update_from_flattened_dict({field: value})
        with pytest.raises(ValueError, match='restarts|rounds'):
            train(other, tmp_path / 'run', progress=False)


def test_the_rate_of_each_part_falls_from_the_first_one():
    c = base()
    c.rounds, c.client.schedule = 10, 'cosine'
    one = [float(schedule(c)(jnp.int32(r))) for r in range(10)]
    c.rounds, c.client.restarts = 20, (10,)
    np.testing.assert_array_equal([float(schedule(c)(jnp.int32(r))) for r in range(20)], 2 * one)
    for wrong in ((0,), (20,), (5, 5), (9, 4)):
        c.client.restarts = wrong
        with pytest.raises(ValueError, match='rising order'):
            schedule(c)
