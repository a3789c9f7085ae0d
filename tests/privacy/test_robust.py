"""Rules against clients that lie: exact on known numbers, and under attacks that break the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.algorithms.base import Algorithm, State, server_step
from fedgen_jax.config import base
from fedgen_jax.data.examples import Examples
from fedgen_jax.engine.rounds import client_mesh, init_run, make_rounds, shard_clients
from fedgen_jax.privacy import Message, nothing
from fedgen_jax.privacy.robust import (
    FEWEST,
    check_robust,
    krum,
    mean,
    median,
    norm_bound,
    norms,
    robust,
    trimmed_mean,
)

KEY = jax.random.key(0)
RULES = tuple(FEWEST)
HERE = jnp.array([True, True, False, True, True, True, False])


def arrays(num=7):
    x = np.random.default_rng(0).normal(size=(num, 2, 3)).astype(np.float32)
    return np.where(np.asarray(HERE)[:num, None, None], x, 1e9)  # what is absent must not count


def test_rules_are_numpy_s_over_those_present():
    x_C = arrays()
    real = x_C[np.asarray(HERE)]
    np.testing.assert_allclose(mean(x_C, HERE), real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(median(x_C, HERE), np.median(real, 0), rtol=1e-5)
    four = HERE.at[0].set(False)
    np.testing.assert_allclose(median(x_C, four), np.median(x_C[np.asarray(four)], 0), rtol=1e-5)
    for trim in (0, 1, 2):
        kept = np.sort(real, 0)[trim : len(real) - trim]
        np.testing.assert_allclose(trimmed_mean(x_C, HERE, trim), kept.mean(0), rtol=1e-5)


@pytest.mark.parametrize('attackers', [0, 1])
def test_krum_is_its_definition(attackers):
    x_C = arrays()
    here = np.flatnonzero(HERE)
    scores = []
    for i in here:
        square = sorted(((x_C[i] - x_C[j]) ** 2).sum() for j in here if j != i)
        scores.append(sum(square[: len(here) - attackers - 2]))
    assert int(krum({'x': x_C}, HERE, attackers)) == here[np.argmin(scores)]


def test_a_norm_bound_shrinks_what_is_longer_and_nothing_else():
    a = jnp.array([[3.0, 0], [0.3, 0], [0, 0], [3e18, 0], [3e38, 0]])
    tree = {'a': a, 'b': jnp.array([4.0, 0.4, 0, 0, 0])}
    np.testing.assert_allclose(norms(tree), [5, 0.5, 0, 3e18, np.inf], rtol=1e-6)
    short = norm_bound(tree, 1.0)
    np.testing.assert_allclose(norms(short), [1, 0.5, 0, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(short['a'][0] / short['b'][0], [0.75, 0], rtol=1e-6)
    np.testing.assert_array_equal(short['a'][1], tree['a'][1])


def sent_by(weight_C, delta_CxD, own_C=None):
    """Contributions in the shape of FedGen's, each times its weight, count or one."""
    weight_C = jnp.asarray(weight_C, jnp.float32)
    count_C = 10 * weight_C
    own_C = jnp.ones_like(weight_C) if own_C is None else jnp.asarray(own_C, jnp.float32)
    return {
        'base': {'weight': weight_C, 'delta': {'theta': weight_C[:, None] * delta_CxD}},
        'generator': {
            'weight': weight_C,
            'statistic': {'count': count_C, 'total': (count_C * own_C)[:, None]},
        },
    }


def at_server(rule, contribution, took_part, attackers=0, bound=2.0):
    took_part = jnp.asarray(took_part, jnp.float32)
    message = Message(contribution, {'loss': took_part}, took_part)
    made, _ = robust(rule, attackers, bound).server((), message, KEY)
    return jax.tree.map(lambda x: x.sum(0), made)


@pytest.mark.parametrize('rule', RULES)
def test_those_absent_do_not_count_and_a_weight_makes_nobody_louder(rule):
    delta_CxD = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    delta_CxD += np.array([3, 0, 0, 0], np.float32)
    present = np.array([1, 1, 0, 1, 1, 1, 0])
    delta_CxD[present == 0] = 1e6
    one = at_server(rule, sent_by(present, delta_CxD), present)
    loud = at_server(rule, sent_by(present * [1, 1e4, 1, 1, 50, 1, 1], delta_CxD), present)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, loud)
    # As if all five had sent the same: their number is the weight, and so is the count.
    sent = one.contribution
    assert sent['base']['weight'] == sent['generator']['weight'] == 5
    assert sent['generator']['statistic']['count'] == 5
    np.testing.assert_allclose(sent['generator']['statistic']['total'], [5], rtol=1e-5)
    assert one.metrics['loss'] == 5 and one.took_part == 5
    few = at_server(rule, sent_by(present[[0, 1, 3, 4, 5]], delta_CxD[[0, 1, 3, 4, 5]]), [1] * 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, few)


