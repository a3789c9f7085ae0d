"""Rules for clients that may lie: what replaces the sum where the server meets every message.

A message is first taken per unit: what a client sends beside a weight or a count is divided by it,
so that nobody speaks louder by claiming more.  Each part (a change, a descriptor) is then made no
longer than `bound` times the median norm of that part in the round, whatever the rule.

Masks (`config.secure`) hide what these rules need, so a run has one or the other.

References:
    Yin et al. 2018, Byzantine-robust distributed learning: towards optimal statistical rates, ICML
    (coordinatewise median and trimmed mean).
    Blanchard et al. 2017, Machine learning with adversaries: Byzantine tolerant gradient descent,
    NeurIPS (Krum).
    Sun et al. 2019, Can you really backdoor federated learning? (norm bound).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.privacy.base import Message, Protection, nothing
from fedgen_jax.registry import choose

Tree = Any

SCALES = ('weight', 'count')  # entries of a contribution by which those beside them are divided
FEWEST = {'bound': 1, 'median': 1, 'trimmed': 1, 'krum': 3}  # clients beside 2 `attackers`


def robust(rule: str, attackers: int, bound: float) -> Protection:
    """The server's side of a gathered round, in which all clients count alike.

    The server steps as if all who took part had sent what the rule makes of their messages.  A
    round of fewer than 2 `attackers` + `FEWEST` clients changes nothing.

    rule: bound, the mean of bounded messages; median; trimmed, the mean without the `attackers`
        largest and smallest of each number; krum, the message whose neighbors are nearest.
    attackers: f, how many clients may lie.
    bound: the longest a part may be, times the median over the round's clients.
    """

    def server(state, message_C, key):
        present_C = message_C.took_part > 0
        sent_C = message_C.contribution
        bounded_C = over_parts(lambda part_C: bounded(part_C, present_C, bound)[0], sent_C)
        if rule == 'krum':
            alike_C = over_parts(lambda part_C: bounded(part_C, present_C, bound)[1], sent_C)
            best = krum(alike_C, present_C, attackers) if jax.tree.leaves(alike_C) else 0
            made = jax.tree.map(lambda x_C: x_C[best], bounded_C)
        else:
            made = jax.tree.map(lambda x_C: RULES[rule](x_C, present_C, attackers), bounded_C)
        number = present_C.sum()
        enough = number >= 2 * attackers + FEWEST[rule]
        total = jax.tree.map(
            lambda x: jnp.where(enough, number.astype(x.dtype) * x, 0)[None], made
        )
        told = jax.tree.map(lambda x_C: x_C.sum(0)[None], message_C.metrics)
        return Message(total, told, number.astype(jnp.float32)[None]), state

    told = {'rule': rule, 'attackers': attackers, 'bound': bound}
    return nothing()._replace(server=server, spent=lambda *_: {'robust': told})


def robust_of(c: ConfigDict) -> tuple[Protection, ...]:
    """The rule that a configuration names; () without one."""
    r = c.robust
    return () if r.rule == 'none' else (robust(r.rule, r.attackers, r.bound),)


def check_robust(c: ConfigDict, clients: int) -> None:
    """Raises ValueError where a configuration's rule could not hold in rounds of `clients`."""
    rule, attackers, bound = c.robust.rule, c.robust.attackers, c.robust.bound
    if rule == 'none':
        return
    choose('robust.rule', rule, ('none', *FEWEST))
    if c.secure.on:
        raise ValueError(f'robust.rule={rule!r}: needs every message, and secure.on hides them')
    if c.weighting != 'uniform':
        raise ValueError(
            f'robust.rule={rule!r}: all clients count alike, for a weight may be a lie: '
            f'weighting={c.weighting!r} must be uniform'
        )
    if attackers < 0 or clients < 2 * attackers + FEWEST[rule]:
        raise ValueError(
            f'robust.attackers={attackers}: from 0 on, and of {clients} clients a round '
            f'{rule} holds against {max(0, (clients - FEWEST[rule]) // 2)}'
        )
    if not bound > 0:
        raise ValueError(f'robust.bound={bound}: above 0')


def over_parts(fn: Callable[[Tree], Tree], tree_C: Tree, scale_C: jax.Array | None = None) -> Tree:
    """fn of each part of contributions, per unit of its weight or count, which become 1.

    A part stands beside a scale, or, where there is none, is a leaf.
    """
    if not isinstance(tree_C, dict):
        return fn(_per_unit(tree_C, scale_C))
    own = next((name for name in SCALES if name in tree_C), None)
    if own is None and scale_C is not None:
        return fn(_per_unit(tree_C, scale_C))
    scale_C = tree_C[own] if own else None
    return {
        k: jnp.ones_like(x_C) if k == own else over_parts(fn, x_C, scale_C)
        for k, x_C in tree_C.items()
    }


