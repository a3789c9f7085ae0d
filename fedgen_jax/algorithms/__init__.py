"""Federated algorithms, one file a family.

A family is a module with `defaults() -> ConfigDict`, the fields that are its own (the entry of its
name in a configuration), and `build(config, local, num_clients) -> Algorithm`.  Methods of the
literature are in `fedgen_jax.baselines`.  One of your own may live in any module:
`algorithm='my_package.my_module:my_family'`.
"""

from fedgen_jax.algorithms import fedavg, fedgen, local_only
from fedgen_jax.baselines import (
    arm,
    atp,
    ditto,
    dsu,
    fedfa,
    fedprox,
    mixstyle,
    pfedfda,
    scaffold,
    shot,
    t3a,
    tent,
)

ALGORITHMS = {
    'fedgen': fedgen,
    'fedavg': fedavg,
    'fedprox': fedprox,
    'scaffold': scaffold,
    'ditto': ditto,
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
}