@pytest.mark.parametrize('factor', [1e6, -1e6, 1e30])
@pytest.mark.parametrize('bound', [0.5, 2.0])
def test_a_scaling_attack_moves_the_bounded_mean_by_no_more_than_the_bound(factor, bound):
    rng = np.random.default_rng(2)
    delta_CxD = rng.normal(size=(6, 5)).astype(np.float32)
    honest = at_server('bound', sent_by([1] * 6, delta_CxD), [1] * 6, bound=bound)
    attacked_CxD = delta_CxD.copy()
    attacked_CxD[2] *= factor
    attacked = at_server('bound', sent_by([1] * 6, attacked_CxD), [1] * 6, bound=bound)
    means = [m.contribution['base']['delta']['theta'] / 6 for m in (honest, attacked)]
    # Two lengths of one message of six; the median norm itself may move among the honest ones.
    longest = bound * np.linalg.norm(delta_CxD, axis=1).max()
    assert np.linalg.norm(means[1]) <= longest
    assert np.linalg.norm(means[1] - means[0]) <= 2 * longest
    everybody = jnp.ones(6, bool)
    short, attacked_short = (
        mean(norm_bound(x, bound), everybody) for x in (delta_CxD, attacked_CxD)
    )  # of a bound that is the same for both
    assert np.linalg.norm(attacked_short - short) <= 2 * bound / 6 + 1e-6
    alone = sent_by([1] * 6, attacked_CxD)['base']['delta']['theta']
    assert np.linalg.norm(np.mean(np.asarray(alone, np.float64), 0)) > 1000 * longest


@pytest.mark.parametrize('lie', [
    {'weight': 1e-38}, {'weight': 0.0}, {'weight': -1.0}, {'weight': 1e38},
    {'own': 1e30}, {'delta': 3e38},
])
@pytest.mark.parametrize('rule', RULES)
def test_lies_about_weights_and_descriptors_stay_bounded_too(rule, lie):
    rng = np.random.default_rng(3)
    delta_CxD, own_C, weight_C = rng.normal(size=(6, 5)).astype(np.float32), np.ones(6), np.ones(6)
    weight_C[0] = lie.get('weight', 1.0)
    contribution = sent_by(weight_C, delta_CxD, own_C)
    theta = contribution['base']['delta']['theta']
    theta = theta.at[0].set(lie.get('delta', 100.0))  # sent as it is, whatever the weight says
    contribution['base']['delta']['theta'] = theta
    total = contribution['generator']['statistic']['total']
    contribution['generator']['statistic']['total'] = total.at[0].set(lie.get('own', 10.0))
    made = at_server(rule, contribution, [1] * 6, attackers=1).contribution
    longest = 2 * np.linalg.norm(delta_CxD[1:], axis=1).max()
    assert made['base']['weight'] == 6
    assert np.linalg.norm(made['base']['delta']['theta']) <= 6 * longest
    s = made['generator']['statistic']
    assert s['count'] == 6 and 0 < s['total'][0] / s['count'] <= 2


@pytest.mark.parametrize('rule', RULES)
def test_a_round_of_too_few_changes_nothing(rule):
    delta_CxD = np.ones((5, 2), np.float32)
    enough = 2 + FEWEST[rule]
    for number in range(6):
        present = np.arange(5) < number
        made = at_server(rule, sent_by(present, delta_CxD), present, attackers=1)
        weight = made.contribution['base']['weight']
        assert weight == (number if enough <= number else 0) or number > 5
        assert np.all(np.isfinite(made.contribution['base']['delta']['theta']))


@pytest.mark.parametrize('rule', RULES)
def test_contributions_of_other_shapes(rule):
    """Nothing at all, empty parts, and no weights."""
    assert at_server(rule, {}, [1] * 3).contribution == {}
    tree = {'weight': jnp.ones(3), 'delta': {'psi': {}}, 'variate': jnp.full((3, 2), 2.0)}
    made = at_server(rule, tree, [1] * 3).contribution
    assert made['delta'] == {'psi': {}}
    np.testing.assert_allclose(made['variate'], [6, 6])
    made = at_server(rule, {'mean': jnp.full((3, 2), 2.0)}, [1] * 3).contribution
    np.testing.assert_allclose(made['mean'], [6, 6])


# Attacks on training: a logistic regression of points in three dimensions, through the engine.

CLIENTS, PER, TRUTH = 11, 40, np.array([1.0, -1.0, 0.5])


def regression(liars=0, factor=1.0):
    """The first `liars` clients send `factor` times what they learned."""
    server = optax.sgd(1.0)

    def client_update(shared, private, data, key):
        x_Nx3 = data.image.reshape(-1, 3).astype(jnp.float32) / 127.5 - 1

        def loss(w):
            logit_N = x_Nx3 @ w
            return optax.sigmoid_binary_cross_entropy(logit_N, data.target['label']).mean()

        new = shared['theta']
        for _ in range(3):
            new = new - jax.grad(loss)(new)
        delta = (new - shared['theta']) * jnp.where(private['id'] < liars, factor, 1.0)
        weight = (data.weight.sum() > 0).astype(jnp.float32)
        return {'weight': weight, 'delta': {'theta': weight * delta}}, private, {'loss': loss(new)}

    def init(key):
        w = {'theta': jnp.zeros(3), 'round': jnp.int32(0)}
        return State(w, server.init({'theta': w['theta']}))

    return Algorithm(
        init, lambda state, client_id: {'id': client_id}, client_update,
        lambda state, total: server_step(server, state, total), None, None,
        title='regression', keeps=False, server_model=True, sizes={},
    )


