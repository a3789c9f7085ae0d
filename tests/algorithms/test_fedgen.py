"""FedGen on one client: what its change is, what it is made from, and what it must not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.episodes import Hypernet
from fedgen_jax.algorithms.fedgen import fedgen
from fedgen_jax.algorithms.local import Batch, Local, Steps, batch_loss
from fedgen_jax.data.examples import Examples
from fedgen_jax.hypernet.descriptor import Descriptor
from fedgen_jax.hypernet.generator import Generator, refine, shapes_of
from fedgen_jax.models import CNN
from fedgen_jax.shifts import Shift, chain
from fedgen_jax.tasks import classification

RATE = 1.0
MODES = ('input', 'film', 'lowrank', 'head')
OPTIONS = (('code', 8), ('rank', 2))

# Every draw of this shift is the same virtual center, so that a test can play it too.
DARKER = Shift(lambda key: jnp.float32(0.7), lambda tau, key, image, target: (tau * image, target))

STEPS = Steps(2, optax.sgd(0.1))
LOCAL = Local(
    model=CNN(3, widths=(8,)), task=classification('abc'), image_size=16, plain=chain(),
    shift=DARKER, optimizer=optax.sgd(RATE), schedule=lambda round_: 1.0, steps=1, batch=4,
    prevalence='natural', weighting='examples', finetune=STEPS, alone=STEPS, oracle=STEPS,
)


def make(local_update='meta', release=None, decay=0.0, **changes):
    fields = {
        'descriptor': 'learned', 'modes': MODES, 'options': OPTIONS, 'num_clients': 4,
        'support': 4, 'support_prevalence': 'same', 'pooled': 0.0, 'base_share': 0.0, **changes,
    }
    local = LOCAL._replace(decay=decay)
    return fedgen(local, Hypernet(**fields), optax.sgd(1.0), local_update, release)


@functools.cache
def shared_of(descriptor='learned'):
    """What a server in mid-training sends: every number moved, so that all gradients live."""
    shared = jax.jit(make(descriptor=descriptor).init)(jax.random.key(0)).shared
    rng = np.random.default_rng(0)

    def move(x):
        return x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype)

    return {**shared, **{k: jax.tree.map(move, shared[k]) for k in ('theta', 'phi', 'psi')}}


def examples(n, seed=0, padding=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (n + padding, 16, 16, 3), np.uint8)
    label = rng.integers(0, 3, n + padding).astype(np.int32)
    return Examples(image, {'label': label}, (np.arange(n + padding) < n).astype(np.float32))


@functools.cache
def updater(**changes):
    return jax.jit(make(**changes).client_update)


def contribution(data, **changes):
    """What client 0 sends under a method's `changes`."""
    private, key = {'id': jnp.int32(0)}, jax.random.key(3)
    return updater(**changes)(shared_of(), private, data, key)[0]


def assert_close(a, b):
    def close(x, y):
        # A change is a difference of weights near 1: exact to float32's 1e-7.
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=3e-7 + 1e-4 * np.abs(y).max())

    jax.tree.map(close, a, b)


@pytest.fixture(scope='module')
def gradient():
    """The gradient of the episode's loss, by hand, at a client that has one image.

    Whatever is drawn from it is this image, so support and query are known without the draws.
    """
    shared, data = shared_of(), examples(1)
    x = 0.7 * images_of(jnp.asarray(data.image))
    batch = Batch(x, {'label': jnp.asarray(data.target['label'])}, jnp.ones(1))

    def loss(w):
        generator = Generator(shapes_of(w['theta']), MODES, **dict(OPTIONS))
        m_E = Descriptor().apply({'params': w['psi']}, x).mean(0)
        change = generator.apply({'params': w['phi']}, m_E, shared['normal'])
        return batch_loss(LOCAL, refine(w['theta'], change), batch)[0]

    return jax.jit(jax.grad(loss))({k: shared[k] for k in ('theta', 'phi', 'psi')})


