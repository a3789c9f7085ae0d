"""Clients' contributions: bounded together, equal in weight, sampled by Poisson, with noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.privacy.base import Message, chain, clip_contribution
from fedgen_jax.privacy.clients import (
    adapted,
    alike,
    begin,
    check_adaptive,
    client_level,
    counted,
    poisson_cohort,
    sigma_beside_share,
)
from fedgen_jax.privacy.secrets import stream_key

KEY, NOBODY = jax.random.key(0), jnp.arange(3)
SECRET = bytes(range(1, 33))


def contribution(scale=1.0, weight=4.0, seed=0):
    rng = np.random.default_rng(seed)
    delta = jnp.asarray(scale * weight * rng.normal(size=20), jnp.float32)
    own = jnp.asarray(7 * rng.normal(size=5), jnp.float32)
    return {
        'base': {'weight': jnp.float32(weight), 'delta': {'theta': delta}},
        'generator': {
            'weight': jnp.float32(weight), 'delta': {'phi': delta},
            'statistic': {'total': own, 'count': jnp.float32(7)},
        },
    }


def started(clip=1.0, adaptive=False, sigma=0.0, expected=10.0):
    part = client_level(clip, adaptive)
    return part, begin(part.init(), sigma, expected, SECRET)


def sent(part, state, tree):
    return part.client(state, Message(tree, {}), KEY, jnp.int32(0), NOBODY).contribution


def test_the_whole_contribution_is_clipped_whatever_it_weighs():
    part, state = started(0.5)
    for tree in (contribution(1e6), contribution(10.0, 1.0), contribution(seed=3)):
        found = sent(part, state, tree)['sent']
        assert optax.tree.norm(found) == pytest.approx(0.5, rel=1e-5)
        assert not found['base']['weight'] and not found['generator']['statistic']['count']
    small = contribution(1e-3)
    small['generator']['statistic']['total'] *= 1e-3
    once, again = (sent(part, state, jax.tree.map(lambda x: x, t))['sent'] for t in (
        small, {**small, 'base': {'weight': jnp.float32(8.0),
                                  'delta': {'theta': 2 * small['base']['delta']['theta']}}}
    ))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), once, again)
    assert optax.tree.norm(once) < 0.5


def test_weights_are_the_public_constant():
    part, state = started(1e9, expected=20.0)
    message = part.client(state, Message(contribution(), {}), KEY, jnp.int32(0), NOBODY)
    back, _ = part.server(state, message, KEY)
    assert back.contribution['base']['weight'] == 20
    assert back.contribution['generator']['statistic']['count'] == 20
    np.testing.assert_allclose(
        back.contribution['generator']['statistic']['total'],
        contribution()['generator']['statistic']['total'] / 7, rtol=1e-6,
    )
    assert jax.tree.structure(back.contribution) == jax.tree.structure(contribution())


def test_a_scaling_attack_moves_the_mean_by_the_clip_over_the_cohort():
    part, state = started(0.5, expected=10.0)

    def mean_of(first):
        messages = [sent(part, state, contribution(0.01, seed=i)) for i in range(1, 9)]
        total = jax.tree.map(lambda *x: sum(x), sent(part, state, first), *messages)
        back, _ = part.server(state, Message(total, {}), KEY)
        return np.asarray(back.contribution['base']['delta']['theta'] / 10.0)

    nothing = jax.tree.map(jnp.zeros_like, contribution())
    moved = np.linalg.norm(mean_of(contribution(1e6)) - mean_of(nothing))
    assert 0 < moved <= 0.5 / 10 * (1 + 1e-5)


def test_the_recorder_sees_the_clip():
    """Neighbors: one client's contribution is nothing.  Without the clip they lie far apart."""
    rng = np.random.default_rng(1)
    trees = [contribution(rng.uniform(0.001, 5), rng.uniform(1, 9), i) for i in range(21)]
    for limit, bounded in ((0.5, True), (1e9, False)):
        part, state = started(limit)
        norms = [float(optax.tree.norm(sent(part, state, t)['sent'])) for t in trees]
        assert (max(norms) <= 0.5 * (1 + 1e-5)) == bounded
        assert max(norms) >= 0.9 * 0.5


