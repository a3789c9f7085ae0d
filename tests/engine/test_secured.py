"""A round under masks: the plain sum within its rounding, and nothing of one center on the way."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_close, configured, drawn_clients
from ml_collections import ConfigDict
from rolling import assert_same, dice, run, start

from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.engine import sums
from fedgen_jax.engine.cohorts import Mix
from fedgen_jax.engine.rounds import client_mesh, make_rounds, pad_clients
from fedgen_jax.engine.secured import make_secured_rounds, rounds_of
from fedgen_jax.engine.sums import Parties, Secure, secure_of, told_of
from fedgen_jax.privacy import Message, clip, nothing
from fedgen_jax.privacy.commit import identity
from fedgen_jax.privacy.encode import encode
from fedgen_jax.program import make_algorithm

C = 8
FIVE = Secure(own=5, drawn=0, first_drawn=5, threshold=4, min_honest=3, colluding=0, bits=16,
              word=32)


SECRETS = {n: bytes([n]) * 32 for n in range(C)}
PARTIES = Parties(SECRETS, {n: identity(s) for n, s in SECRETS.items()})


def secured_run(algorithm, mesh, started, secure, *stops, protection=None, parties=PARTIES):
    """As `rolling.run`, and the summed message of each round as the server met it."""
    halves = make_secured_rounds(algorithm, mesh, 'map', protection, secure)
    met = []

    def looking(*args):
        found = halves.between(*args)
        met.append((args, found[0]))
        return found

    state, private_C, data_C, id_C = started
    zero, one = np.int32(0), np.int32(1)
    lowered = halves._replace(between=looking, parties=parties).lower(
        state, private_C, data_C, id_C, KEY, zero, one)
    return *run(lowered.compile(), started, *stops), met


def plainly(algorithm, mesh, started, *stops, protection=None):
    return run(make_rounds(algorithm, mesh, 'map', protection), started, *stops)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_the_sum_is_that_of_the_encoded_messages_to_the_bit(cells, num_devices):
    mesh, data_C = client_mesh(num_devices), pad_clients(cells, C)
    [(state, kept)], metrics, met = secured_run(
        dice(), mesh, start(dice(), mesh, data_C), FIVE, 0, 1
    )
    ((message_C, id_C, *_), total), = met
    assert len(id_C) == C and message_C.took_part.tolist() == [1] * 5 + [0] * 3
    rows = [jax.tree.map(lambda x, i=i: x[i], message_C) for i in range(5)]
    trees = [{'contribution': m.contribution, 'metrics': m.metrics} for m in rows]
    words = np.sum([encode(t, 16, 32, C) for t in trees], axis=0, dtype=np.uint32)
    expected = sums.message_of(words, 5, message_C, FIVE)
    assert_same(total, expected)
    # Within C 2^-(bits+1) of the plain sum, and the private states are untouched by masks.
    [(plain, kept_plain)], metrics_plain = plainly(
        dice(), mesh, start(dice(), mesh, data_C), 0, 1
    )
    pairs = list(zip(jax.tree.leaves(state.shared), jax.tree.leaves(plain.shared)))
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=5 * 2.0**-17)
    assert any(np.any(a != b) for a, b in pairs)  # or nothing was encoded
    assert_same(kept, kept_plain)
    np.testing.assert_allclose(metrics['loss'], metrics_plain['loss'], atol=2.0**-17)
    assert metrics['left_out'] == metrics_plain['left_out'] == 0 and metrics['finite']


@pytest.mark.extended
def test_fedgen_under_masks_steps_as_it_does_without():
    """Its sum is the exact one within C 2^-(bits+1), and so the server's step is the plain one."""
    algorithm, _ = make_algorithm(configured({}), 16, synthetic.CLASSES, 3)
    mesh, data_C = client_mesh(1), drawn_clients()
    secure = FIVE._replace(own=3, first_drawn=3, threshold=3)
    [(plain, _)], _ = plainly(algorithm, mesh, start(algorithm, mesh, data_C), 0, 1)
    errors = []
    for bits, word in ((10, 32), (32, 64)):
        own = secure._replace(bits=bits, word=word)
        [(state, _)], _, met = secured_run(
            algorithm, mesh, start(algorithm, mesh, data_C), own, 0, 1
        )
        ((message_C, *_), total), = met
        exact = jax.tree.map(lambda x: x.astype(np.float64).sum(0), message_C.contribution)
        for a, b in zip(jax.tree.leaves(total.contribution), jax.tree.leaves(exact)):
            assert np.abs(a - b).max() <= 3 * 2.0 ** -(bits + 1) + 2.0**-23 * np.abs(b).max()
        pairs = zip(jax.tree.leaves(state.shared['theta']), jax.tree.leaves(plain.shared['theta']))
        errors.append(max(np.abs(a - b).max() for a, b in pairs))
    assert_close(state.shared, plain.shared, rtol=1e-4)
    assert errors[1] < 1e-6 < 1e-5 < errors[0]  # it is the rounding that tells them apart


