"""Which settings a unit of privacy goes with; all others are refused, in a line each.

What a unit promises rests on sensitivities that hold for some ways to train and not for others: a
patient whose images enter a batch's statistics, a class mix or a support moves the gradients of
all others, and no clip of his own gradient bounds that.
"""

import math
from typing import Any

from fedgen_jax.privacy.dpsgd import OF_BASE
from fedgen_jax.privacy.units import UNITS
from fedgen_jax.registry import choose

ALGORITHMS = ('fedavg', 'fedgen', 'local_only')  # that have private steps
# `statistics` that are no function of private images as long as a run trains.
CONSTANT = ('frozen', 'drawn', 'drawn+own')
OF_CLIENTS = ('fedavg', 'fedprox', 'fedgen')  # that send nothing which outlasts a round's sum


def check_private(c: Any) -> None:
    """Raises ValueError where a configuration has a unit of privacy beside what breaks it."""
    p = c.privacy
    choose('privacy.unit', p.unit, ('', *UNITS))
    if not (p.seed == 'secret' or f'{p.seed}'.isdecimal()):
        raise ValueError(f"privacy.seed={p.seed!r}: 'secret', or a number for simulations")
    if c.secure.distributed_noise:
        _check_shares(c)
    if not p.unit:
        return
    if not (p.epsilon > 0 and math.isfinite(p.epsilon)):
        raise ValueError(f'privacy.epsilon={p.epsilon}: a number above 0')
    if not 0 < p.delta < 1:
        raise ValueError(f'privacy.delta={p.delta}: above 0, and at most 1 / (10 n)')
    if not 0 < p.rate <= 1:
        raise ValueError(f'privacy.rate={p.rate}: a sampling rate above 0, up to 1')
    if p.clip < 0 or not math.isfinite(p.clip):
        raise ValueError(f'privacy.clip={p.clip}: a norm above 0, or 0 for 1')
    for field, least in (
        ('images_per_patient', 1), ('multiplicity', 1), ('public_centers', 1),
        ('public_rounds', 0), ('updates', 0),
    ):
        if p[field] < least:
            raise ValueError(f'privacy.{field}={p[field]}: at least {least}')
    for of in ('descriptor', 'moments'):
        if not p[f'{of}_noise'] > 0:
            raise ValueError(f"privacy.{of}_noise={p[f'{of}_noise']}: above 0")
        if not 0 < p[f'{of}_radius'] <= 2:
            raise ValueError(f"privacy.{of}_radius={p[f'{of}_radius']}: above 0, at most 2")
    if c.data.window == 'center':
        raise ValueError(
            f'privacy.unit={p.unit!r} with data.window=center: each image then depends on all of a '
            'center, and no budget counts that: pass LOW:HIGH'
        )
    choose('privacy.public', p.public, ('', 'synthetic'))
    for field, bad, why in _of_clients(c) if p.unit == 'client' else _inside(c):
        if bad:
            raise ValueError(f'privacy.unit={p.unit!r} with {field}: {why}')


def _check_shares(c):
    """Raises ValueError where shares of noise would not add up to a promise."""
    p = c.privacy
    for field, bad, why in (
        ('secure.on=False', not c.secure.on, 'shares go under masks: --config.secure.on=True'),
        (f'privacy.unit={p.unit!r}', p.unit in ('patient', 'image'),
         'local steps are no linear release: the noise of each changes what the next computes, so '
         'each center needs all of it by itself: client, or no distributed noise'),
        ("privacy.unit=''", not p.unit, 'nothing bounds what a center sends: client'),
        (f'privacy.rate={p.rate}', p.rate < 1,
         'the server knows who takes part, so that sampling hides nobody from it: 1'),
        ('privacy.adaptive', p.adaptive, 'the clip is fixed, as its noise is'),
        (f'data.virtual={c.data.virtual}', bool(c.data.virtual), 'drawn centers add no noise: 0'),
    ):
        if bad:
            raise ValueError(f'secure.distributed_noise with {field}: {why}')


