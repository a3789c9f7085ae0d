"""The generator: nothing changes at step 0, everything can learn, and no change is without limit."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedgen_jax.hypernet.descriptor import Descriptor
from fedgen_jax.hypernet.generator import Generator, mode_of, refine, shapes_of
from fedgen_jax.models import CNN

MODES = [('input',), ('film',), ('lowrank',), ('head',), ('full',),
         ('input', 'film', 'lowrank', 'head')]  # fmt: skip
IDS = ['+'.join(m) for m in MODES]

MODEL = CNN(3, widths=(8, 16))
X = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
LABEL = jnp.array([0, 1, 2, 0, 1, 2])


class Parts:
    """A base, a descriptor network and a generator, with the episode's loss."""

    def __init__(self, modes, **options):
        keys = jax.random.split(jax.random.key(1), 3)
        self.theta = MODEL.init(keys[0], X)['params']
        self.psi = Descriptor().init(keys[1], X)['params']
        self.m_E = self.describe(self.psi)
        self.generator = Generator(shapes_of(self.theta), modes, code=8, rank=2, **options)
        self.phi = jax.jit(self.generator.init)(keys[2], self.m_E)['params']
        self.change = jax.jit(lambda phi, m_E: self.generator.apply({'params': phi}, m_E))
        self.gradient = jax.jit(jax.grad(self.loss, (0, 1)))

    def describe(self, psi):
        return Descriptor().apply({'params': psi}, X).mean(0)

    def loss(self, phi, psi):
        change = self.generator.apply({'params': phi}, self.describe(psi))
        log_p = jax.nn.log_softmax(MODEL.apply({'params': refine(self.theta, change)}, X))
        return -jnp.mean(jnp.take_along_axis(log_p, LABEL[:, None], 1))

    def moved(self, scale):
        """phi with every number moved at random."""
        leaves, tree = jax.tree.flatten(self.phi)
        keys = jax.random.split(jax.random.key(2), len(leaves))
        return tree.unflatten(
            [x + scale * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)]
        )


@pytest.fixture(scope='module', params=MODES, ids=IDS)
def parts(request):
    return Parts(request.param)


def largest(tree):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


def test_at_step_0_every_refined_model_is_the_base(parts):
    change = parts.change(parts.phi, parts.m_E)
    paths = flax.traverse_util.flatten_dict(parts.theta)
    assert change and all(change[p].shape == paths[p].shape for p in change)
    refined = refine(parts.theta, change)
    assert jax.tree.structure(refined) == jax.tree.structure(parts.theta)
    jax.tree.map(np.testing.assert_array_equal, refined, parts.theta)


def test_phi_learns_at_step_0_and_psi_after_step_1(parts):
    to_phi, to_psi = parts.gradient(parts.phi, parts.psi)
    zero = [p for p, x in flax.traverse_util.flatten_dict(parts.phi).items()
            if p[-1] == 'kernel' and not x.any()]  # fmt: skip
    flat = flax.traverse_util.flatten_dict(to_phi)
    assert zero and all(jnp.abs(flat[p]).max() > 0 for p in zero)  # every target can start
    assert largest(to_psi) == 0
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, parts.phi, to_phi)
    to_phi, to_psi = parts.gradient(stepped, parts.psi)
    assert largest(to_psi) > 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(to_psi))
    assert largest(to_phi['code']) > 0 and largest(to_phi['embed']) > 0


def test_no_generated_number_exceeds_the_bound(parts):
    change = parts.change(parts.moved(100.0), parts.m_E)
    assert largest(change) > 0.5  # the weights are wild enough to show the bound
    direct = {p: c for p, c in change.items() if mode_of(p, parts.generator.modes) != 'lowrank'}
    assert all(jnp.abs(c).max() <= parts.generator.bound + 1e-6 for c in direct.values())


def test_generators_map_over_clients(parts):
    m_CxE = jax.random.normal(jax.random.key(3), (3, len(parts.m_E))) * 0.3
    phi = parts.moved(0.3)
    mapped = jax.jit(jax.vmap(parts.change, (None, 0)))(phi, m_CxE)
    for i in range(3):
        alone = parts.change(phi, m_CxE[i])
        for path, change in alone.items():
            np.testing.assert_allclose(mapped[path][i], change, rtol=1e-3, atol=1e-5)


def test_lowrank_is_low_in_rank_and_bounded():
    parts = Parts(('lowrank',), fade=False)
    phi = parts.moved(100.0)
    for path, change in parts.change(phi, parts.m_E).items():
        name = '.'.join(path)
        u, v = phi[name + '/u'], phi[name + '/v']
        matrix = change.reshape(-1, change.shape[-1])
        assert np.linalg.matrix_rank(matrix, tol=1e-4 * np.abs(matrix).max()) <= 2
        limit = (jnp.abs(u) @ jnp.abs(v)) / 2**0.5
        assert (jnp.abs(matrix) <= limit * (1 + 1e-5)).all()


def test_a_wide_head_is_low_rank_too():
    shapes = ((('head', 'kernel'), (64, 50)), (('head', 'bias'), (50,)))
    generator = Generator(shapes, ('head',), rank=2)
    phi = generator.init(jax.random.key(0), jnp.ones(5))['params']
    assert phi['head.kernel']['kernel'].shape[-1] == 2 and phi['head.bias']['kernel'].shape[-1] == 50


def test_full_is_about_a_hundred_times_the_target():
    shapes = jax.eval_shape(lambda: CNN(5).init(jax.random.key(0), X))['params']

    def size(modes):
        generator = Generator(shapes_of(shapes), modes)
        phi = jax.eval_shape(generator.init, jax.random.key(0), jnp.ones(60))
        return sum(x.size for x in jax.tree.leaves(phi))

    target = sum(x.size for x in jax.tree.leaves(shapes))
    assert 30 * target < size(('full',)) < 300 * target
    assert size(('input', 'film', 'lowrank', 'head')) < target


def test_far_from_every_prototype_the_change_fades():
    faded, plain = Parts(('film', 'head')), Parts(('film', 'head'), fade=False)
    phi = faded.moved(0.5)
    far = {**phi, 'prototypes': phi['prototypes'] + 30.0}
    near = largest(faded.change(phi, faded.m_E))
    assert near > 0.01
    assert largest(faded.change(far, faded.m_E)) < 1e-6 * near
    shared = {k: v for k, v in phi.items() if k not in ('prototypes', 'query')}
    assert largest(plain.change(shared, plain.m_E)) >= near


def test_modes_choose_by_layer_name():
    path = {'input': ('input', 'kernel'), 'film': ('block_0', 'norm_1', 'scale'),
            'lowrank': ('block_0', 'conv_1', 'kernel'), 'head': ('head', 'bias')}  # fmt: skip
    for mode, p in path.items():
        assert mode_of(p, (mode,)) == mode and mode_of(p, ('full',)) == 'full'
        assert all(mode_of(p, (other,)) is None for other in path if other != mode)
