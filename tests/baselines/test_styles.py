"""MixStyle, DSU and FedFA: statistics of maps that are others while a model learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, configured, drawn_clients, roll

from fedgen_jax.algorithms.local import query_batch
from fedgen_jax.baselines.dsu import drawn
from fedgen_jax.baselines.fedfa import followed, spread
from fedgen_jax.baselines.mixstyle import mix
from fedgen_jax.baselines.styles import changed_gradient, moments
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm

pytestmark = pytest.mark.extended

RNG = np.random.default_rng(0)
MAP = jnp.array(RNG.normal(size=(6, 5, 4, 3)) * RNG.uniform(1, 3, (6, 1, 1, 3))
                + RNG.normal(size=(6, 1, 1, 3)), jnp.float32)
NAMES = ('mixstyle', 'dsu', 'fedfa')


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module')
def fedavg(clients):
    return roll({'algorithm': 'fedavg'}, clients, rounds=1)[0].shared['theta']


@pytest.mark.parametrize('name, p', [*((name, 0.0) for name in NAMES), ('fedfa', 1.0)])
def test_at_p_0_it_is_fedavg_to_the_bit_and_else_not(name, p, clients, fedavg):
    state, _, _ = roll({'algorithm': name, f'{name}.p': p}, clients, rounds=1)
    same = jax.tree.map(np.array_equal, state.shared['theta'], fedavg)
    assert all(jax.tree.leaves(same)) == (p == 0)


def test_mixed_statistics_are_mixes_of_two_images(clients):
    before, after = moments(MAP), moments(mix(MAP, 0.5, KEY))
    mean_BxI, std_BxI = (np.squeeze(m) for m in before)
    found = np.concatenate([np.squeeze(m) for m in after], -1)
    own = np.concatenate([mean_BxI, std_BxI], -1)

    def distance(i, j):
        """Of image i from the line between its own statistics and those of j."""
        line = own[j] - own[i]
        share = np.clip((found[i] - own[i]) @ line / max(line @ line, 1e-9), 0, 1)
        return np.abs(found[i] - own[i] - share * line).max()

    assert all(min(distance(i, j) for j in range(6)) < 1e-3 for i in range(6))
    assert max(np.abs(found - own).max(1)) > 0.05
    gradient = jax.grad(lambda x: mix(x, 0.5, KEY).sum())(MAP)
    scale = after[1] / before[1]  # no gradient goes through statistics
    np.testing.assert_allclose(gradient, jnp.broadcast_to(scale, MAP.shape), rtol=1e-3)


def test_drawn_statistics_spread_as_the_batch_s_do():
    draws = jax.vmap(lambda key: jnp.stack(moments(drawn(MAP, key))))(jax.random.split(KEY, 2000))
    gap = np.squeeze(draws - jnp.stack(moments(MAP))[None])  # [draws, 2, B, I]
    expected = np.squeeze(np.stack([m.var(0, ddof=1) for m in moments(MAP)]))
    np.testing.assert_allclose(gap[:, 0].mean((0, 1)), 0, atol=0.1)
    np.testing.assert_allclose(gap[:, 0].var(0).mean(0), expected[0], rtol=0.1)
    wider = (jnp.full(3, 4.0), jnp.ones(3))
    wide = jax.vmap(lambda key: moments(drawn(MAP, key, wider))[0])(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(
        np.squeeze(wide).var(0).mean(0), 4 * expected[0], rtol=0.1
    )


def test_the_next_layer_meets_the_changed_map(clients):
    c = configured({'algorithm': 'dsu', 'model.norm': 'batch'})
    algorithm, local = make_algorithm(c, 16, synthetic.CLASSES, 3)
    theta = jax.jit(algorithm.init)(KEY).shared['theta']
    batch, tau = query_batch(local, jax.tree.map(lambda x: x[0], clients), KEY)

    def gone(x, place, key):
        return jnp.zeros_like(x), {'shape': jnp.array(x.shape)}

    changed = jax.jit(changed_gradient(local, 1, gone))
    (loss, (_, told)), grads = changed(theta, batch, tau, KEY)
    assert told[0]['shape'].tolist() == [4, 8, 8, 8]
    bias_K = theta['head']['bias']  # all that the head then sees
    outputs = jnp.broadcast_to(bias_K, (4, len(bias_K)))
    expected = float(local.task.loss(outputs, batch.target, batch.weight))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert not grads['conv_0_0']['kernel'].any() and grads['head']['bias'].any()


def test_fedfa_s_server_has_the_variance_over_clients(clients):
    algorithm, _ = make_algorithm(configured({'algorithm': 'fedfa'}), 16, synthetic.CLASSES, 3)
    state = jax.jit(algorithm.init)(KEY)
    update = jax.jit(algorithm.client_update)
    sent = [
        update(state.shared, {'id': i}, jax.tree.map(lambda x: x[i], clients), KEY)[0]  # noqa: B023
        for i in range(4)
    ]
    assert not any(x.any() for x in jax.tree.leaves(sent[3]))  # no examples
    total = jax.tree.map(lambda *x: sum(x), *sent)
    running, across = jax.jit(algorithm.server_update)(state, total).shared['styles']
    own = np.stack([s['styles'][0][0]['mean'] for s in sent[:3]])  # all began at 0
    assert own.any()
    np.testing.assert_allclose(running[0]['mean'], own.mean(0), atol=1e-6)
    np.testing.assert_allclose(across[0]['mean'], own.var(0), rtol=1e-2, atol=1e-9)


def test_fedfa_s_parts():
    across = jnp.array([0.1, 0.2, 5.0])
    gamma = spread(across)
    assert gamma.mean() == pytest.approx(1) and (jnp.diff(gamma) > 0).all()
    x_Tx1, mean = np.array([[1.0], [2.0], [4.0]], np.float32), 3.0
    for (x,) in x_Tx1:
        mean = 0.9 * mean + 0.1 * x
    assert followed(jnp.array([3.0]), jnp.array(x_Tx1), 0.9) == pytest.approx(mean)


@pytest.mark.parametrize('changes, message', [
    ({'algorithm': 'mixstyle', 'model.norm': 'instance'}, "model.norm='instance'"),
    ({'algorithm': 'dsu', 'dsu.p': 1.5}, 'dsu.p=1.5'),
    ({'algorithm': 'mixstyle', 'mixstyle.alpha': 0.0}, 'mixstyle.alpha=0'),
    ({'algorithm': 'fedfa', 'fedfa.momentum': 1.0}, 'fedfa.momentum=1'),
    ({'algorithm': 'fedfa', 'fedfa.layers': 0}, 'fedfa.layers=0'),
])
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    assert '\n' not in str(error.value)
