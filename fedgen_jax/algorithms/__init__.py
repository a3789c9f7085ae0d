"""Federated algorithms, one file a family.

A family is a module with `defaults() -> ConfigDict`, the fields that are its own (the entry of its
name in a configuration), and `build(config, local, num_clients) -> Algorithm`.  Methods of the
literature are in `fedgen_jax.baselines`.  One of your own may live in any module:
`algorithm='my_package.my_module:my_family'`.
"""

from fedgen_jax.algorithms import fedavg, fedgen, local_only, pooled
from fedgen_jax.baselines import (
    apfl,
    arm,
    atp,
    ditto,
    dsu,
    elcfs,
    fedbn,
    fedfa,
    fedprox,
    fedrep,
    fedsam,
    fedsr,
    flowdup,
    ga,
    hyperfedzero,
    ifca,
    knnper,
    mixstyle,
    odpfl,
    pefll,
    pfedfda,
    pfedhn,
    pfedme,
    scaffold,
    shot,
    silobn,
    t3a,
    tent,
)
from fedgen_jax.registry import look_up

ALGORITHMS = {
    'fedgen': fedgen,
    'fedavg': fedavg,
    'fedprox': fedprox,
    'scaffold': scaffold,
    'ditto': ditto,
    'fedbn': fedbn,
    'silobn': silobn,
    'fedrep': fedrep,
    'pfedme': pfedme,
    'apfl': apfl,
    'fedsam': fedsam,
    'ga': ga,
    'fedsr': fedsr,
    'ifca': ifca,
    'elcfs': elcfs,
    'pfedhn': pfedhn,
    'flowdup': flowdup,
    'odpfl': odpfl,
    'pefll': pefll,
    'hyperfedzero': hyperfedzero,
    'knnper': knnper,
    'tent': tent,
    't3a': t3a,
    'shot': shot,
    'pfedfda': pfedfda,
    'atp': atp,
    'arm': arm,
    'mixstyle': mixstyle,
    'dsu': dsu,
    'fedfa': fedfa,
    'local_only': local_only,
    'pooled': pooled,
}


def follows_rounds(name: str) -> bool:
    """Whether a family's rounds depend on how many they are, from the first one on: OF_ROUNDS."""
    return getattr(look_up('algorithm', name, ALGORITHMS), 'OF_ROUNDS', False)


def pools(name: str) -> bool:
    """Whether one client has the images of all seen centers, as in no federation: POOLS."""
    return getattr(look_up('algorithm', name, ALGORITHMS), 'POOLS', False)
