"""What a step of a method lowers, term by term and sign by sign."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import KEY, assert_close, configured, drawn_clients

from fedgen_jax.algorithms.base import State
from fedgen_jax.algorithms.local import batch_loss, init_model, query_batch
from fedgen_jax.baselines.elcfs import restyled
from fedgen_jax.baselines.hyperfedzero import Heads, balance, head_shape
from fedgen_jax.baselines.hypernetworks import hypernetwork_step
from fedgen_jax.data import synthetic
from fedgen_jax.models.roles import roles_of
from fedgen_jax.program import make_algorithm
from fedgen_jax.random import stream

pytestmark = pytest.mark.extended


@pytest.fixture(scope='module')
def data():
    """A drawn center."""
    return jax.tree.map(lambda x: jnp.asarray(x[0]), drawn_clients())


def step_of(changes, data, change=lambda shared: shared):
    """(what a first step learns, its batch, (told, gradient), `Local`); change: of `shared`."""
    algorithm, local = make_algorithm(configured(changes), 16, synthetic.CLASSES, 3)
    state = jax.jit(algorithm.init)(KEY)

    @jax.jit
    def step(shared, data):
        private = algorithm.init_private(state, jnp.int32(0))
        learning, _ = algorithm.client_update.begin(shared, private, data, KEY)
        batch, tau = query_batch(local, data, KEY)
        return learning.params, batch, learning.gradient(learning.params, batch, tau, KEY)

    return *step(change(state.shared), data), local


def test_fedsr_adds_the_divergence_from_the_class(data):
    value = {
        cmi: float(step_of({'algorithm': 'fedsr', 'fedsr.cmi': cmi}, data)[2][0][0])
        for cmi in (1e-9, 1.0)
    }
    assert value[1.0] > value[1e-9] + 1  # a divergence is above 0


def test_elcfs_s_episode_is_ahead_of_a_step_down_hill(data):
    changes = {'algorithm': 'elcfs', 'elcfs.band': 0.2, 'elcfs.inner_lr': 0.5, 'elcfs.meta': 2.0,
               'elcfs.most': 1.0}

    def with_spectra(shared):
        bank = jnp.abs(jax.random.normal(KEY, shared['bank'].shape)) * 20
        return {**shared, 'bank': bank, 'filled': jnp.ones_like(shared['filled'])}

    params, batch, (_, found), local = step_of(changes, data, with_spectra)

    def stepped(params, way):
        """way: 1, down hill; -1, up."""
        def loss(p):
            return batch_loss(local, p, batch)[0]

        return jax.tree.map(lambda x, g: x - way * 0.5 * g, params, jax.grad(loss)(params))

    # Which spectrum and share it drew is not known here: the way alone decides which is nearer.
    moved = {}
    for way in (1.0, -1.0):
        def objective(p, way=way):
            other, share = jnp.abs(jax.random.normal(KEY, (4, 7, 7, 3))) * 20, jnp.full(4, 0.5)
            styled = batch._replace(image=restyled(batch.image, other, share))
            ahead = batch_loss(local, stepped(p, way), styled)[0]
            return batch_loss(local, p, batch)[0] + 2 * ahead

        moved[way] = jax.jit(jax.grad(objective))(params)

    def apart(other):
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(other))
        return sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)

    assert apart(moved[1.0]) < apart(moved[-1.0])


def test_flowdup_draws_codes_and_their_learned_mean_together(data):
    def far(shared):
        return {**shared, 'mu': jnp.ones_like(shared['mu'])}

    changes = {'algorithm': 'flowdup', 'flowdup.code': 4, 'flowdup.penalty': 0.5}
    _, _, (_, found), _ = step_of(changes, data, far)  # codes are zero at first
    np.testing.assert_allclose(found['mu'], 0.5 * (1 - 0), rtol=1e-5)


@pytest.mark.parametrize('field, terms', [('alpha', (1.0, 0.0)), ('beta', (0.0, 1.0))])
def test_hyperfedzero_s_penalties_are_lowered(data, field, terms):
    """The gradient of the hypernetwork's first layer has that of each penalty in it."""
    none = {'hyperfedzero.alpha': 0.0, 'hyperfedzero.beta': 0.0}
    changes = {'algorithm': 'hyperfedzero', **none}
    params, batch, (_, plain), _ = step_of(changes, data)
    _, _, (_, found), _ = step_of({**changes, f'hyperfedzero.{field}': 1.0}, data)
    way = jax.tree.map(jnp.subtract, found['phi'], plain['phi'])

    def penalty(phi):
        e_BxE = embeddings(changes, phi, batch.image)
        return balance(e_BxE, batch.weight, *terms)

    moved = jax.tree.map(lambda x, g: x - 1e-3 * g, params['phi'], way)
    before, after = (jax.jit(penalty)(phi) for phi in (params['phi'], moved))
    assert after < before