def test_rounds_go_on_to_the_bit_wherever_they_were_cut(cells):
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    whole = secured_run(dice(), mesh, start(dice(), mesh, data_C), FIVE, 0, 3)[0]
    cut = secured_run(dice(), mesh, start(dice(), mesh, data_C), FIVE, 0, 1, 3)[0]
    assert_same(whole[-1], cut[-1])


def broken(client):
    """`dice`, where the numbers of some clients are not finite."""
    algorithm = dice()

    def client_update(shared, private, data, key):
        contribution, new, metrics = algorithm.client_update(shared, private, data, key)
        bad = jnp.isin(private['id'], jnp.array(client))
        mean = jnp.where(bad, jnp.nan, contribution['mean'])
        return {**contribution, 'mean': mean}, new, metrics

    return algorithm._replace(client_update=client_update)


def test_a_client_that_is_left_out_drops_out_of_the_sum(cells):
    mesh, data_C, algorithm = client_mesh(2), pad_clients(cells, C), broken([2])
    [(state, _)], metrics, _ = secured_run(
        algorithm, mesh, start(algorithm, mesh, data_C), FIVE, 0, 1
    )
    [(plain, _)], metrics_plain = plainly(algorithm, mesh, start(algorithm, mesh, data_C), 0, 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=5 * 2.0**-17),
        state.shared, plain.shared,
    )
    assert metrics['left_out'] == 1
    assert metrics['left_out_share'] == pytest.approx(1 / 5)
    np.testing.assert_allclose(metrics['loss'], metrics_plain['loss'], atol=2.0**-16)


def test_too_few_that_remain_end_the_round(cells):
    mesh, data_C, algorithm = client_mesh(1), pad_clients(cells, C), broken([0, 3])
    with pytest.raises(ValueError, match='3 of 5 clients sent their words, .* needs 4'):
        secured_run(algorithm, mesh, start(algorithm, mesh, data_C), FIVE, 0, 1)


def test_drawn_centers_are_summed_and_are_no_clients(cells):
    """Two of five are drawn: the sum is of all, the masks are between three."""
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    mixed = FIVE._replace(own=3, drawn=2, first_drawn=3, threshold=3)
    [(state, _)], metrics, _ = secured_run(
        dice(), mesh, start(dice(), mesh, data_C), mixed, 0, 1
    )
    [(all_own, _)], metrics_all, _ = secured_run(
        dice(), mesh, start(dice(), mesh, data_C), FIVE, 0, 1
    )
    assert_same(state, all_own)
    assert metrics['loss'] == metrics_all['loss'] == 2.0
    with pytest.raises(ValueError, match='2 of 3 clients'):  # drawn ones make up for nobody
        secured_run(broken([1]), mesh, start(broken([1]), mesh, data_C), mixed, 0, 1)


def test_a_protection_works_on_both_sides(cells):
    """Each client's clip before the masks, and the server's state after them."""
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    both = clip(0.5)._replace(
        init=lambda: jnp.int32(0), server=lambda s, m, key: (m, s + 1))
    begun = start(dice(), mesh, data_C, both)
    [(state, _)], _, met = secured_run(dice(), mesh, begun, FIVE, 0, 2, protection=both)
    [(plain, _)], _ = plainly(dice(), mesh, start(dice(), mesh, data_C, both), 0, 2,
                              protection=both)
    assert state.protection == plain.protection == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4),
                 state.shared, plain.shared)
    (message_C, *_), total = met[0]
    assert isinstance(total, Message) and total.took_part == 5


def test_a_number_too_large_for_its_word_ends_the_round_and_names_the_leaf(cells):
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    with pytest.raises(ValueError, match=r"secure.on: .*\['index'\].*secure.word=64"):
        secured_run(dice(), mesh, start(dice(), mesh, data_C), FIVE._replace(bits=28), 0, 1)
    wide = FIVE._replace(bits=28, word=64)
    assert secured_run(dice(), mesh, start(dice(), mesh, data_C), wide, 0, 1)[1]['finite']


def config(**changes):
    c = ConfigDict({'secure': {'on': True, 'bits': 16, 'word': 32, 'threshold': 0.67,
                               'min_honest': 3, 'colluding': 0,
                               'distributed_noise': False}, 'data': {'virtual': 0}})
    c.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return c