@pytest.mark.parametrize('local_update', ['meta', 'weights'])
def test_one_step_s_change_is_minus_the_rate_times_the_gradient(gradient, local_update):
    """For 'weights': the pull-back (W_1 - W_0)^T dW_0/d(theta, phi, psi), with T = 1 and SGD."""
    sent = contribution(examples(1, padding=2), local_update=local_update)
    assert sent['weight'] == 1
    for name in ('theta', 'phi', 'psi'):
        assert max(np.abs(g).max() for g in jax.tree.leaves(gradient[name])) > 1e-5
    assert_close(sent['delta'], jax.tree.map(lambda g: -RATE * g, gradient))


def test_client_rates_scale_the_steps_of_phi_and_psi(gradient):
    sent = contribution(examples(1), rates=(3.0, 0.0))
    assert_close(sent['delta']['theta'], jax.tree.map(lambda g: -RATE * g, gradient['theta']))
    assert_close(sent['delta']['phi'], jax.tree.map(lambda g: -3 * RATE * g, gradient['phi']))
    assert not any(x.any() for x in jax.tree.leaves(sent['delta']['psi']))


def test_decay_holds_the_model_s_weights_and_not_the_generator_s(gradient):
    """Whose kernels begin at zero: what drew them there left nothing of it."""
    sent, without = (contribution(examples(1), decay=decay)['delta'] for decay in (0.5, 0.0))
    for name in ('phi', 'psi'):
        assert_close(sent[name], without[name])
    kernel = shared_of()['theta']['head']['kernel']
    drawn = sent['theta']['head']['kernel'] - without['theta']['head']['kernel']
    assert_close(drawn, -RATE * 0.5 * kernel)


@pytest.mark.parametrize('local_update', ['meta', 'weights'])
def test_a_released_descriptor_carries_no_gradient(gradient, local_update):
    data, same = examples(1), lambda m_E, key: m_E
    delta = contribution(data, local_update=local_update, release=same)['delta']
    assert not any(x.any() for x in jax.tree.leaves(delta['psi']))
    expected = {k: jax.tree.map(lambda g: -RATE * g, gradient[k]) for k in ('theta', 'phi')}
    assert_close({k: delta[k] for k in expected}, expected)


def test_a_released_descriptor_is_the_one_that_is_used(gradient):
    delta = contribution(examples(1), release=lambda m_E, key: m_E + 0.5)['delta']
    far = jax.tree.map(lambda d, g: np.abs(d + RATE * g).max(), delta['theta'], gradient['theta'])
    assert max(jax.tree.leaves(far)) > 1e-4


def test_a_client_without_examples_sends_exact_zeros():
    sent = contribution(examples(0, padding=3), local_update='meta')
    assert not any(x.any() for x in jax.tree.leaves(sent))


def test_the_base_share_turns_the_generator_off():
    """An episode on the base alone gives the generator no gradient."""
    delta = contribution(examples(5), base_share=1.0)['delta']
    assert not any(x.any() for x in jax.tree.leaves((delta['phi'], delta['psi'])))
    assert any(x.any() for x in jax.tree.leaves(delta['theta']))


def test_an_episode_on_the_pooled_descriptor_teaches_phi_not_psi():
    # Half of such episodes take the pooled one alone, the others a mixture.
    algorithm, shared = make(pooled=1.0), shared_of()
    data = jax.tree.map(jnp.asarray, examples(5))
    private = {'id': jnp.int32(0)}

    @jax.jit
    @jax.vmap
    def moves(key):
        delta = algorithm.client_update(shared, private, data, key)[0]['delta']
        return [optax.tree.norm(delta[k]) for k in ('phi', 'psi')]

    phi, psi = moves(jax.random.split(jax.random.key(0), 32))
    assert (phi > 0).all()
    assert 0.2 < (psi == 0).mean() < 0.8


# -------------------------------------------------------------------------- the finished model


@functools.cache
def personalizer(descriptor='learned'):
    return jax.jit(make(descriptor=descriptor).personalize)


def model(descriptor='learned', client=None, data=None, m_E=None, labelled=None):
    private = None if client is None else {'id': jnp.int32(client)}
    data = examples(6, padding=2) if data is None else data
    return personalizer(descriptor)(
        shared_of(descriptor), private, data, labelled, jax.random.key(1), m_E
    )


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_an_unseen_center_s_model_does_not_depend_on_its_labels_or_padding():
    data = examples(6, padding=2)
    for label in (np.zeros(8, np.int32), np.full(8, -1, np.int32)):
        assert same(model(data=data), model(data=data._replace(target={'label': label})))
    image = data.image.copy()
    image[6:] = 200
    assert same(model(data=data), model(data=data._replace(image=image)))
    image[0] = 200
    assert not same(model(data=data), model(data=data._replace(image=image)))


