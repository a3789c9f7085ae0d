"""The generator: a hypernetwork (Ha et al. 2017) from a descriptor to a change of the base weights.

What may change is chosen by modes, and by the roles of the model's weights (`models.roles`):

    input    color matrix, bias and magnification before the first convolution
    film     scale and bias of every normalization (Perez et al. 2018)
    lowrank  kernels of the convolutions: `U diag(g(m)) V`, with `U`, `V` learned and shared
    features scale and bias of the normalized features that the last layer reads (`model.last`)
    head     the last layer; low-rank where it has more than `rank * 64` weights
    full     every weight, as pFedHN does (Shamsian et al. 2021): about 100 times the target

Every generated number is `bound * tanh(w . code / bound)` with `w` zero at the start and no bias,
so the change is zero at step 0 and wherever the code is zero, and a generated number cannot grow
without limit; of a low-rank change that is `g`, between learned `U` and `V`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.models.roles import ABOVE, by_name
from fedgen_jax.registry import choose

MODES = ('input', 'film', 'lowrank', 'features', 'head', 'full')
_FAN_LIMIT = 64


# The mode that changes weights of a role (`models.roles`); `full` changes every weight.
MODE_OF_ROLE = {
    'input': 'input', 'norm': 'film', 'kernel': 'lowrank', 'features': 'features', 'head': 'head'
}


def mode_of(role: str | None, modes: Sequence[str]) -> str | None:
    """Which of `modes` changes weights of a role; None: all clients share them."""
    if 'full' in modes:
        return 'full'
    own = MODE_OF_ROLE.get(role or '')
    return own if own in modes else None


def above_frozen(modes: Sequence[str]) -> bool:
    """Whether they change weights of the last layers alone (`models.roles.ABOVE`)."""
    return set(modes) <= {MODE_OF_ROLE[role] for role in ABOVE}


def check_modes(modes: Sequence[str], roles: Sequence[str | None]) -> None:
    """Raises ValueError where a mode selects no weight."""
    found = {mode_of(role, modes) for role in roles}
    for mode in modes:
        choose('fedgen.modes', mode, MODES)
        if mode not in found and 'full' not in modes:
            role = next(role for role, of in MODE_OF_ROLE.items() if of == mode)
            raise ValueError(
                f'fedgen.modes={mode!r}: selects no weight, for the model has none of role '
                f'{role!r}: leave the mode out, or let the model declare roles(path)'
            )


class Normal(NamedTuple):
    """Mean and variance [E] of the descriptors that training met, frozen when it ends.

    They are part of the model, as its weights are: a newcomer is normalized by them, and does not
    change them, so the other centers' models stay as they were.
    """

    mean: jax.Array | np.ndarray
    var: jax.Array | np.ndarray


class Generator(nn.Module):
    """G_phi: descriptor [E] -> {path: change}, for the weights that `modes` selects.

    shapes: ((path, shape, role), ...) of the base's weights, `shapes_of(params, role_of)`.
    fade:   beyond this mean squared distance, in standard deviations of the descriptors that
            training met, the change shrinks to zero and a center gets the base; 0: never.
    centered: the change is zero at the mean of the descriptors that training met, so that it holds
            what tells centers apart, and nothing that is good for all of them.
    """

    shapes: tuple
    modes: tuple[str, ...] = ('film', 'lowrank', 'head')
    code: int = 32
    rank: int = 8
    bound: float = 1.0
    fade: float = 4.0
    centered: bool = False

    @nn.compact
    def __call__(
        self, m_E: jax.Array, normal: 'Normal', offset_F: jax.Array | None = None
    ) -> dict[tuple[str, ...], jax.Array]:
        """offset_F: is added to the code; None: nothing is."""
        z_E = (m_E - normal.mean) * jax.lax.rsqrt(normal.var + 1e-4)
        near = jnp.float32(1)
        if self.fade:
            near = jnp.exp(-jnp.maximum(jnp.mean(z_E**2) / self.fade - 1, 0))
        # Random biases: at z = 0 (the constant control, always) the code must not be stuck at zero.
        biases = nn.initializers.normal(0.5)
        embed = nn.Dense(2 * self.code, bias_init=biases, name='embed')
        to_code = nn.Dense(self.code, name='code')

        def code(z_E):
            return nn.tanh(to_code(nn.tanh(embed(jnp.clip(z_E, -5, 5)))))

        code_F = near * (code(z_E) - code(0 * z_E) if self.centered else code(z_E))
        if offset_F is not None:
            code_F = code_F + offset_F
        change = {}
        check_modes(self.modes, [role for _, _, role in self.shapes])
        for path, shape, role in self.shapes:
            mode = mode_of(role, self.modes)
            if mode:
                change[path] = self._change('.'.join(path), shape, mode, code_F)
        return change

    def _change(self, name, shape, mode, code_F):
        def generate(n, tag=''):
            out = nn.Dense(n, use_bias=False, kernel_init=nn.initializers.zeros, name=name + tag)
            return self.bound * jnp.tanh(out(code_F) / self.bound)

        size = 1
        for n in shape:
            size *= n
        low = mode == 'lowrank' or (mode == 'head' and size > self.rank * _FAN_LIMIT)
        if not low or len(shape) < 2:
            return generate(size).reshape(shape)
        fan_in, fan_out = size // shape[-1], shape[-1]
        u = self.param(name + '/u', nn.initializers.normal(fan_in**-0.5), (fan_in, self.rank))
        v = self.param(name + '/v', nn.initializers.normal(1.0), (self.rank, fan_out))
        return ((u * generate(self.rank)[None]) @ v / self.rank**0.5).reshape(shape)


def shapes_of(params: Mapping, role_of: Callable = by_name) -> tuple:
    """((path, shape, role), ...) of a parameter tree, hashable, for `Generator.shapes`."""
    flat = flax.traverse_util.flatten_dict(params)
    return tuple((path, x.shape, role_of(path)) for path, x in flat.items())


def refine(params: Mapping, change: Mapping[tuple[str, ...], jax.Array]) -> dict:
    """theta (+) change: the refined model's weights, a tree like `params`."""
    flat = flax.traverse_util.flatten_dict(params)
    return flax.traverse_util.unflatten_dict(
        {k: v + change[k] if k in change else v for k, v in flat.items()}
    )
