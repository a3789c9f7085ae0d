"""Private steps: without privacy plain gradient descent, with it bounded and noisy as declared."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn import centers
from families import KEY, configured

from fedgen_jax.algorithms.draws import images_of
from fedgen_jax.algorithms.learning import Learning, learn
from fedgen_jax.algorithms.local import init_model
from fedgen_jax.data import synthetic
from fedgen_jax.privacy.dpsgd import Own, Private, clipped_sum, gradient, trainable_of
from fedgen_jax.privacy.units import patient_table
from fedgen_jax.program import make_algorithm

pytest.importorskip('jax_privacy', reason='the extra `privacy`')

N, PATIENTS = 24, 10
UNIT = [str(i % 7) if i < 21 else f'{i}' for i in range(N)]  # seven of three images, three of one
TABLE = patient_table(UNIT, 4)
DATA = next(iter(centers(1, N, 16))).examples
DATA = jax.tree.map(jnp.asarray, DATA._replace(target={'label': DATA.target['label']}))


def own_of(sigma=1.0, secret=(1, 2), table=TABLE, units=PATIENTS):
    index, real = (jnp.asarray(x) for x in table)
    return Own(
        index, real, jnp.float32(units), jnp.array(secret, jnp.uint32), jnp.float32(sigma)
    )


def private_of(local, **change):
    made = Private(clip=0.05, rate=0.5, trainable=trainable_of(local.model, 'all'))
    return made._replace(**change)


LOCAL = make_algorithm(
    configured({'client.lr': 0.1, 'client.momentum': 0.0, 'client.clip': 0.0}), 16,
    synthetic.CLASSES, 1,
)[1]
PARAMS = init_model(LOCAL, KEY)


def loss_of(params, index_G, real_G, key):
    """A patient's mean loss, on images as they are."""
    logits = LOCAL.model.apply({'params': params}, images_of(DATA.image[index_G]), train=True)
    target = {k: jnp.asarray(v)[index_G] for k, v in DATA.target.items()}
    return LOCAL.task.loss(logits, target, real_G)


def sum_of(private, own, params=PARAMS, draw=3):
    total = clipped_sum(private, loss_of, params, own, jax.random.key(draw), KEY)
    return np.concatenate([np.ravel(total[k]) for k in sorted(total)])


def test_without_clip_noise_and_sampling_it_is_gradient_descent():
    """T steps equal those on the mean over patients of the mean over their images."""
    private = private_of(LOCAL, clip=math.inf, rate=1.0)
    local = LOCAL._replace(private=private, steps=3, plain=LOCAL.shift, shift=LOCAL.shift)
    data = DATA._replace(own=own_of(sigma=0.0))
    found, loss, aux = jax.jit(lambda d: learn(Learning(local, PARAMS, 1.0), d, KEY))(data)
    assert loss is None and aux == ()  # neither leaves

    def mean_loss(params):
        index, real = (jnp.asarray(x) for x in TABLE)
        return jax.vmap(lambda i, r: loss_of(params, i, r, KEY))(index, real).mean()

    wanted = PARAMS
    for _ in range(3):
        step = jax.tree.map(lambda g: -0.1 * g, jax.grad(mean_loss)(wanted))
        wanted = optax.apply_updates(wanted, step)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, PARAMS)
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_the_noise_has_the_declared_deviation():
    private, own = private_of(LOCAL, clip=0.05, rate=0.5), own_of(sigma=3.0)
    exact = gradient(private, loss_of, PARAMS, own._replace(sigma=jnp.float32(0)), KEY)
    noisy = gradient(private, loss_of, PARAMS, own, KEY)
    gap = np.concatenate([
        np.ravel(a - b) for a, b in zip(jax.tree.leaves(noisy), jax.tree.leaves(exact))
    ])
    assert gap.std() == pytest.approx(3.0 * 0.05 / (0.5 * PATIENTS), rel=0.05)
    assert abs(np.corrcoef(gap[:-1], gap[1:])[0, 1]) < 0.1  # leaves draw apart