def test_a_given_descriptor_replaces_that_of_the_images():
    algorithm, data = make(), examples(6)
    m_E = jax.jit(algorithm.describe)(shared_of(), data.image).mean(0)
    assert_close(model(data=data, m_E=m_E), model(data=data))
    assert same(model(data=data, m_E=m_E), model(data=examples(6, seed=1), m_E=m_E))
    assert not same(model(data=data), model(data=examples(6, seed=1)))


def test_a_seen_client_without_private_state_gets_the_same_zero_shot_model():
    assert same(model(client=2), model())  # a learned descriptor asks for the images alone


def test_a_stranger_s_descriptor_is_drawn_to_the_pooled_one():
    """At 0 all strangers have the pooled descriptor's model; a seen client keeps its own."""
    shared, data = shared_of(), examples(6)

    def made(share, private, m_E=None):
        return jax.jit(make(stranger=share).personalize)(
            shared, private, data, None, jax.random.key(1), m_E
        )

    assert_close(made(0.0, None), made(1.0, None, shared['pooled']))
    assert not same(made(0.0, None), made(1.0, None))
    seen = {'id': jnp.int32(2)}
    assert same(made(0.0, seen), made(1.0, seen))


def test_a_stranger_of_a_centered_generator_can_have_the_base():
    shared, data, seen = shared_of(), examples(6), {'id': jnp.int32(2)}

    def made(share, private=None):
        model = make(stranger=share, options=(*OPTIONS, ('centered', True))).personalize
        return jax.jit(model)(shared, private, data, None, jax.random.key(1))['params']

    assert same(made(0.0), shared['theta']) and not same(made(0.5), shared['theta'])
    assert same(made(0.0, seen), made(1.0, seen)) and not same(made(0.0, seen), made(0.0))


def test_a_stranger_takes_a_share_of_the_generated_change():
    """At 0 it has the base, and at a half what lies halfway; a seen client keeps its own."""
    shared, data = shared_of(), examples(6)

    def made(share, private=None):
        found = jax.jit(make(stranger_change=share).personalize)(
            shared, private, data, None, jax.random.key(1)
        )
        return found['params']

    assert same(made(0.0), shared['theta']) and not same(made(1.0), shared['theta'])
    assert_close(made(0.5), jax.tree.map(lambda a, b: (a + b) / 2, made(0.0), made(1.0)))
    seen = {'id': jnp.int32(2)}
    assert same(made(0.0, seen), made(1.0, seen))


def test_constant_descriptor_gives_all_the_same_model_and_still_changes_the_base():
    models = [model('constant', client) for client in (0, 3, None)]
    assert same(models[0], models[1]) and same(models[0], models[2])
    assert same(models[0], model('constant', 0, data=examples(6, seed=1)))
    assert not same(models[0]['params'], shared_of('constant')['theta'])
    assert make(descriptor='constant').describe is None


def test_onehot_descriptor_is_the_client_s_number_and_uniform_for_a_stranger():
    one = model('onehot', 1)
    assert same(one, model('onehot', 1, data=examples(6, seed=1)))
    assert not same(one, model('onehot', 2))
    assert_close(one, model('onehot', m_E=jnp.eye(4)[1]))
    assert_close(model('onehot'), model('onehot', m_E=jnp.full(4, 0.25)))


def test_without_modes_the_model_is_the_base():
    off = make(modes=())
    state = jax.jit(off.init)(jax.random.key(0))
    assert set(state.shared) == {'theta', 'phi', 'psi', 'round'} and off.describe is None
    done = off.personalize(state.shared, None, examples(3), None, jax.random.key(0))
    assert same(done['params'], state.shared['theta'])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'local_update': 'gradients'}, "fedgen.local='gradients': one of"),
    ],
)
def test_unknown_values_are_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        jax.eval_shape(make(**changes).init, jax.random.key(0))
    assert '\n' not in str(error.value)