def bounded(part_C: Tree, present_C: jax.Array, bound: float) -> tuple[Tree, Tree]:
    """A part of each client at most `bound` medians long, and the same in units of that length."""
    if not jax.tree.leaves(part_C):
        return part_C, part_C
    limit = bound * median(norms(part_C), present_C)
    short_C = norm_bound(part_C, limit)
    return short_C, jax.tree.map(lambda x: x / jnp.maximum(limit, 1e-12), short_C)


def norm_bound(tree_C: Tree, limit: jax.Array | float) -> Tree:
    """Each client's tree, leaves [C, ...], shrunk to a norm of at most `limit`.

    One whose norm is infinite vanishes.
    """
    limit = jnp.minimum(limit, 1e18)
    factor_C = jnp.minimum(1.0, limit / jnp.maximum(norms(tree_C), 1e-12))
    return jax.tree.map(lambda x: _each(factor_C, x) * x, tree_C)


def norms(tree_C: Tree) -> jax.Array:
    """The norm [C] of each client's tree; infinite beyond 1e19, where float32 has no squares."""
    return jnp.sqrt(jnp.sum(_flat(tree_C) ** 2, 1))


def mean(x_C: jax.Array, present_C: jax.Array, attackers: int = 0) -> jax.Array:
    """The mean over those present."""
    total = jnp.where(_each(present_C, x_C), x_C, 0).sum(0)
    return total / _at_least_one(present_C.sum(), total)


def median(x_C: jax.Array, present_C: jax.Array, attackers: int = 0) -> jax.Array:
    """The median of each number over those present; of an even number, the mean of the middle."""
    sorted_C, n = _sorted(x_C, present_C), present_C.sum()
    return (sorted_C[jnp.maximum(n - 1, 0) // 2] + sorted_C[n // 2]) / 2


def trimmed_mean(x_C: jax.Array, present_C: jax.Array, attackers: int) -> jax.Array:
    """The mean of each number over those present without the largest and smallest `attackers`."""
    sorted_C, n = _sorted(x_C, present_C), present_C.sum()
    place_C = jnp.arange(len(x_C))
    kept = _each((place_C >= attackers) & (place_C < n - attackers), x_C)
    total = jnp.where(kept, sorted_C, 0).sum(0)
    return total / _at_least_one(n - 2 * attackers, total)


def krum(tree_C: Tree, present_C: jax.Array, attackers: int) -> jax.Array:
    """Which client's n - f - 2 nearest others are nearest, int (Blanchard et al., section 4)."""
    flat_CxD = _flat(tree_C)
    square_CxC = jax.lax.map(lambda x_D: jnp.sum((flat_CxD - x_D[None]) ** 2, 1), flat_CxD)
    other_CxC = present_C[:, None] & present_C[None] & ~jnp.eye(len(present_C), dtype=bool)
    sorted_CxC = jnp.sort(jnp.where(other_CxC, square_CxC, jnp.inf), 1)
    near = jnp.arange(len(present_C)) < present_C.sum() - attackers - 2
    score_C = jnp.where(near[None], sorted_CxC, 0).sum(1)
    return jnp.argmin(jnp.where(present_C, score_C, jnp.inf))


RULES = {'bound': mean, 'median': median, 'trimmed': trimmed_mean}


def _at_least_one(number, like):
    return jnp.maximum(number, 1).astype(like.dtype)


def _flat(tree_C):
    leaves = [x.reshape(len(x), -1).astype(jnp.float32) for x in jax.tree.leaves(tree_C)]
    return jnp.concatenate(leaves, 1)


def _each(value_C, x_C):
    """A number for each client, beside x_C."""
    return value_C.reshape(-1, *(1,) * (x_C.ndim - 1))


def _per_unit(tree_C, scale_C):
    if scale_C is None:
        return tree_C

    def of(x_C):
        scale = _each(scale_C, x_C)
        unit_C = x_C / jnp.where(scale > 0, scale, 1)
        return jnp.where((scale > 0) & jnp.isfinite(unit_C), unit_C, 0)  # a tiny weight is a lie

    return jax.tree.map(of, tree_C)


def _sorted(x_C, present_C):
    """Those present in order, then infinity."""
    return jnp.sort(jnp.where(_each(present_C, x_C), x_C, jnp.inf), 0)
