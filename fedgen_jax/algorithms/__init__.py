"""Federated algorithms, one file a family.

A family is a module with `defaults() -> ConfigDict`, the fields that are its own (the entry of its
name in a configuration), and `build(config, local, num_clients) -> Algorithm`.  Methods of the
literature are in `fedgen_jax.baselines`.  One of your own may live in any module:
`algorithm='my_package.my_module:my_family'`.
"""

from fedgen_jax.algorithms import fedavg, fedgen, local_only
from fedgen_jax.baselines import (
    apfl,
    ditto,
    elcfs,
    fedbn,
    fedprox,
    fedrep,
    fedsam,
    fedsr,
    flowdup,
    ga,
    hyperfedzero,
    ifca,
    knnper,
    odpfl,
    pefll,
    pfedhn,
    pfedme,
    scaffold,
    silobn,
)

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
    'local_only': local_only,
}

# Those whose rounds follow from how many they are, from the first one on.
OF_ROUNDS = ('ga',)
