"""GA and FedSAM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, C, assert_same, configured, drawn_clients, of_unequal_sizes, roll

from fedgen_jax.baselines.fedsam import sharpness_aware
from fedgen_jax.baselines.ga import adjusted
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm
from fedgen_jax.run import prepare
from fedgen_jax.settings import refusal, settings_of

pytestmark = pytest.mark.extended


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module')
def fedavg(clients):
    """FedAvg's state after two rounds."""
    return roll({'algorithm': 'fedavg'}, clients)[0]


def test_shares_sum_to_one_and_follow_the_gaps():
    share_C, known_C = jnp.array([0.5, 0.3, 0.2, 0.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    new_C = adjusted(share_C, jnp.array([0.1, 0.9, 0.5, 0.0]), known_C, 0.1)
    np.testing.assert_allclose(new_C, [0.4, 0.4, 0.2, 0.0], atol=1e-6)
    np.testing.assert_allclose(adjusted(share_C, 5 + 0 * share_C, known_C, 0.1), share_C)
    np.testing.assert_allclose(adjusted(share_C, jnp.arange(4.0), known_C, 0.0), share_C)
    far_C = adjusted(share_C, jnp.array([0.0, 2.0, 1.0, 0.0]), known_C, 1.0)
    np.testing.assert_allclose(far_C, [0.0, 1 / 1.2, 0.2 / 1.2, 0.0], atol=1e-6)  # held in [0, 1]


def test_ga_without_a_step_is_fedavg_to_the_bit_and_with_one_its_shares_move(clients):
    clients = of_unequal_sizes(clients)
    expected = roll({'algorithm': 'fedavg'}, clients)[0].shared['theta']
    for step in (0.0, 0.3):
        state, private_C, _ = roll({'algorithm': 'ga', 'ga.step': step}, clients)
        share = state.optimizer['share']
        np.testing.assert_allclose(share.sum(), 1, rtol=1e-5)
        if step == 0:
            np.testing.assert_allclose(share, [0.4, 0.35, 0.25], rtol=1e-5)
            assert_same(state.shared['theta'], expected)
    assert share.max() - share.min() > 0.05 and private_C['loss'][3] == 0


def test_ga_gives_the_client_with_the_largest_gap_the_largest_share(clients):
    algorithm, _ = make_algorithm(configured({'algorithm': 'ga'}), 16, synthetic.CLASSES, 3)
    state = jax.jit(algorithm.init)(KEY)
    sent_C = {
        'weight': jnp.array([8.0, 8.0, 8.0, 0.0]), 'gap': jnp.array([0.1, 0.7, 0.3, 0.0]),
        'known': jnp.array([1.0, 1.0, 1.0, 0.0]), 'who': jnp.eye(C, 3),
        'delta': {'theta': jax.tree.map(  # 8 examples' weight times 0, 1 and 2
            lambda x: jnp.stack([jnp.full_like(x, v) for v in (0, 8, 16, 0)]),
            state.shared['theta'],
        )},
    }
    new = algorithm.server_update(state, sent_C)
    share = new.optimizer['share']
    assert share.argmax() == 1 and share.argmin() == 0
    moved = jax.tree.map(jnp.subtract, new.shared['theta'], state.shared['theta'])
    mean = share @ jnp.arange(3.0)
    assert all(np.allclose(x, mean, atol=1e-5) for x in jax.tree.leaves(moved))


@pytest.mark.parametrize('changes', [{'privacy.clip': 1.0}, {'ga.step': 2.0}])
def test_ga_refuses_what_hides_a_gap(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        make_algorithm(configured({'algorithm': 'ga', **changes}), 16, synthetic.CLASSES, 3)


def test_ga_refuses_a_part_of_the_clients(tmp_path):
    c = configured({
        'algorithm': 'ga', 'cohort': 2, 'data.source': 'synthetic', 'data.centers': 3,
        'data.examples': 20, 'data.cache': str(tmp_path),
    })
    with pytest.raises(ValueError, match='cohort=2: GA'):
        prepare(c)


def test_a_run_of_ga_cannot_be_made_longer():
    made, now = (
        settings_of(configured({'algorithm': 'ga', 'rounds': rounds})) for rounds in (2, 4)
    )
    assert 'cannot be made longer' in refusal(made, now, settings_of(configured({})))


def test_fedsam_is_fedavg_at_rho_0_and_goes_with_ga(clients, fedavg):
    state, _, _ = roll({'algorithm': 'fedsam', 'fedsam.rho': 0.0}, clients)
    assert_same(state.shared['theta'], fedavg.shared['theta'])
    sam, _, _ = roll({'algorithm': 'fedsam'}, clients)
    both, _, _ = roll({'algorithm': 'ga', 'ga.step': 0.0, 'ga.rho': 0.05}, clients)
    assert_same(both.shared['theta'], sam.shared['theta'])


def test_sharpness_aware_gradients_are_those_uphill():
    def gradient(w, batch, tau, key):
        return (jnp.sum(w**2) / 2, ()), w  # of |w|^2 / 2: uphill is outwards

    told, grads = sharpness_aware(gradient, 0.5)(jnp.array([3.0, 4.0]), None, None, KEY)
    np.testing.assert_allclose(grads, [3.3, 4.4], rtol=1e-6)
    assert told[0] == 12.5
