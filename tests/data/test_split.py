"""The split: its shares, its strata, and what it does not depend on."""

import numpy as np
import pytest

from fedgen_jax.data.split import assign_splits


def split(n, center='c', seed=0, patient=None, stratum=None, given=None, order=None):
    order = np.arange(n) if order is None else order
    pick = lambda values: [values[i] for i in order]  # noqa: E731
    result = assign_splits(
        center,
        pick([f'images/{i}.png' for i in range(n)]),
        pick(patient if patient is not None else [''] * n),
        pick(stratum if stratum is not None else [0] * n),
        pick(given if given is not None else [''] * n),
        seed,
    )
    assert result.dtype == np.int8
    return result


@pytest.mark.parametrize('n', [1, 2, 3, 5, 7, 10, 33, 351, 1000])
def test_each_split_has_its_share_up_to_one(n):
    for seed in range(20):
        count = np.bincount(split(n, seed=seed), minlength=3)
        assert np.all(np.abs(count - n * np.array([0.6, 0.2, 0.2])) < 1)


def test_each_stratum_has_its_share():
    stratum = np.repeat(range(4), [100, 50, 20, 5])
    result = split(175, stratum=stratum)
    for k, n in enumerate([100, 50, 20, 5]):
        count = np.bincount(result[stratum == k], minlength=3)
        assert np.all(np.abs(count - n * np.array([0.6, 0.2, 0.2])) < 1)


def test_one_image_falls_in_each_split_as_often_as_it_should():
    stratum = [0] * 5 + [1]  # the only one of its class
    last = np.array([split(6, stratum=stratum, seed=seed)[-1] for seed in range(2000)])
    np.testing.assert_allclose(np.bincount(last) / 2000, [0.6, 0.2, 0.2], atol=0.04)


@pytest.mark.parametrize('n', [1, 2, 3])
def test_a_small_center_has_something_to_train_on(n):
    results = [split(n, stratum=list(range(n)), seed=seed) for seed in range(300)]
    assert all(np.any(result == 0) for result in results)
    # One unit moves, and only where the draw gives none: the others still fall as they should.
    elsewhere = np.mean([np.mean(result != 0) for result in results])
    none = 0.4**n  # no unit of n is drawn for training
    assert abs(elsewhere - (0.4 - none / n)) < 0.06


def test_what_moves_to_training_has_a_class_where_one_has():
    moved = 0
    for seed in range(200):
        unknown = split(2, stratum=[None, 1], seed=seed)
        moved += unknown[1] == 0 and unknown[0] != 0
        assert np.any(unknown == 0)
        order = split(2, stratum=[None, 1], seed=seed, order=[1, 0])
        np.testing.assert_array_equal(order, unknown[::-1])
    assert 0.32 < moved / 200 < 0.48  # .24 by the draw, .16 by the move


def test_a_given_split_is_left_without_training():
    for seed in range(20):
        assert split(3, given=['test', '', 'val'], seed=seed)[0] == 2
        assert list(split(2, given=['test', 'val'], seed=seed)) == [2, 1]


def test_it_depends_on_the_seed_and_the_center_alone():
    base = split(200)
    np.testing.assert_array_equal(base, split(200))
    assert np.mean(base != split(200, seed=1)) > 0.3
    assert np.mean(base != split(200, center='d')) > 0.3


def test_the_draw_never_changes():
    assert split(12, stratum=[i % 2 for i in range(12)]).tolist() == [
        0, 0, 1, 0, 0, 2, 0, 1, 2, 0, 0, 0,
    ]


def test_the_order_of_images_does_not_matter():
    rng = np.random.default_rng(0)
    kwargs = {
        'patient': [str(p) if p else '' for p in rng.integers(0, 30, 200)],
        'stratum': list(rng.integers(0, 3, 200)),
        'given': [''] * 200,
    }
    order = rng.permutation(200)
    np.testing.assert_array_equal(split(200, **kwargs)[order], split(200, order=order, **kwargs))


def test_the_names_of_strata_do_not_matter():
    stratum = np.random.default_rng(0).integers(0, 4, 100)
    names = np.array(['d', 'a', 'c', 'b'])[stratum]
    np.testing.assert_array_equal(split(100, stratum=stratum), split(100, stratum=list(names)))


@pytest.mark.parametrize('seed', range(5))
def test_a_patient_lies_in_one_split(seed):
    rng = np.random.default_rng(seed)
    patient = np.array([str(p) for p in rng.integers(0, 25, 300)])
    # Labels differ within a patient: strata must not tear it apart.
    result = split(300, patient=list(patient), stratum=list(rng.integers(0, 5, 300)), seed=seed)
    assert all(len(set(result[patient == p])) == 1 for p in np.unique(patient))
    assert set(result) == {0, 1, 2}


def test_shares_count_patients():
    patient = [str(i // 7) for i in range(700)]
    count = np.bincount(split(700, patient=patient)[::7], minlength=3)
    np.testing.assert_array_equal(count, [60, 20, 20])


def test_given_splits_are_kept_and_bind_the_patient():
    patient = ['p', 'p', 'p', '', '', 'q']
    given = ['', 'test', '', 'val', '', '']
    for seed in range(10):
        result = split(6, patient=patient, given=given, seed=seed)
        assert list(result[:4]) == [2, 2, 2, 1]


def test_images_of_a_given_split_do_not_move_the_others():
    free = split(50)
    given = [''] * 50 + ['test'] * 20
    np.testing.assert_array_equal(split(70, given=given)[:50], free)


def test_a_patient_in_two_given_splits_is_refused():
    with pytest.raises(ValueError, match="patient 'p' is in test and in train"):
        split(2, patient=['p', 'p'], given=['train', 'test'])