@pytest.mark.parametrize('change', [
    {'secret': (1, 3)}, {'name': 'generator'}, {'key': jax.random.key(9)},
])
def test_centers_mechanisms_and_steps_draw_apart(change):
    """Of the same data: another secret, name or step has noise that tells nothing of the first."""
    def noise(secret=(1, 2), name='training', key=KEY):
        private = private_of(LOCAL, name=name, clip=1.0)
        nobody = own_of(2.0, secret, (TABLE[0], 0 * TABLE[1]))
        grads = gradient(private, loss_of, PARAMS, nobody, key)
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)])

    first, other = noise(), noise(**change)
    np.testing.assert_array_equal(first, noise())
    assert abs(np.corrcoef(first, other)[0, 1]) < 4 / len(first) ** 0.5


def test_an_empty_sample_is_a_step_of_noise():
    nobody = own_of(1.0, table=(TABLE[0], 0 * TABLE[1]))
    assert not sum_of(private_of(LOCAL), nobody).any()
    grads = gradient(private_of(LOCAL), loss_of, PARAMS, nobody, KEY)
    assert all(np.isfinite(x).all() and x.any() for x in jax.tree.leaves(grads))


def test_nan_images_do_no_harm():
    def broken(params, index_G, real_G, key):
        return jnp.where(index_G[0] == 0, jnp.nan, 1.0) * loss_of(params, index_G, real_G, key)

    private = private_of(LOCAL, rate=1.0)
    found = clipped_sum(private, broken, PARAMS, own_of(), KEY, KEY)
    assert all(np.isfinite(x).all() for x in found.values())


@pytest.mark.parametrize('which, learning', [
    ('adapters', {'input', 'norm_0_0', 'head'}), ('base', {'input', 'norm_0_0', 'head'}),
    ('head', {'head'}), ('all', {'input', 'norm_0_0', 'head', 'conv_0_0'}),
])
def test_only_the_trainable_part_moves(which, learning):
    private = private_of(LOCAL, trainable=trainable_of(LOCAL.model, which))
    grads = gradient(private, loss_of, PARAMS, own_of(), KEY)
    moved = {k for k, v in grads.items() if any(x.any() for x in jax.tree.leaves(v))}
    assert moved == learning == moved & set(PARAMS)


def test_a_generator_learns_phi_and_never_psi():
    learns = trainable_of(LOCAL.model, 'adapters')
    assert learns(('phi', 'embed', 'kernel')) and not learns(('psi', 'conv_0', 'kernel'))
    assert learns(('theta', 'head', 'bias')) and not learns(('theta', 'conv_0_0', 'kernel'))
    assert not trainable_of(LOCAL.model, 'base')(('phi', 'embed', 'kernel'))


def round_of(name, run):
    """(algorithm, state, what a private client sends, its metrics); run: `jax.eval_shape`, or
    what computes too."""
    c = configured({'algorithm': name, 'weighting': 'uniform', 'privacy.unit': 'patient'})
    algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 1)
    state = run(algorithm.init, KEY)
    private = run(algorithm.init_private, state, jnp.int32(0))
    m = state.shared['pooled'] if name == 'fedgen' else ()
    data = DATA._replace(own=own_of()._replace(m=m))
    sent, _, metrics = run(algorithm.client_update, state.shared, private, data, KEY)
    return algorithm, state, sent, metrics


def test_a_round_of_fedgen_and_local_learning_sends_no_more_than_changes():
    """No loss, statistic or episodes."""
    for name in ('fedgen', 'local_only'):
        _, _, sent, metrics = round_of(name, jax.eval_shape)
        assert metrics == {}
        names = {k.key for p, _ in jax.tree_util.tree_leaves_with_path(sent) for k in p}
        assert not names & {'statistic', 'episodes', 'first', 'second', 'total', 'count'}
        assert name == 'fedgen' or sent == {}


@pytest.mark.extended
def test_a_private_round_leaves_what_the_descriptor_is_made_by_and_the_released_mean():
    algorithm, state, sent, _ = round_of('fedgen', lambda fn, *args: jax.jit(fn)(*args))
    assert not any(x.any() for x in jax.tree.leaves(sent['generator']['delta']['psi']))
    after = algorithm.server_update(state, sent)
    np.testing.assert_array_equal(after.shared['pooled'], state.shared['pooled'])


def test_the_sample_is_of_the_secret_not_of_the_seed():
    grads = [
        gradient(private_of(LOCAL), loss_of, PARAMS, own_of(0.0, (i, 0)), KEY) for i in range(4)
    ]
    heads = np.array([np.ravel(g['head']['bias']) for g in grads])
    assert len(np.unique(heads, axis=0)) == 4
