"""Features of training steps that another run kept: the same training without the images."""

import jax
import numpy as np
import pytest
from frozen_network import configured

from fedgen_jax import step_features
from fedgen_jax.data.examples import stack
from fedgen_jax.engine.rounds import init_run
from fedgen_jax.feed import all_steps, clients_with_room, cohort_steps
from fedgen_jax.run import prepare
from fedgen_jax.settings import settings_of

USING = (
    'fedgen', 'fedavg', 'fedprox', 'scaffold', 'ditto', 'fedbn', 'silobn', 'fedrep', 'fedsam', 'ga',
    'fedsr', 'knnper', 'tent', 't3a', 'shot', 'pfedfda', 'local_only', 'apfl',
    'pfedme', 'ifca', 'atp',
)
NEEDS = {
    'silobn': {'model.last': 'batch', 'statistics': 'last'},
    'fedgen': {'fedgen.support': 4},
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('steps')


def trained(folder, features, steps=all_steps, **changes):
    """(the states before and after a round, on the host; the run)."""
    c = configured(folder, **{
        'rounds': 1, 'local_steps': 2, 'data.features': features, 'client.lr': 0.1,
        'data.cache': str(folder / 'cache'), **changes,
    })
    run = prepare(c)
    ids = np.arange(len(run.seen), dtype=np.int32)
    begun = init_run(run.program.algorithm, run.program.mesh, run.key, ids)
    begun = jax.tree.map(np.array, jax.device_get(begun))
    advance, _ = steps(run, *begun, 0, lambda: None)
    state, private_C, _ = advance(*jax.tree.map(np.array, begun), 0, 1)
    return begun, jax.device_get((state, private_C)), run


def assert_trained_alike(begun, kept, made):
    """Gaps are small beside what training moved: some features hardly vary, so that rounding does.
    """
    def check(x, a, b):
        assert np.abs(a - b).max(initial=0) <= 0.01 * np.abs(b - x).max(initial=0) + 1e-6

    jax.tree.map(check, begun, kept, made)
    assert moved(begun, made) > 1e-3


def moved(begun, done):
    pairs = zip(*map(jax.tree.leaves, (begun, done)))
    return max(np.abs(a - b).max(initial=0) for a, b in pairs if a.dtype == np.float32)


@pytest.mark.extended
@pytest.mark.parametrize('name', USING)
def test_training_on_kept_features_is_training_on_images(folder, name):
    changes = {'algorithm': name, **NEEDS.get(name, {})}
    begun, kept, run = trained(folder, 'kept', **changes)
    assert run.program.algorithm.features
    assert_trained_alike(begun, kept, trained(folder, 'made', **changes)[1])


@pytest.mark.extended
def test_cohorts_with_drawn_centers_train_alike(folder):
    changes = {'algorithm': 'fedavg', 'data.virtual': 2, 'data.virtual_share': 0.5}
    begun, kept, _ = trained(folder, 'kept', cohort_steps, **changes)
    assert_trained_alike(begun, kept, trained(folder, 'made', cohort_steps, **changes)[1])


def names_and_steps(folder, **changes):
    """Names of the files after a round's features were asked for, and these."""
    c = configured(folder, **{
        'algorithm': 'fedavg', 'data.features': 'kept', 'data.cache': str(folder / 'cache'),
        **changes,
    })
    run = prepare(c)
    data_C = stack(clients_with_room(run)[0], run.length)
    found = step_features.step_features(run)(data_C, np.arange(len(run.seen)), 0)
    return {x.name for x in (folder / 'cache' / step_features.FOLDER).iterdir()}, found.steps


@pytest.mark.parametrize('change', [
    {'seed': 1},
    pytest.param({'shifts.acquisition': 0.5}, marks=pytest.mark.extended),
    pytest.param({'prevalence': 'balanced'}, marks=pytest.mark.extended),
])
def test_another_rate_finds_all_features_and_another_seed_or_shift_none(tmp_path, change):
    files, steps = names_and_steps(tmp_path)
    again, same = names_and_steps(tmp_path, **{'client.lr': 0.2, 'algorithm': 'fedprox'})
    assert again == files and len(files) == 2
    np.testing.assert_array_equal(same, steps)
    more, _ = names_and_steps(tmp_path, **change)
    assert len(more - files) == 2


def test_the_choice_is_no_setting_of_a_run(tmp_path):
    made, kept = (configured(tmp_path, **{'data.features': x}) for x in ('made', 'kept'))
    assert settings_of(made) == settings_of(kept)


@pytest.mark.parametrize('changes', [
    {'algorithm': 'mixstyle'},  # changes what layers on the way make
    {'algorithm': 'pooled'},  # takes more steps
    {'algorithm': 'fedgen', 'fedgen.modes': ('film',)},  # changes the frozen layers
    {'algorithm': 'fedgen', 'fedgen.local': 'weights'},  # draws otherwise
    {'algorithm': 'fedavg', 'model.trained': 'adapters'},
])
def test_who_needs_the_images_has_them(tmp_path, changes):
    run = prepare(configured(tmp_path, **{'data.features': 'kept', **changes}))
    assert step_features.step_features(run) is None
