"""The server learns the sum and no other; whoever lies, drops out or asks twice gains nothing."""

import hashlib

import numpy as np
import pytest

from fedgen_jax.privacy import commit, masks, secure
from fedgen_jax.privacy.secure_server import MESSAGES, route, secure_sum, unmasked
from fedgen_jax.privacy.secure_setup import Setup, needed
from fedgen_jax.privacy.wire import pack, unpack

MODEL = {'theta': np.arange(6, dtype=np.float32).reshape(2, 3), 'round': np.int32(4)}
SENT = commit.digest(MODEL)
D = 50


def secret_of(number):
    return hashlib.sha256(bytes([number])).digest()


def setup_of(clients, threshold=None, **more):
    numbers = [10 * i + 3 for i in range(clients)]  # numbers are not positions
    threshold = threshold or 2 * clients // 3 + 1
    identities = {n: commit.identity(secret_of(n)) for n in numbers}
    return Setup(b'session', identities, threshold, **more)


def words_of(setup, dtype=np.uint32, size=D):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    return {n: rng.integers(0, top, size, dtype, endpoint=True) for n in setup.identities}


def summed(setup, words, dropped=None):
    return secure_sum(setup, {n: secret_of(n) for n in words}, SENT, words, dropped)


def plain(words, numbers):
    dtype = next(iter(words.values())).dtype
    return np.sum([words[n] for n in numbers], axis=0, dtype=dtype)


def to_masked(setup, words, digests=None):
    """(clients, adverts, their masked words) after the third message."""
    clients, adverts, letters, sent = {}, {}, {}, {}
    for n in setup.identities:
        digest = (digests or {}).get(n, SENT)
        clients[n], adverts[n] = secure.advertise(setup, n, secret_of(n), digest)
    for n in clients:
        clients[n], letters[n] = secure.share(clients[n], list(adverts.values()))
    for n, received in route(letters).items():
        clients[n], sent[n] = secure.masked(clients[n], received, words[n])
    return clients, list(adverts.values()), sent


def agreed(clients, alive):
    """({survivor: the client after it signed}, their signatures)."""
    both = {n: secure.agree(clients[n], secret_of(n), alive) for n in alive}
    return {n: c for n, (c, _) in both.items()}, {n: x for n, (_, x) in both.items()}


def answers_of(clients, alive):
    clients, signatures = agreed(clients, tuple(alive))
    return {n: secure.unmask(c, signatures)[1] for n, c in clients.items()}


@pytest.mark.parametrize('dtype', [np.uint32, np.uint64])
@pytest.mark.parametrize('clients', [3, 5, 8])
def test_the_sum_is_exact_for_every_number_of_dropouts(clients, dtype):
    setup = setup_of(clients)
    words, numbers = words_of(setup, dtype), list(setup.identities)
    for lost in range(clients - needed(setup) + 1):
        for message in MESSAGES:
            gone = numbers[1 : 1 + lost]
            found = summed(setup, words, dict.fromkeys(gone, message))
            # Who sent its words is in the sum, whether it gave shares afterwards or not.
            after = message in ('agree', 'unmask')
            remain = numbers if after else [n for n in numbers if n not in gone]
            assert found.survivors == tuple(remain)
            np.testing.assert_array_equal(found.words, plain(words, remain))


def test_clients_may_drop_at_different_messages():
    setup = setup_of(15, threshold=8)
    words, numbers = words_of(setup), list(setup.identities)
    lost = dict(zip(numbers[::3], MESSAGES))
    found = summed(setup, words, lost)
    remain = [n for n in numbers if lost.get(n) in (None, 'agree', 'unmask')]
    np.testing.assert_array_equal(found.words, plain(words, remain))


@pytest.mark.parametrize('message', MESSAGES)
def test_below_the_threshold_nothing_is_summed(message):
    setup = setup_of(5)
    gone = dict.fromkeys(list(setup.identities)[:2], message)
    with pytest.raises(ValueError, match='3 of 5 clients .* needs 4') as error:
        summed(setup, words_of(setup), gone)
    assert '\n' not in str(error.value)


def test_fewer_honest_survivors_than_asked_for_are_refused_above_the_threshold():
    setup = setup_of(8, threshold=6, min_honest=5, colluding=2)
    words, first = words_of(setup), list(setup.identities)[0]
    assert summed(setup, words, {first: 'masked'}).survivors
    two = dict.fromkeys(list(setup.identities)[:2], 'masked')
    with pytest.raises(ValueError, match='6 of 8 .* needs 7'):
        summed(setup, words, two)