def test_the_noise_is_of_the_secret_and_has_its_deviation():
    part, state = started(0.5, sigma=2.0)
    zero = sent(part, state, jax.tree.map(jnp.zeros_like, contribution()))
    keys = jax.random.split(KEY, 400)

    @jax.jit
    def noise(key, state):
        found, _ = part.server(state, Message(zero, {}), key)
        return found.contribution['base']['delta']['theta']

    drawn = np.array([noise(k, state) for k in keys])
    assert drawn.std() == pytest.approx(2.0 * 0.5, rel=0.03)
    other = begin(part.init(), 2.0, 10.0, SECRET[::-1])
    unlike = np.array([noise(k, other) for k in keys])
    assert abs(np.corrcoef(drawn.ravel(), unlike.ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(drawn[1:].ravel(), drawn[:-1].ravel())[0, 1]) < 0.05


def test_an_adaptive_clip_follows_the_median():
    """Norms are 1 to 21: the clip ends near 11, from far below and from far above."""
    for start in (0.5, 100.0):
        part, state = started(start, adaptive=True, sigma=0.1, expected=21.0)
        trees = [{'delta': jnp.full((1,), float(i))} for i in range(1, 22)]

        @jax.jit
        def step(state, key, part=part, trees=trees):
            messages = [sent(part, state, t) for t in trees]
            total = jax.tree.map(lambda *x: sum(x), *messages)
            return part.server(state, Message(total, {}), key)[1]

        clips = []
        for r in range(150):
            state = step(state, jax.random.fold_in(KEY, r))
            clips.append(float(state['clip']))
        assert np.mean(clips[-50:]) == pytest.approx(11, rel=0.12)
    assert adapted(1.0, 0.5) == 1 and adapted(1.0, 0.9) < 1 < adapted(1.0, 0.1)


def test_the_share_of_clipped_ones_is_paid_by_more_noise():
    assert sigma_beside_share(1.0, 100.0) == pytest.approx(1.00504, abs=1e-5)
    check_adaptive(1.0, 100.0)
    with pytest.raises(ValueError, match='too few'):
        check_adaptive(1.0, 10.0)


def test_a_cohort_is_poisson_s():
    pytest.importorskip('cryptography', reason='the extra `privacy`')
    n, rate, cap = 200, 0.1, 44
    found = [poisson_cohort(stream_key(SECRET, r), n, rate, cap) for r in range(2000)]
    size = np.array([(c < n).sum() for c in found])
    assert size.mean() == pytest.approx(20, rel=0.02) and size.var() == pytest.approx(18, rel=0.1)
    count = np.bincount(np.concatenate(found), minlength=n + 1)[:n] / 2000
    assert np.abs(count - rate).max() < 4.5 * np.sqrt(rate * (1 - rate) / 2000)
    assert all(np.all(np.diff(c[c < n]) > 0) and np.all(np.diff(c) >= 0) for c in found)
    cut = [poisson_cohort(stream_key(SECRET, r), n, rate, 12) for r in range(500)]
    share = np.bincount(np.concatenate(cut), minlength=n + 1)[:n]
    assert all(len(c) == 12 for c in cut) and share.max() < 3 * share.mean()


def test_it_chains():
    part, state = started(0.5)
    both = chain(part)
    message = both.client((state,), Message(contribution(), {}), KEY, jnp.int32(0), NOBODY)
    back, (after,) = both.server((state,), message, KEY)
    assert back.contribution['base']['weight'] == 10 and after['clip'] == 0.5


def test_helpers_keep_what_they_do_not_know():
    assert alike({}) == {} and counted({}, 3.0) == {}
    tree, within = clip_contribution({'a': jnp.zeros(3)}, jnp.float32(1))
    assert within and not tree['a'].any()
