"""FedSR and FedDG-ELCFS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import KEY, assert_same, configured, drawn_clients, roll

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.baselines.elcfs import amplitudes, restyled
from fedgen_jax.baselines.fedsr import kl
from fedgen_jax.data import synthetic
from fedgen_jax.models import CNN
from fedgen_jax.models.representation import with_representation
from fedgen_jax.program import make_algorithm

pytestmark = pytest.mark.extended


@pytest.fixture(scope='module')
def clients():
    return drawn_clients()


@pytest.fixture(scope='module')
def fedavg(clients):
    """FedAvg's state after two rounds."""
    return roll({'algorithm': 'fedavg'}, clients)[0]


def made(changes):
    return make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)


def lengths(changes, state, clients):
    """The mean squared length of the first client's representations."""
    _, local = made(changes)
    theta, x = state.shared['theta'], clients.image[0] / np.float32(255)
    z = with_representation(
        local.model, theta, lambda: local.model.apply({'params': theta}, x, train=True)
    )[1]
    return float((z**2).sum(-1).mean())


# -------------------------------------------------------------------------------- FedSR


def test_without_penalties_fedsr_is_fedavg_to_the_bit(clients, fedavg):
    state, _, _ = roll({'algorithm': 'fedsr', 'fedsr.l2r': 0.0, 'fedsr.cmi': 0.0}, clients)
    assert_same(state.shared['theta'], fedavg.shared['theta'])


def test_the_penalty_shortens_representations_and_the_reference_learns(clients):
    changes = {'algorithm': 'fedsr', 'local_steps': 8}
    free, _, _ = roll({**changes, 'fedsr.l2r': 0.0}, clients)
    held, _, _ = roll({**changes, 'fedsr.l2r': 1.0}, clients)
    assert lengths(changes, held, clients) < 0.8 * lengths(changes, free, clients)
    first = jax.jit(made(changes)[0].init)(KEY).shared['reference']
    for name, x in first.items():
        assert (free.shared['reference'][name] != x).any(), name


def test_the_class_term_is_a_divergence():
    """Zero of a Gaussian to itself, and what sampling says elsewhere."""
    mean, spread = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
    assert kl(mean, spread, mean, spread) == pytest.approx(0, abs=1e-6)
    mean_y, spread_y = jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0])
    z = mean[None] + spread[None] * jax.random.normal(KEY, (200_000, 2))

    def log_density(m, s):
        return (-0.5 * ((z - m[None]) / s[None]) ** 2 - jnp.log(s)[None]).sum(-1)

    sampled = (log_density(mean, spread) - log_density(mean_y, spread_y)).mean()
    assert kl(mean, spread, mean_y, spread_y) == pytest.approx(float(sampled), rel=0.02)


def test_the_representation_is_what_the_head_reads():
    model = CNN(3, widths=(8,))
    x = jax.random.uniform(KEY, (2, 16, 16, 3))
    params = model.init(KEY, x)['params']

    def apply():
        return model.apply({'params': params}, x)

    logits, z = with_representation(model, params, apply)
    head = params['head']
    np.testing.assert_allclose(z @ head['kernel'] + head['bias'][None], logits, rtol=1e-5)
    none, _ = with_representation(model, params, apply, jnp.zeros_like)
    assert (none == head['bias'][None]).all()


class Headless(CNN):
    """No weight of it is a head's."""

    @staticmethod
    def roles(path):
        return None


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'algorithm': 'fedsr', 'task': 'multilabel'}, 'fedsr.cmi=0'),
        ({'algorithm': 'fedsr', 'fedsr.l2r': -1.0}, 'at least 0'),
        ({'algorithm': 'elcfs', 'elcfs.band': 0.5}, 'elcfs.band'),
        ({'algorithm': 'elcfs', 'elcfs.most': 2.0}, 'elcfs: most=2.0'),
        ({'algorithm': 'elcfs', 'privacy.clip': 1.0}, 'privacy.clip'),
    ],
)
def test_what_could_not_do_its_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(changes)


def test_a_model_without_a_head_is_refused():
    algorithm, _ = made({'algorithm': 'fedsr', 'model.name': f'{__name__}:Headless'})
    with pytest.raises(ValueError, match='role head'):
        jax.eval_shape(algorithm.init, KEY)


# -------------------------------------------------------------------------- FedDG-ELCFS


@pytest.mark.parametrize('name', ['most', 'meta'])
def test_without_episodes_elcfs_is_fedavg_to_the_bit(clients, fedavg, name):
    state, _, _ = roll({'algorithm': 'elcfs', f'elcfs.{name}': 0.0}, clients)
    assert_same(state.shared['theta'], fedavg.shared['theta'])


def test_a_restyled_image_has_the_other_s_amplitudes_and_its_own_phases():
    x, other = jax.random.uniform(KEY, (2, 2, 16, 16, 3), minval=0.4, maxval=0.6)
    half = 2
    given = amplitudes(other, half)
    np.testing.assert_allclose(restyled(x, given, jnp.zeros(2)), x, atol=1e-5)
    new = restyled(x, given, jnp.ones(2))
    np.testing.assert_allclose(amplitudes(new, half), given, rtol=1e-3)
    between = restyled(x, given, jnp.full(2, 0.25))
    np.testing.assert_allclose(
        amplitudes(between, half), 0.75 * amplitudes(x, half) + 0.25 * given, rtol=1e-3
    )
    spectra = [jnp.fft.fft2(image, axes=(1, 2)) for image in (x, new)]
    turned = jnp.angle(spectra[1] / spectra[0])
    assert jnp.abs(turned).max() < 1e-2
    np.testing.assert_allclose(new.mean((1, 2)), other.mean((1, 2)), rtol=1e-4)  # frequency 0


def test_the_bank_holds_each_client_s_own_spectra(clients):
    state, _, _ = roll({'algorithm': 'elcfs', 'elcfs.meta': 0.0}, clients, rounds=1)
    assert state.shared['filled'].tolist() == [1, 1, 1]  # and nothing of who has no examples
    for i in range(3):
        own = amplitudes(images_of(clients.image[i]), 0)  # a band of 0.05 of 16 pixels
        for row in state.shared['bank'][i]:
            assert np.abs(row[None] - own).max((1, 2, 3)).min() < 1e-2


def test_an_episode_meets_others_spectra_and_never_its_own(clients):
    """A client's steps follow what others have sent; what it has sent itself moves nothing."""
    changes = {'algorithm': 'elcfs', 'elcfs.band': 0.2}
    algorithm, _ = made(changes)
    shared = jax.jit(algorithm.init)(KEY).shared
    update = jax.jit(algorithm.client_update)
    data = jax.tree.map(lambda x: x[0], clients)
    private = algorithm.init_private(None, jnp.int32(0))

    def sent(filled, bank):
        new = {**shared, 'filled': jnp.array(filled), 'bank': jnp.full_like(shared['bank'], bank)}
        return update(new, private, data, KEY)[0]['delta']

    alone = sent([0.0, 0.0, 0.0], 0.0)
    assert_same(alone, sent([1.0, 0.0, 0.0], 40.0))
    same = jax.tree.map(jnp.array_equal, alone, sent([1.0, 1.0, 0.0], 40.0))
    assert not all(jax.tree.leaves(same))
