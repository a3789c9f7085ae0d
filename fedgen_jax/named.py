"""The values that a configuration names: task, network, canonical input, protection."""

from collections.abc import Sequence

import flax.linen as nn
from ml_collections import ConfigDict

from fedgen_jax.canonical import PRESETS as canonical_presets
from fedgen_jax.canonical import Input, make_input
from fedgen_jax.models import FITTING, MODELS, options_of
from fedgen_jax.privacy import Protection, clip
from fedgen_jax.privacy import chain as chain_protections
from fedgen_jax.privacy.clients import client_level
from fedgen_jax.privacy.dpsgd import Private, trainable_of
from fedgen_jax.privacy.robust import robust_of
from fedgen_jax.registry import choose, look_up
from fedgen_jax.shifts.geometry import check_zoom
from fedgen_jax.tasks import TASKS, Task


def make_task(name: str, classes: Sequence[str]) -> Task:
    """The task that a configuration names, of these classes."""
    return look_up('task', name, TASKS)(classes)


def make_model(c: ConfigDict, task: Task) -> nn.Module:
    """The network that a configuration names, with the fields of `model` as its keywords.

    A field of None is the network's own default.
    """
    model = look_up('model.name', c.model.name, MODELS)
    if c.model.name in MODELS and c.task in FITTING:
        choose('model.name', c.model.name, FITTING[c.task])
    options = {
        k: tuple(v) if isinstance(v, list) else v for k, v in c.model.to_dict().items()
        if k != 'name' and v is not None
    }
    known = options_of(model)
    for field in options:
        if field not in known:
            raise ValueError(
                f'model.{field}: {c.model.name} has no such field, but {", ".join(known)}: '
                'let `model` hold its name and these alone'
            )
    return model(num_outputs=task.num_outputs, **options)


def norm_of(c: ConfigDict) -> str | None:
    """The norm of the network: its own default where `model` names none; None: it has no such."""
    default = options_of(look_up('model.name', c.model.name, MODELS)).get('norm')
    return c.model.get('norm') or default


def make_canonical(c: ConfigDict, edge: str, protection: Protection) -> Input | None:
    """The canonical input that a configuration names."""
    if c.input.canonical == 'none' and not c.input.size:
        return None
    canonical = look_up('input.canonical', c.input.canonical, canonical_presets)(c.input.area)
    low, high = c.input.zoom
    check_zoom(low, high, edge)
    return make_input(canonical, (low, high), edge, protection.statistic, c.input.size)


def make_protection(c: ConfigDict) -> Protection:
    """What messages pass between clients and the sum."""
    p = c.privacy
    if p.unit == 'client':
        return chain_protections(client_level(p.clip or 1.0, p.adaptive))
    limit = 0.0 if p.unit else p.clip
    # The last part is the first at the server, where a rule meets messages as they were sent.
    return chain_protections(*([clip(limit)] if limit else []), *robust_of(c))


def make_private(c: ConfigDict, model: nn.Module) -> Private | None:
    """How a center's steps are private to its patients or images; None: they are not."""
    p = c.privacy
    if p.unit not in ('patient', 'image'):
        return None
    learns = trainable_of(model, p.trainable)
    return Private(p.clip or 1.0, p.rate, learns, p.multiplicity)
