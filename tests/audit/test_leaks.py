"""Messages, sums and pools give descriptors away, and released ones alone where these are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.audit import descriptor as audits
from fedgen_jax.audit import differencing
from fedgen_jax.audit.leaks import Leak, ratio, span_share
from fedgen_jax.hypernet import descriptor

RNG = np.random.default_rng(0)


def test_the_ratio_is_what_a_dense_layer_was_given():
    x = jnp.asarray(RNG.normal(size=20), jnp.float32)
    kernel, bias = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((20, 6), (6,)))
    of = jax.grad(lambda k, b: jnp.sum(jnp.tanh(x @ k + b) ** 3), (0, 1))
    kernel, bias = (np.asarray(g, np.float64) for g in of(kernel, bias))
    np.testing.assert_allclose(ratio(Leak(kernel, bias)), x, rtol=1e-5)


def test_a_sum_spans_what_is_in_it_and_little_else():
    z = RNG.normal(size=(5, 100))
    total = sum(np.outer(x, RNG.normal(size=32)) for x in z)
    assert min(span_share(total, x, 5) for x in z) == pytest.approx(1)
    assert np.mean([span_share(total, RNG.normal(size=100), 5) for _ in range(50)]) < 0.1


def test_the_pool_s_change_is_the_newcomer():
    own = {
        name: descriptor.statistic(RNG.normal(size=(9, 7)), np.ones(9), 'psi') for name in 'abc'
    }
    joins = own.pop('c')
    found = differencing.difference(own, 'c', joins)
    np.testing.assert_array_equal(found.total, joins.total)
    assert found.count == joins.count


@pytest.mark.extended
def test_a_join_tells_all_but_the_newcomer_s_own_noise(subject):
    """Controls each way: exact without noise or with the others' alone, else off by the noise."""
    found = differencing.audit(subject)
    assert found.holds and not found.missing and found.numbers['centers'] == 4
    bare, shared, own = found.numbers['joins'].values()
    assert bare == shared == {'error': 0, 'in_noise': 0}
    assert 0.85 < own['in_noise'] < 2 and own['error'] > 0.01


@pytest.mark.extended
def test_the_audit_of_joins_fails_where_a_release_has_no_noise(subject, monkeypatch):
    exact = differencing.described(subject).exact
    monkeypatch.setattr(
        differencing, 'described', lambda subject: differencing.Described(exact, exact))
    assert differencing.audit(subject).holds is False


def test_a_message_gives_the_descriptor_away_unless_it_was_released(subject):
    found = audits.audit(subject)
    assert found.holds and not found.missing
    n = found.numbers
    assert n['one_step_error'] < 1e-4 and n['released_error'] < 1e-4
    assert n['rows']['one step on a released descriptor']['error'] > 0.1
    assert min(n['in_span']) > 0.999 > max(n['others_in_span'])
    assert n['released_from_exact'] > 1e-3
