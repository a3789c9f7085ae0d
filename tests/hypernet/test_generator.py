"""The generator: no change at step 0, everything can learn, and no change is without limit."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.hypernet.descriptor import Descriptor
from fedgen_jax.hypernet.generator import Generator, Normal, mode_of, refine, shapes_of
from fedgen_jax.models import CNN
from fedgen_jax.models.roles import by_name

ALL = ('input', 'film', 'lowrank', 'head')
MODES = [('input',), ('film',), ('lowrank',), ('head',), ('full',), ALL]

MODEL = CNN(3, widths=(8,))
X = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
LABEL = jnp.array([0, 1, 2, 0, 1, 2])


def describe(psi):
    return Descriptor().apply({'params': psi}, X).mean(0)


@functools.cache
def base():
    """(theta, psi, the descriptor of X)."""
    theta = jax.jit(MODEL.init)(jax.random.key(1), X)['params']
    psi = jax.jit(Descriptor().init)(jax.random.key(2), X)['params']
    return theta, psi, jax.jit(describe)(psi)


class Parts:
    """A generator with its loss, for one choice of modes."""

    def __init__(self, modes, **options):
        self.theta, self.psi, self.m_E = base()
        self.normal = Normal(jnp.zeros_like(self.m_E), jnp.full_like(self.m_E, 0.1))
        self.generator = Generator(shapes_of(self.theta), modes, code=8, rank=2, **options)
        init = jax.jit(self.generator.init)
        self.phi = init(jax.random.key(3), self.m_E, self.normal)['params']
        self.change = jax.jit(lambda phi, m_E: self.generate(phi, m_E))
        self.gradient = jax.jit(jax.grad(self.loss, (0, 1)))

    def generate(self, phi, m_E):
        return self.generator.apply({'params': phi}, m_E, self.normal)

    def loss(self, phi, psi):
        refined = refine(self.theta, self.generate(phi, describe(psi)))
        log_p = jax.nn.log_softmax(MODEL.apply({'params': refined}, X))
        return -jnp.mean(jnp.take_along_axis(log_p, LABEL[:, None], 1))

    def moved(self, scale):
        """phi with every number moved at random."""
        rng = np.random.default_rng(0)
        return jax.tree.map(
            lambda x: x + scale * rng.normal(size=x.shape).astype(np.float32), self.phi
        )


@pytest.fixture(scope='module', params=MODES, ids='+'.join)
def parts(request):
    return Parts(request.param)


def largest(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def test_at_step_0_every_refined_model_is_the_base(parts):
    change = parts.change(parts.phi, parts.m_E)
    paths = flax.traverse_util.flatten_dict(parts.theta)
    assert change and all(change[p].shape == paths[p].shape for p in change)
    refined = refine(parts.theta, change)
    assert jax.tree.structure(refined) == jax.tree.structure(parts.theta)
    jax.tree.map(np.testing.assert_array_equal, refined, parts.theta)


def test_phi_learns_at_step_0_and_psi_after_step_1(parts):
    to_phi, to_psi = parts.gradient(parts.phi, parts.psi)
    zero = [
        path for path, x in flax.traverse_util.flatten_dict(parts.phi).items()
        if path[-1] == 'kernel' and not x.any()
    ]
    flat = flax.traverse_util.flatten_dict(to_phi)
    assert zero and all(largest(flat[path]) > 0 for path in zero)  # every target can start
    assert largest(to_psi) == 0
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, parts.phi, to_phi)
    to_phi, to_psi = parts.gradient(stepped, parts.psi)
    assert largest(to_psi) > 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(to_psi))
    assert largest(to_phi['code']) > 0 and largest(to_phi['embed']) > 0


def test_no_generated_number_exceeds_the_bound(parts):
    change = parts.change(parts.moved(100.0), parts.m_E)
    assert largest(change) > 0.5  # the weights are wild enough to show the bound
    modes = parts.generator.modes
    direct = [c for p, c in change.items() if mode_of(by_name(p), modes) != 'lowrank']
    assert not direct or largest(direct) <= parts.generator.bound + 1e-6


def test_a_centered_change_is_zero_at_the_mean_descriptor_alone():
    made = {on: Parts(ALL, centered=on) for on in (True, False)}
    for on, parts in made.items():
        phi = parts.moved(0.3)
        assert (largest(parts.change(phi, parts.normal.mean)) == 0) == on
        assert largest(parts.change(phi, parts.m_E)) > 1e-3


def test_generators_map_over_clients():
    parts = Parts(ALL)
    m_CxE = jax.random.normal(jax.random.key(3), (3, len(parts.m_E))) * 0.3
    phi = parts.moved(0.3)
    mapped = jax.jit(jax.vmap(parts.generate, (None, 0)))(phi, m_CxE)
    for i in range(3):
        for path, change in parts.change(phi, m_CxE[i]).items():
            np.testing.assert_allclose(mapped[path][i], change, rtol=1e-3, atol=1e-5)


def test_lowrank_is_low_in_rank_and_bounded():
    parts = Parts(('lowrank',))
    phi = parts.moved(100.0)
    for path, change in parts.change(phi, parts.m_E).items():
        u, v = (np.asarray(phi['.'.join(path) + tag]) for tag in ('/u', '/v'))
        matrix = np.asarray(change).reshape(-1, change.shape[-1])
        assert np.linalg.matrix_rank(matrix, tol=1e-4 * np.abs(matrix).max()) <= 2
        limit = np.abs(u) @ np.abs(v) / 2**0.5
        assert (np.abs(matrix) <= limit * (1 + 1e-5)).all()


def test_sizes():
    """A wide head is low-rank; 'full' is far larger than the model, the others far smaller."""

    def phi_of(shapes, modes, **options):
        m_E = jnp.zeros(60)
        init = Generator(shapes, modes, **options).init
        return jax.eval_shape(init, jax.random.key(0), m_E, Normal(m_E, m_E + 1))['params']

    def size(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    wide = (('head', 'kernel'), (64, 50), 'head'), (('head', 'bias'), (50,), 'head')
    head = phi_of(wide, ('head',), rank=2)
    assert head['head.kernel']['kernel'].shape[-1] == 2
    assert head['head.bias']['kernel'].shape[-1] == 50

    theta = jax.eval_shape(CNN(5).init, jax.random.key(0), X)['params']
    assert 20 * size(theta) < size(phi_of(shapes_of(theta), ('full',))) < 200 * size(theta)
    assert size(phi_of(shapes_of(theta), ALL)) < size(theta)


def test_far_from_training_the_change_fades():
    faded, plain = Parts(('head',), fade=4.0), Parts(('head',), fade=0.0)
    phi, std = faded.moved(0.5), np.sqrt(faded.normal.var)
    near, far = ({k: f.change(phi, s * std) for k, f in (('faded', faded), ('plain', plain))}
                 for s in (1.0, 15.0))
    for path, change in near['plain'].items():
        np.testing.assert_allclose(near['faded'][path], change, rtol=1e-5, atol=1e-6)
    assert largest(far['plain']) > 0.1
    assert largest(far['faded']) < 1e-6


def test_modes_choose_by_layer_name():
    path = {
        'input': ('input', 'kernel'),
        'film': ('block_0', 'norm_1', 'scale'),
        'lowrank': ('block_0', 'conv_1', 'kernel'),
        'features': ('last_features', 'scale'),
        'head': ('head', 'bias'),
    }
    for mode, p in path.items():
        role = by_name(p)
        assert mode_of(role, (mode,)) == mode and mode_of(role, ('full',)) == 'full'
        assert all(mode_of(role, (other,)) is None for other in path if other != mode)


def test_a_mode_that_selects_no_weight_is_an_error():
    """A network whose normalizations have other names would get no change, in silence."""
    theta = {'scaling_0': {'scale': jnp.ones(3)}, 'head': {'kernel': jnp.ones((3, 2))}}
    generator = Generator(shapes_of(theta), ('film', 'head'))
    m_E = jnp.zeros(4)
    with pytest.raises(ValueError, match="fedgen.modes='film': selects no weight.*'norm'"):
        generator.init(jax.random.key(0), m_E, Normal(m_E, m_E + 1))

    def roles(path):
        return 'norm' if path[0].startswith('scaling') else by_name(path)

    own = Generator(shapes_of(theta, roles), ('film', 'head'))
    phi = own.init(jax.random.key(0), m_E, Normal(m_E, m_E + 1))['params']
    assert 'scaling_0.scale' in phi and 'head.kernel' in phi
