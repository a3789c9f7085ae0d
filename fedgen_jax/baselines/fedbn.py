"""FedBN: FedAvg whose clients keep their normalizations.

References:
    Li et al. 2021, FedBN: Federated learning on non-IID features via local batch normalization,
    ICLR (algorithm 1); Li et al. 2018, Adaptive batch normalization for practical domain
    adaptation, Pattern Recognition (AdaBN).

Scale, bias and statistics of each normalization stay at the client, the last features' among them;
all other weights are averaged.  A seen center's finished model has its own scale and bias, and its
own statistics: those of its images under the finished weights (`statistics='own'`), or of its steps
in the last round ('running', nearest to the paper's running means).

An unseen center has the statistics of its own unlabelled images (AdaBN).  The paper says nothing of
its scale and bias.  With `stranger='mean'` they are the mean of the clients', which are then sent
for this alone; with 'first' no norm's weight is ever sent, and they are those that all began with.

Of a normalization without batch statistics (`model.norm='group'`) scale and bias alone are kept,
and the title says so.
"""

from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm
from fedgen_jax.algorithms.keeping import has_statistics, keeping, of_roles
from fedgen_jax.algorithms.local import Local
from fedgen_jax.algorithms.optimizers import optimizer


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.stranger = 'mean'  # scale and bias at an unseen center: the clients' mean | first (not sent)
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if local.statistics == 'frozen':
        raise ValueError(
            "algorithm='fedbn': a client's statistics are its own, and statistics="
            f'{c.statistics!r} gives all the same: pass --config.statistics=own'
        )
    norms = of_roles(local, 'fedbn', c.fedbn.stranger, 'norm', 'features')
    server = optimizer('server', c.server)
    title = 'FedBN' if has_statistics(local) else 'FedBN, scale and bias alone'
    kept = keeping(local, server, norms, c.fedbn.stranger, own_statistics=True)
    return kept._replace(title=title)