def _inside(c):
    """What patient and image do not go with: (setting, whether it is set, why)."""
    h, finetune = c.get('fedgen'), c.finetune
    own = 'the center itself may do so afterwards, and nothing of it leaves'
    return (
        (f'algorithm={c.algorithm!r}', c.algorithm not in ALGORITHMS,
         f'private steps are those of {", ".join(ALGORITHMS)}'),
        ("model.norm='batch'",
         c.model.get('norm') == 'batch' and c.statistics not in CONSTANT
         or c.statistics in ('running', 'last'),
         "a batch's statistics mix its patients: --config.model.norm=group"),
        (f'model.last={c.model.get("last", "none")!r}',
         c.model.get('last', 'none') != 'none' and c.statistics not in CONSTANT,
         "statistics of features mix patients: 'none', or --config.statistics=drawn"),
        (f'prevalence={c.prevalence!r}', c.prevalence != 'natural',
         'a rare class is drawn more often than is accounted for: natural'),
        (f'weighting={c.weighting!r}', c.weighting != 'uniform',
         'a weight tells how many images a center has: --config.weighting=uniform'),
        (f'loss.prior={c.loss.prior!r}', c.loss.prior != 'none',
         "the loss of each patient would tell all others' classes: none"),
        (f'input.canonical={c.input.canonical!r}',
         c.input.canonical != 'none' and c.input.reference != 'drawn',
         "what images are moved to would tell of all patients: 'none', or "
         '--config.input.reference=drawn'),
        (f'input.size={c.input.size}', bool(c.input.size), '0'),
        (f'cohort={c.cohort}', bool(c.cohort), 'all centers train in each round: 0'),
        (f'data.virtual={c.data.virtual}', bool(c.data.virtual),
         'drawn centers are public: they train first (privacy.public), so 0'),
        (f'finetune.steps={finetune.steps}', bool(finetune.steps or finetune.choose), own),
        (f'adapt.steps={c.adapt.steps}', bool(c.adapt.steps), own),
        (f'oracle.steps={c.oracle.steps}', bool(c.oracle.steps), own),
        ("fedgen.local='weights'", c.algorithm == 'fedgen' and h.local == 'weights',
         "what T steps are pulled back to mixes all patients: 'meta'"),
        (f'fedgen.base={h and h.base!r}', c.algorithm == 'fedgen' and h.base != 'fedavg',
         "private steps of the base are FedAvg's"),
        (f'fedgen.theta={h and h.theta!r}',
         c.algorithm == 'fedgen' and c.privacy.trainable in OF_BASE and h.theta != 'joint',
         f"privacy.trainable='{c.privacy.trainable}' leaves the generator nothing to learn: "
         "'joint', in which the base learns under the generated change"),
        ('privacy.adaptive', c.privacy.adaptive, 'the clip of a step is fixed'),
    )


def _of_clients(c):
    """What client does not go with."""
    p = c.privacy
    drawn = bool(c.data.virtual)
    return (
        (f'algorithm={c.algorithm!r}', c.algorithm not in OF_CLIENTS,
         f'bounded contributions are those of {", ".join(OF_CLIENTS)}'),
        (f'fedgen.base={c.fedgen.base!r}',
         c.algorithm == 'fedgen' and c.fedgen.base not in OF_CLIENTS[:2],
         f'one of {", ".join(OF_CLIENTS[:2])}'),
        ('secure.on', c.secure.on and not c.secure.distributed_noise,
         "the noise is the server's, who is trusted then: off, or secure.distributed_noise"),
        (f'robust.rule={c.robust.rule!r}', c.robust.rule != 'none',
         'the noise is that of a sum: none'),
        (f'weighting={c.weighting!r}', c.weighting != 'uniform',
         'each client counts the same: --config.weighting=uniform'),
        (f'input.canonical={c.input.canonical!r}, input.size={c.input.size}',
         (c.input.canonical != 'none' or bool(c.input.size)) and c.input.reference != 'drawn',
         "the reference would be an exact mean of the clients: 'none' and size 0, or "
         '--config.input.reference=drawn'),
        (f'cohort={c.cohort}', bool(c.cohort), 'privacy.rate draws a cohort: 0'),
        (f'data.virtual_share={c.data.virtual_share}', c.data.virtual_share >= 0,
         'drawn clients are sampled as all others are: below 0'),
        (f'data.virtual={c.data.virtual}', drawn and bool(p.public) and not c.start.weights,
         "drawn clients are private here, so the public start would have seen them: "
         "--config.privacy.public='', or start.weights of another seed"),
    )
