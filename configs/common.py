"""What experiments share: chosen settings, and the methods that a table compares.

Every field stands in `fedgen_jax/config.py`, with its default and a comment.
"""

from ml_collections import ConfigDict

from fedgen_jax.algorithms import ALGORITHMS
from fedgen_jax.config import base


def tuned() -> ConfigDict:
    """The defaults, changed to FedGen with all its parts."""
    c = base()
    c.client.schedule = 'cosine'
    c.input.canonical = 'brightfield'
    c.shifts.acquisition = 0.4  # canonical input leaves less to imitate
    c.shifts.zoom = 1.25
    c.shifts.probability = 0.8
    c.fedgen.modes = ('input', 'film', 'lowrank')  # a generated head memorizes the client
    c.fedgen.support = 32
    c.fedgen.jitter = 0.3
    c.fedgen.stranger = 0.25  # six centers teach little of a seventh
    c.finetune.steps = 200
    c.finetune.lr = 0.05
    c.finetune.choose = ('refined', 'finetuned', 'local_only')
    return c


NO_SHIFTS = {'shifts.acquisition': 0.0, 'shifts.zoom': 1.0}
NO_DRAWN = {'data.virtual': 0, 'data.virtual_share': -1.0}
NO_OWN_STEPS = {'finetune.choose': (), 'finetune.steps': 0}
# What takes steps without labels at unseen centers, scored beside its models before them; FedAvg's
# are those of FedGen's base.
ADAPTED = ('fedgen', 'scaffold', 'pfedme', 'atp', 'elcfs', 'ga')
OWN_STEPS = ', own steps'  # of a row: seen centers' labelled steps, chosen as FedGen's are


def with_parts(published: dict) -> dict[str, dict]:
    """{name: overrides}: FedGen, the published forms, drawn cells alone, and FedGen less each part.

    published: what a published form has in place of FedGen's add-ons.
    """
    fedavg = {'algorithm': 'fedavg', **published}
    return {
        'fedgen': {},
        'fedavg + shifts': {**fedavg, **NO_OWN_STEPS},
        'fedavg': {**fedavg, **NO_SHIFTS, **NO_OWN_STEPS},
        'local-only': {'algorithm': 'local_only', **published, **NO_SHIFTS, **NO_OWN_STEPS},
        f'fedavg + shifts{OWN_STEPS}': fedavg,
        f'fedavg{OWN_STEPS}': {**fedavg, **NO_SHIFTS},
        'drawn only': {'algorithm': 'fedavg', 'data.virtual_share': 1.0, **NO_OWN_STEPS},
        'fedgen, constant': {'fedgen.descriptor': 'constant'},
        'fedgen, no drawn centers': NO_DRAWN,
        'fedgen, one-hot, no drawn centers': {'fedgen.descriptor': 'onehot', **NO_DRAWN},
        'fedgen, no canonical input': {'input.canonical': 'none'},
        'fedgen, no shifts': NO_SHIFTS,
    }


# theta, phi and psi receive the same change: without small rates of the latter two it overshoots.
WEIGHTS = {
    'fedgen.local': 'weights', 'fedgen.generator_lr': 0.03, 'fedgen.descriptor_lr': 0.03
}

# What every table compares.
METHODS = {
    'fedgen': {},
    'fedavg + shifts': {'algorithm': 'fedavg'},
    'fedavg': {'algorithm': 'fedavg', **NO_SHIFTS},
    'local-only': {'algorithm': 'local_only', **NO_SHIFTS},
    'fedgen, constant': {'fedgen.descriptor': 'constant'},
    'fedgen, no shifts': NO_SHIFTS,
    'fedgen weights': WEIGHTS,
    'fedgen, one-hot': {'fedgen.descriptor': 'onehot'},
    'local-only + shifts': {'algorithm': 'local_only'},
    'fedgen weights, no shifts': {**WEIGHTS, **NO_SHIFTS},
    # What drawn cells alone teach: the centers of the data are only scored.
    'drawn only': {'algorithm': 'fedavg', 'data.virtual': 64, 'data.virtual_share': 1.0},
}

# Further ones that a sweep may name.
NAMED = METHODS | {
    f'{name}{title}': {'algorithm': name, **shifts}
    for name in ALGORITHMS if name not in ('fedgen', 'fedavg', 'local_only')
    for title, shifts in (('', NO_SHIFTS), (' + shifts', {}))
}


def at_epsilons(
    algorithms: tuple[str, ...], public_only: dict, not_private: dict, field: str, rates: dict
) -> dict[str, dict]:
    """{name: overrides}: each algorithm without privacy and at each epsilon, from one public start.

    field: the rate that depends on epsilon.  rates: {epsilon: its value}.
    """
    found = {'public only': public_only}
    for algorithm in algorithms:
        name, own = algorithm.replace('_', '-'), {'algorithm': algorithm}
        found[f'{name}, no privacy'] = {**own, 'privacy.unit': '', **not_private}
        for epsilon, rate in rates.items():
            found[f'{name}, epsilon {epsilon}'] = {
                **own, 'privacy.epsilon': float(epsilon), field: rate
            }
    return found