def test_the_numbers_of_a_configuration():
    assert secure_of(config(), 5, None) == FIVE
    defaults = base()
    defaults.secure.on = True
    assert secure_of(defaults, 5, None) == FIVE._replace(bits=32, word=64)
    assert secure_of(config(secure__on=False), 5, None) is None
    mixed = secure_of(config(data__virtual=50), 8, Mix(10, 4))
    assert (mixed.own, mixed.drawn, mixed.first_drawn, mixed.threshold) == (6, 4, 8, 5)
    assert secure_of(config(), 9, Mix(6, None)).own == 6
    for own, threshold in ((3, 3), (20, 14), (100, 67)):
        assert secure_of(config(), own, None).threshold == threshold
        assert 3 * threshold > 2 * own


@pytest.mark.parametrize(
    ('num_seen', 'mix', 'changes', 'message'),
    [
        (2, None, {}, 'at least 3'),
        (9, Mix(2, None), {}, 'at least 3'),
        (9, Mix(9, 7), {'data__virtual': 50}, 'at least 3'),
        (9, Mix(9, None), {'data__virtual': 50}, 'data.virtual_share'),
        (5, None, {'secure__threshold': 0.5}, 'secure.threshold'),
        (5, None, {'secure__threshold': 1.1}, 'secure.threshold'),
        (5, None, {'secure__min_honest': 2}, 'secure.min_honest'),
        (5, None, {'secure__min_honest': 6}, 'secure.min_honest'),
        (5, None, {'secure__colluding': 3}, 'secure.threshold'),
        (5, None, {'secure__word': 16}, 'secure.word'),
        (5, None, {'secure__bits': 30}, 'secure.bits'),
        (5, None, {'secure__bits': 0}, 'secure.bits'),
    ],
)
def test_what_would_protect_nobody_is_one_line(num_seen, mix, changes, message):
    if changes.get('secure__threshold') == 0.5:
        num_seen = 6  # of which half are three
    with pytest.raises(ValueError, match=message) as error:
        secure_of(config(**changes), num_seen, mix)
    assert '\n' not in str(error.value) and 'secure.' in str(error.value)


def test_an_algorithm_that_needs_each_contribution_is_refused():
    algorithm = dice()._replace(sum_only=False)
    c, mesh = base(), client_mesh(1)
    with pytest.raises(ValueError, match='dice needs every contribution by itself'):
        rounds_of(c, algorithm, mesh, nothing(), FIVE)
    c.robust.rule = 'median'
    with pytest.raises(ValueError, match='replaces a sum, and dice takes none'):
        rounds_of(c, algorithm, mesh, nothing(), None)


def test_what_is_told_of_a_run():
    costs = [{'keys': 1.0, 'bytes_up': 5.0}, {'keys': 2.0, 'bytes_up': 5.0},
             {'keys': 9.0, 'bytes_up': 5.0}]
    told = told_of(FIVE, 'of secrets', costs)
    assert told['a_round'] == {'keys': 2.0, 'bytes_up': 5.0}
    assert told['threshold'] == 4 and told['identities'] == 'of secrets'
    assert 'at least 4' in told['server_saw'][1]
    assert told_of(FIVE._replace(min_honest=5), '', [])['a_round'] is None
    assert 'at least 5' in told_of(FIVE._replace(min_honest=5), '', [])['server_saw'][1]


def test_several_processes_and_a_missing_package_are_one_line(cells, monkeypatch):
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    begun = start(dice(), mesh, data_C)
    with monkeypatch.context() as m:
        m.setattr(jax, 'process_count', lambda: 2)
        with pytest.raises(ValueError, match='secure.on: .* without --cluster'):
            secured_run(dice(), mesh, begun, FIVE, 0, 1)
    monkeypatch.setitem(sys.modules, 'cryptography', None)
    with pytest.raises(ValueError, match=r"secure.on: .*pip install 'fedgen_jax\[privacy\]'"):
        secured_run(dice(), mesh, begun, FIVE, 0, 1)


def test_a_center_that_signs_as_another_ends_the_round(cells):
    mesh, data_C = client_mesh(1), pad_clients(cells, C)
    begun = start(dice(), mesh, data_C)
    other = PARTIES._replace(secrets={**SECRETS, 2: bytes([99]) * 32})
    with pytest.raises(ValueError, match='client 2: its keys are not signed by it'):
        secured_run(dice(), mesh, begun, FIVE, 0, 1, parties=other)
    with pytest.raises(ValueError, match='no parties'):
        secured_run(dice(), mesh, start(dice(), mesh, data_C), FIVE, 0, 1, parties=None)
