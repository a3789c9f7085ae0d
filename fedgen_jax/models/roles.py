"""What each weight of a model is, for the generator's modes, and which are frozen."""

from collections.abc import Callable

import flax.linen as nn

from fedgen_jax.models.layers import LAST_NORM

ROLES = ('input', 'norm', 'features', 'kernel', 'head')

ABOVE = ('head', 'features')  # of the last layers, which stand on what may be frozen


def by_name(path: tuple[str, ...]) -> str | None:
    """The role of the weight at `path`, by the names of our layers; None: it has none.

    input: all of the first layer, `input`; head: all of the last, `head`; features: scale and bias
    of what `head` reads, where it is normalized, `last_features`; norm: those of the other
    normalizations, `norm_*`; kernel: kernels of all other layers.
    """
    if path[0] == LAST_NORM:
        return 'features'
    if path[0] in ('input', 'head'):
        return path[0]
    if any(p.startswith('norm') for p in path):
        return 'norm'
    return 'kernel' if path[-1] == 'kernel' else None


def roles_of(model: nn.Module) -> Callable[[tuple[str, ...]], str | None]:
    """The model's own `roles(path)`, or `by_name` where it declares none.

    A model whose layers have other names declares a method `roles`, static unless it reads a field
    of the model, that returns one of `ROLES`, or None.
    """
    return getattr(model, 'roles', by_name)


def frozen_of(model: nn.Module) -> Callable[[tuple[str, ...]], bool]:
    """The model's own `frozen(path)`: whether a weight stays as it began; without one, none does.

    Training leaves these weights alone, and so does a center's own learning.  The generator changes
    them where its modes say so: what a center's model differs in need not be what all learned.
    """
    return getattr(model, 'frozen', lambda path: False)
