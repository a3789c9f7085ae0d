"""SiloBN: FedAvg whose clients keep the statistics of their batch normalizations.

References:
    Andreux et al. 2020, Siloed federated learning for multi-centric histopathology datasets, DCL at
    MICCAI (section 2.2); Li et al. 2018, Adaptive batch normalization for practical domain
    adaptation, Pattern Recognition (AdaBN).

All weights are averaged, scale and bias of normalizations among them, and no statistic is sent.  A
seen center's finished model has the statistics of its own steps: their mean over the last round,
where the paper has a running mean over all rounds.  An unseen center has those of its own
unlabelled images, as in the paper.

Training is FedAvg's to the bit.  With `statistics='own'` FedAvg's clients keep their statistics
already, so this method needs 'running' (or 'last').
"""

from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.keeping import has_statistics, keeping
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer


def defaults() -> ConfigDict:
    return ConfigDict()


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if not has_statistics(local):
        raise ValueError("algorithm='silobn': the model has no batch statistics to keep: pass "
                         '--config.model.norm=batch')
    if not local.keeps_statistics:
        raise ValueError(
            f"algorithm='silobn': with statistics={c.statistics!r} it would be FedAvg, whose "
            'clients share no statistics then: pass --config.statistics=running'
        )
    kept = keeping(local, optimizer('server', c.server), lambda path: False, own_statistics=True)
    return kept._replace(title='SiloBN')
