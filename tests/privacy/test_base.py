"""Protections: a clip bounds every message, and chains undo in the opposite order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.hypernet.descriptor import Statistic
from fedgen_jax.privacy import Message, chain, clip, nothing

KEY = jax.random.key(0)
ID = jnp.arange(3)
MESSAGE = Message(
    {'weight': jnp.float32(4), 'delta': {'theta': jnp.array([3.0, -12.0, 84.0])}},
    {'loss': jnp.float32(0.5)},
)


def at_client(protection, message=MESSAGE):
    return protection.client(protection.init(), message, KEY, jnp.int32(1), ID)


def at_server(protection, message=MESSAGE):
    return protection.server(protection.init(), message, KEY)[0]


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_nothing_changes_nothing():
    assert_same(at_client(nothing()), MESSAGE)
    assert_same(at_server(nothing()), MESSAGE)
    statistic = Statistic(np.arange(3), 2, 'psi')
    assert nothing().statistic(statistic) is statistic
    assert nothing().init() == () and nothing().spent(1, 2, 3) == {}


@pytest.mark.parametrize('limit', [1.0, 10.0, 1000.0])
def test_a_clip_bounds_the_norm_and_keeps_the_direction(limit):
    sent = at_client(clip(limit))
    norm = np.sqrt(4**2 + 3**2 + 12**2 + 84**2)
    assert optax.tree.norm(sent.contribution) == pytest.approx(min(limit, norm), rel=1e-6)
    factor = min(1.0, limit / norm)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, factor * y, rtol=1e-6),
        sent.contribution, MESSAGE.contribution,
    )
    # What the server makes of it, the weighted mean, is the same.
    np.testing.assert_allclose(
        sent.contribution['delta']['theta'] / sent.contribution['weight'],
        MESSAGE.contribution['delta']['theta'] / 4, rtol=1e-6,
    )
    assert sent.metrics == MESSAGE.metrics  # what the log tells is true
    alone = at_client(clip(limit), MESSAGE._replace(metrics={'loss': jnp.float32(1e6)}))
    assert alone.metrics['loss'] == pytest.approx(1e3)
    assert clip(limit).spent(1, 2, 3) == {'clip': limit}


def test_a_clip_lets_zeros_and_no_nan_through():
    zeros = jax.tree.map(jnp.zeros_like, MESSAGE)
    assert_same(at_client(clip(1.0), zeros), zeros)


@pytest.mark.parametrize('limit', [0.0, -1.0])
def test_a_clip_to_nothing_is_refused(limit):
    with pytest.raises(ValueError, match='privacy.clip='):
        clip(limit)


def affine(factor, offset):
    """At the client x -> factor x + offset, and back at the server, counting in its state."""
    return nothing()._replace(
        init=lambda: jnp.int32(0),
        client=lambda s, m, key, i, k: jax.tree.map(lambda x: factor * x + offset, m),
        server=lambda s, m, key: (jax.tree.map(lambda x: (x - offset) / factor, m), s + 1),
        spent=lambda *_: {f'by {factor}': offset},
    )


def test_a_chain_undoes_in_the_opposite_order_and_keeps_each_state():
    both = chain(affine(2.0, 1.0), affine(4.0, 8.0))
    sent = at_client(both)
    assert sent.metrics['loss'] == 4 * (2 * 0.5 + 1) + 8
    back, state = both.server(both.init(), sent, KEY)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), back, MESSAGE)
    assert state == (1, 1)
    assert both.spent(1, 2, 3) == {'by 2.0': 1.0, 'by 4.0': 8.0}


def test_parts_of_a_chain_have_keys_of_their_own():
    def noise(s, m, key, i, k):
        return jax.tree.map(lambda x: x + jax.random.normal(key, x.shape), m)

    part = nothing()._replace(init=lambda: (), client=noise)
    once = at_client(chain(part)).metrics['loss'] - 0.5
    twice = at_client(chain(part, part)).metrics['loss'] - 0.5
    assert abs(twice - 2 * once) > 1e-3