@pytest.mark.parametrize(
    ('clients', 'changes', 'message'),
    [
        (2, {'threshold': 2}, 'at least 3'),
        (1, {'threshold': 1}, 'at least 3'),
        (6, {'threshold': 3}, 'secure.threshold'),
        (6, {'threshold': 4, 'colluding': 2}, 'secure.threshold'),
        (6, {'threshold': 7}, 'secure.threshold'),
        (5, {'min_honest': 2}, 'secure.min_honest'),
        (5, {'colluding': -1}, 'secure.colluding'),
        (5, {'min_honest': 6}, 'more than the 5'),
        (5, {'threshold': 5, 'colluding': 3}, 'more than the 5'),
    ],
)
def test_what_protects_nobody_is_refused_by_every_client(clients, changes, message):
    setup = setup_of(clients, **changes)
    with pytest.raises(ValueError, match=message) as error:
        secure.advertise(setup, 3, secret_of(3), SENT)
    assert '\n' not in str(error.value)


def test_one_center_cannot_be_two_clients():
    setup = setup_of(4)
    twice = {**setup.identities, 13: setup.identities[3]}
    with pytest.raises(ValueError, match='one identity'):
        secure.advertise(setup._replace(identities=twice), 3, secret_of(3), SENT)


def chi_square(data):
    """Of the bytes being uniform, in standard deviations of its distribution."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = counts.sum() / 256
    return (((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(2 * 255)


def test_masked_words_of_any_clients_but_all_are_uniform():
    setup = setup_of(4)
    words = {n: np.zeros(20000, np.uint32) for n in setup.identities}
    assert chi_square(next(iter(words.values())).tobytes()) > 1000
    _, _, sent = to_masked(setup, words)
    arrays = [np.frombuffer(x, np.uint32) for x in sent.values()]
    for i in range(4):
        assert abs(chi_square(arrays[i].tobytes())) < 5
        assert abs(chi_square(sum(arrays[:i] + arrays[i + 1 :]).tobytes())) < 5  # three of four
    # All four: masks of pairs cancel, and the own ones still hide the sum.
    assert abs(chi_square(sum(arrays).tobytes())) < 5


def test_masks_are_new_in_every_sum():
    setup, words = setup_of(3), words_of(setup_of(3))
    (_, _, one), (_, _, two) = to_masked(setup, words), to_masked(setup, words)
    assert all(one[n] != two[n] for n in words)


def test_masks_of_a_pair_cancel_and_own_ones_remain():
    words, key = np.arange(D, dtype=np.uint32), b'k' * 32
    one = masks.mask(words, 2, {5: key}, b'a' * 32)
    two = masks.mask(words, 5, {2: key}, b'b' * 32)
    own = sum(masks.keystream(k * 32, D, np.uint32) for k in (b'a', b'b'))
    np.testing.assert_array_equal(one + two - own, 2 * words)
    with pytest.raises(ValueError, match='no peer of its own'):
        masks.mask(words, 2, {2: key}, b'a' * 32)


def test_the_stream_is_that_of_the_standard():
    """RFC 8439, appendix A.1, the first test vector: key, nonce and counter zero."""
    assert masks.keystream(bytes(32), 16, np.uint32).astype('<u4').tobytes().hex() == (
        '76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7'
        'da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586'
    )


def test_both_ends_agree_on_a_key_for_each_use():
    a, b = masks.draw_key(), masks.draw_key()
    A, B = masks.public_key(a), masks.public_key(b)
    assert masks.agree(a, B, 'x', 1) == masks.agree(b, A, 'x', 1)
    assert masks.agree(a, B, 'x', 1) != masks.agree(a, B, 'x', 2)
    with pytest.raises(ValueError):
        masks.agree(a, bytes(32))  # a point of small order: everybody would know the key


def test_a_client_never_gives_both_shares_of_a_peer():
    setup = setup_of(5)
    clients, _, _ = to_masked(setup, words_of(setup))
    alive = tuple(setup.identities)[:4]
    clients, signatures = agreed(clients, alive)
    done, answer = secure.unmask(clients[3], signatures)
    parts = unpack(answer)
    assert len(parts) == 2 * 5  # a number and one share of each
    given = dict(zip(parts[::2], parts[1::2]))
    for n, (key_share, seed_share) in clients[3].held.items():
        assert given[n.to_bytes(4, 'big')] == (seed_share if n in alive else key_share)
    assert not done.held
    with pytest.raises(ValueError, match='sent once'):
        secure.unmask(done, signatures)
    with pytest.raises(ValueError, match='sent once'):
        secure.agree(clients[3], secret_of(3), tuple(setup.identities))


def test_a_server_that_names_other_survivors_to_some_gets_no_shares():
    """Else it could collect both shares of a client, from those who think it alive and dropped."""
    setup = setup_of(6)
    clients, _, _ = to_masked(setup, words_of(setup))
    numbers = tuple(setup.identities)
    lists = {n: numbers if i < 3 else numbers[1:] for i, n in enumerate(numbers)}
    both = {n: secure.agree(clients[n], secret_of(n), lists[n]) for n in numbers}
    signatures = {n: x for n, (_, x) in both.items()}
    for client, _ in both.values():
        with pytest.raises(ValueError, match='3 of 6 clients agree on who sent their words'):
            secure.unmask(client, signatures)
    # Nor by signatures of others under its list, of another sum or of one client for all.
    forged = dict.fromkeys(numbers, signatures[numbers[0]])
    with pytest.raises(ValueError, match='1 of 6 clients agree'):
        secure.unmask(both[numbers[0]][0], forged)
    _, others = agreed(to_masked(setup, words_of(setup))[0], numbers)
    with pytest.raises(ValueError, match='0 of 6 clients agree'):
        secure.unmask(both[numbers[0]][0], others)


@pytest.mark.parametrize('survivors', [(3, 13), (13, 23, 33, 43), (3, 13, 23, 99)])
def test_a_client_tells_nothing_of_a_sum_of_too_few_without_it_or_of_strangers(survivors):
    clients, _, _ = to_masked(setup_of(5), words_of(setup_of(5)))
    with pytest.raises(ValueError):
        secure.agree(clients[3], secret_of(3), survivors)


def test_messages_out_of_order_are_refused():
    setup = setup_of(3)
    client, advert = secure.advertise(setup, 3, secret_of(3), SENT)
    with pytest.raises(ValueError, match='sent once'):
        secure.masked(client, {}, np.zeros(D, np.uint32))
    clients, _, _ = to_masked(setup, words_of(setup))
    with pytest.raises(ValueError, match='sent once'):
        secure.masked(clients[3], {}, np.zeros(D, np.uint32))
    with pytest.raises(ValueError, match='sent once'):
        secure.share(clients[3], [advert])


def adverts_of(setup, digests=()):
    return {
        n: secure.advertise(setup, n, secret_of(n), dict(digests).get(n, SENT))
        for n in setup.identities
    }


def test_a_client_that_was_sent_another_model_is_found_by_all():
    setup = setup_of(4)
    crafted = commit.digest({**MODEL, 'theta': MODEL['theta'] + 1})
    made = adverts_of(setup, {13: crafted})
    everything = [advert for _, advert in made.values()]
    for n, (client, _) in made.items():
        others = '13' if n != 13 else '3, 23, 33'
        with pytest.raises(ValueError, match=f'clients {others} another model'):
            secure.share(client, everything)


def test_masks_bound_to_the_model_turn_a_lie_into_noise(monkeypatch):
    """Even where nobody compares hashes; without the binding the sum would come out."""
    monkeypatch.setattr(commit, 'check_same', lambda own, others: None)
    setup = setup_of(4)
    words = {n: np.full(20000, n, np.uint32) for n in setup.identities}
    crafted = commit.digest({**MODEL, 'round': np.int32(5)})

    def total():
        clients, adverts, sent = to_masked(setup, words, {13: crafted})
        answers = answers_of(clients, sent)
        return unmasked(setup, adverts, tuple(sent), sent, answers, 32)

    assert abs(chi_square(total().tobytes())) < 5
    bound = secure.pair_key
    monkeypatch.setattr(secure, 'pair_key', lambda k, p, c, digest: bound(k, p, c, b''))
    np.testing.assert_array_equal(total(), plain(words, words))


def test_keys_that_are_not_their_client_s_are_refused():
    setup = setup_of(4)
    made = adverts_of(setup)
    client, own = made[3]
    adverts = {n: advert for n, (_, advert) in made.items()}
    body, signature = unpack(adverts[13], 2)
    stranger = pack([pack([99, *unpack(body, 5)[1:]]), signature])
    number, digest, mask_key, *rest = unpack(body, 5)
    swapped = pack([pack([number, digest, masks.public_key(masks.draw_key()), *rest]), signature])
    other_sum = secure.advertise(setup._replace(session=b'another'), 13, secret_of(13), SENT)[1]
    other_center = secure.advertise(setup, 13, secret_of(99), SENT)[1]
    fewer = dict(list(setup.identities.items())[:3])
    other_cohort = secure.advertise(setup._replace(identities=fewer), 13, secret_of(13), SENT)[1]
    for forged in (stranger, swapped, other_sum, other_center, other_cohort):
        with pytest.raises(ValueError, match='not signed by it'):
            secure.share(client, [*{**adverts, 13: forged}.values()])
    with pytest.raises(ValueError, match='not signed by it'):
        secure.share(client, [*adverts.values(), adverts[13]])  # twice
    with pytest.raises(ValueError, match='left its own keys out'):
        secure.share(client, [a for n, a in adverts.items() if n != 3])


def test_a_letter_is_read_by_its_receiver_alone():
    setup = setup_of(3)
    made = adverts_of(setup)
    everything = [advert for _, advert in made.values()]
    shared = {n: secure.share(client, everything) for n, (client, _) in made.items()}
    letters = route({n: found for n, (_, found) in shared.items()})
    words = np.zeros(D, np.uint32)
    flipped = bytearray(letters[3][13])
    flipped[5] ^= 1
    for wrong in (bytes(flipped), letters[23][13], letters[3][23], b''):
        with pytest.raises(ValueError, match='client 13: its shares'):
            secure.masked(shared[3][0], {**letters[3], 13: wrong}, words)
    with pytest.raises(ValueError, match='client 99'):
        secure.masked(shared[3][0], {**letters[3], 99: letters[3][13]}, words)


@pytest.mark.parametrize('place', [1, 40, 65])
@pytest.mark.parametrize('lost', [(), (13,)])
def test_a_changed_share_is_found_and_no_wrong_sum_returned(lost, place):
    setup = setup_of(5)
    clients, adverts, sent = to_masked(setup, words_of(setup))
    alive = tuple(n for n in sent if n not in lost)
    answers = answers_of(clients, alive)
    parts = unpack(answers[3])
    changed = bytearray(parts[3])  # of client 13
    changed[place] ^= 1
    answers[3] = pack([*parts[:3], bytes(changed), *parts[4:]])
    with pytest.raises(ValueError, match='client 13: the secret .* not its own'):
        unmasked(setup, adverts, tuple(sent), {n: sent[n] for n in alive}, answers, 32)


def test_what_a_sum_costs_is_told():
    setup = setup_of(4)
    words = words_of(setup, size=1000)
    found = summed(setup, words)
    assert set(found.seconds) == {'keys', 'mask', 'agree', 'unmask'}
    assert min(found.seconds.values()) > 0
    assert 4000 < found.up < 4000 + 4 * 450 and 0 < found.down < 4 * 900
    more = summed(setup, words_of(setup, size=2000))
    assert more.up - found.up == 4000 and more.down == found.down


def test_a_digest_tells_paths_types_shapes_and_numbers_apart():
    x = np.arange(4, dtype=np.float32)
    others = [
        {'a': x}, {'b': x}, {'a': x.reshape(2, 2)}, {'a': x.view(np.int32)},
        {'a': x + np.float32(1e-6)}, {'a': x[:2], 'b': x[2:]}, {'a': {'a': x}}, {},
    ]
    found = [commit.digest(t) for t in others]
    assert len(set(found)) == len(found) and {len(f) for f in found} == {32}
    assert commit.digest({'a': x.copy()}) == found[0]


def test_only_the_center_signs_for_itself():
    secret, data = secret_of(1), b'round 4'
    signature = commit.sign(secret, data)
    assert commit.verify(commit.identity(secret), signature, data)
    assert not commit.verify(commit.identity(secret_of(2)), signature, data)
    assert not commit.verify(commit.identity(secret), signature, b'round 5')
    assert not commit.verify(commit.identity(secret), b'', data)


@pytest.mark.parametrize('cut', [1, 3, 7])
def test_cut_messages_are_refused(cut):
    message = pack([b'abc', 5, b''])
    assert unpack(message) == [b'abc', (5).to_bytes(4, 'big'), b'']
    with pytest.raises(ValueError):
        unpack(message[:-cut], 3)
    with pytest.raises(ValueError):
        unpack(message, 2)