def points(flipped=0):
    """CLIENTS of PER points each and a padding one; the first have their labels turned around."""
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (CLIENTS + 1, PER, 1, 1, 3)).astype(np.uint8)
    label = ((image.reshape(CLIENTS + 1, PER, 3) / 127.5 - 1) @ TRUTH > 0).astype(np.float32)
    label[:flipped] = 1 - label[:flipped]
    weight = np.ones((CLIENTS + 1, PER), np.float32)
    weight[-1], image[-1], label[-1] = 0, 0, 0
    return Examples(image, {'label': label}, weight)


def accuracy(protection, algorithm, data, num_devices=1, gathered=True):
    mesh = client_mesh(num_devices)
    id_C = np.arange(CLIENTS + 1, dtype=np.int32)
    state, private_C = init_run(algorithm, mesh, KEY, id_C, protection)
    rounds = make_rounds(algorithm, mesh, 'map', protection, gathered)
    data_C, id_C = shard_clients((data, id_C), mesh)
    state, _, _ = rounds(state, private_C, data_C, id_C, KEY, np.int32(0), np.int32(15))
    x = np.random.default_rng(5).uniform(-1, 1, (2000, 3))
    return np.mean((x @ np.asarray(state.shared['theta']) > 0) == (x @ TRUTH > 0))


@pytest.mark.parametrize('rule', RULES)
def test_those_left_out_and_padding_do_not_count_in_a_round(rule):
    """One whose numbers are not finite, and one without examples: as if neither were there."""
    protection, absent = robust(rule, 1, 1.0), points()
    absent.weight[0] = 0
    left = accuracy(protection, regression(1, np.nan), points())
    assert left == accuracy(protection, regression(), absent)
    assert left != accuracy(protection, regression(), points())


def test_without_attackers_every_rule_learns():
    scores = {r: accuracy(robust(r, 4, 1.0), regression(), points()) for r in RULES}
    scores['plain'] = accuracy(nothing(), regression(), points(), gathered=False)
    assert min(scores.values()) > 0.93, scores


@pytest.mark.parametrize('num_devices', [1, 4])
def test_flipped_labels_that_shout_break_the_mean_and_no_rule(num_devices):
    data, shouting = points(flipped=4), regression(4, 5.0)
    for rule in RULES:
        score = accuracy(robust(rule, 4, 1.0), shouting, data, num_devices)
        # Bounded messages of liars still pull at the mean.
        assert score > (0.8 if rule == 'bound' else 0.9), rule
    assert accuracy(nothing(), shouting, data, num_devices, gathered=False) < 0.3


@pytest.mark.parametrize('factor', [-1e6, 1e6])
def test_a_scaling_attack_breaks_the_mean_and_no_rule(factor):
    shouting = regression(4, factor)
    for rule in RULES:
        assert accuracy(robust(rule, 4, 1.0), shouting, points()) > 0.8, rule
    if factor < 0:
        assert accuracy(nothing(), shouting, points(), gathered=False) < 0.2


@pytest.mark.parametrize('rule', ['median', 'trimmed', 'krum'])
def test_more_attackers_than_a_rule_is_told_break_it(rule):
    """The control: what the tests above show is the rule's doing."""
    assert accuracy(robust(rule, 1, 1.0), regression(8, -1.0), points()) < 0.5


def test_a_bound_of_two_medians_lets_four_liars_outvote_seven():
    shouting = regression(4, -1e6)
    scores = [accuracy(robust('bound', 4, bound), shouting, points()) for bound in (1.0, 2.0)]
    assert scores[0] > 0.8 and scores[1] < 0.5


@pytest.mark.parametrize(
    ('changes', 'clients', 'message'),
    [
        ({'robust.rule': 'mode'}, 9, 'one of none, bound, median, trimmed, krum'),
        ({'secure.on': True}, 9, 'secure.on hides them'),
        ({'weighting': 'examples'}, 9, 'must be uniform'),
        ({}, 2, 'median holds against 0'),
        ({'robust.rule': 'krum', 'robust.attackers': 2}, 6, 'krum holds against 1'),
        ({'robust.rule': 'trimmed', 'robust.attackers': -1}, 9, 'robust.attackers=-1'),
        ({'robust.bound': 0.0}, 9, 'robust.bound=0'),
    ],
)
def test_what_could_not_hold_is_one_line(changes, clients, message):
    c = base()
    c.weighting, c.robust.rule = 'uniform', 'median'
    check_robust(c, 3)
    c.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message) as error:
        check_robust(c, clients)
    assert '\n' not in str(error.value) and 'robust.' in str(error.value)
    c.robust.rule = 'none'
    check_robust(c, clients)


def test_what_is_told():
    told = robust('median', 2, 3.0).spent(1, 2, 3)
    assert told == {'robust': {'rule': 'median', 'attackers': 2, 'bound': 3.0}}