def embeddings(changes, phi, image):
    """Those of a first step, [B, E]."""
    c = configured(changes)
    _, local = make_algorithm(c, 16, synthetic.CLASSES, 3)
    template = jax.eval_shape(lambda k: init_model(local, k), KEY)
    own = c.hyperfedzero
    heads = Heads(
        head_shape(template, roles_of(local.model)), own.code, own.chunk, own.hidden, False
    )
    return heads.apply({'params': phi}, image, stream(KEY, 'noise'))[1]


def test_a_hypernetwork_decays():
    server, phi = optax.sgd(0.5), {'w': jnp.full(3, 2.0)}
    theta = {'x': jnp.zeros(2)}
    weights = {'theta': theta, 'phi': phi}
    state = State({**weights, 'round': jnp.int32(0)}, server.init(weights))
    total_C = {'weight': jnp.ones(4), 'delta': {'theta': {'x': jnp.zeros((4, 2))}}}
    zero = {'phi': {'w': jnp.zeros(3)}}
    new = hypernetwork_step(server, state, total_C, zero, 0.1).shared
    np.testing.assert_allclose(new['phi']['w'], 2 - 0.5 * 0.1 * 2, rtol=1e-6)


@pytest.mark.parametrize('prevalence, alike', [('natural', False), ('balanced', True)])
def test_pfedfda_s_head_has_the_shares_that_batches_have(data, prevalence, alike):
    few = data._replace(target={'label': jnp.where(jnp.arange(8) < 7, 0, 1)})
    c = configured({'algorithm': 'pfedfda', 'prevalence': prevalence})
    algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
    state = jax.jit(algorithm.init)(KEY)
    # Means of zero: what is left of a logit is the classes' shares.
    none = state.shared['gaussians']._replace(mean=jnp.zeros_like(state.shared['gaussians'].mean))
    learning, _ = algorithm.client_update.begin(
        {**state.shared, 'gaussians': none}, algorithm.init_private(state, jnp.int32(0)), few, KEY
    )
    bias = learning.params['head']['bias']
    assert (float(jnp.ptp(bias)) < 1e-6) == alike


def test_a_prior_is_not_taken_out_of_batches_that_have_another_mix():
    for prevalence in ('balanced', 'mixed'):
        with pytest.raises(ValueError, match='loss.prior=logits: batches of prevalence'):
            make_algorithm(
                configured({'loss.prior': 'logits', 'prevalence': prevalence}), 16, 'ab', 2
            )


@pytest.mark.parametrize('base', ['fedavg', 'ditto', 'apfl', 'fedbn', 'pfedme', 'fedrep'])
def test_a_generated_change_reaches_what_a_base_keeps_at_a_center(data, base):
    c = configured({'fedgen.base': base, 'model.norm': 'batch'})
    algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
    state = jax.jit(algorithm.init)(KEY)
    shared = {**state.shared, 'phi': jax.tree.map(lambda x: x + 0.3, state.shared['phi'])}
    seen = algorithm.init_private(state, jnp.int32(0))
    changes = []
    for private in (seen, None):
        refined, plain = (
            jax.jit(of.personalize)(shared, private, data, None, KEY)['params']
            for of in (algorithm, algorithm.base)
        )
        changes.append(jax.tree.map(jnp.subtract, refined, plain))
    assert_close(*changes, 1e-4)  # at first a center's own weights are the server's
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(changes[0]['head'])) > 0.01


@pytest.mark.parametrize('images', [3, 8])
def test_shot_takes_a_step_for_each_batch_of_an_epoch(data, images):
    """Also for the last one, which is smaller: so few images do not make fewer epochs."""
    c = configured({'algorithm': 'shot', 'shot.epochs': 2, 'shot.batch': 8, 'shot.lr': 0.01})
    few = data._replace(weight=(jnp.arange(8) < images).astype(jnp.float32))

    def found(epochs):
        c.shot.epochs = epochs
        algorithm, _ = make_algorithm(c, 16, synthetic.CLASSES, 3)
        shared = jax.jit(algorithm.init)(KEY).shared
        made = jax.jit(algorithm.personalize)(shared, None, few, None, KEY)
        return jax.tree.leaves(made['params'])

    one, two = found(1), found(2)
    assert any((a != b).any() for a, b in zip(one, two))
