"""pFedFDA: features whose classes are Gaussian, and at each center the head that follows from them.

References:
    McLaughlin, Su 2024, Personalized federated learning via feature distribution adaptation,
    NeurIPS (algorithm 1; the head of eq. 5, linear discriminant analysis; eq. 7 and 8).

The server sends features' weights, class means mu_k and one covariance S.  A client of class shares
pi takes its steps under the head that these give,

    logit_k = z . S^-1 mu_k - mu_k . S^-1 mu_k / 2 + log pi_k,

which stays.  Then, with hats of its own images under its own weights, it sends its features and

    mu_k <- b mu^_k + (1 - b) mu_k,   S <- b' S^ + (1 - b') S,

with the b and b' of the least cross-entropy over two folds of its images, each scored by the head
from the other.  The server averages all three.

At last a seen center makes its Gaussians anew under the server's features, of its training images
and their labels, and so does any center that is given labels; neither takes another step.  An
unseen center uses its unlabelled images.

What was chosen: b and b' are on a grid of tenths, where the authors run L-BFGS.  Features are those
of a finished model after the steps, not those met in training.  `ridge` times the identity is
added to each own covariance: 1 in the authors' code, in which class means start uniform in [0, 1)
too.  Class shares are of counts with half an example more of each; they are alike where batches are
drawn so (`prevalence`), for a head of other shares would undo that.
The paper has no center without labels: there the classes' own means and covariance come from
`em` rounds of expectation and maximization, begun at the global Gaussians and interpolated with
them in each by the mean b and b' of the seen centers; class shares are the mean ones of these.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.draws import class_shares
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.finish import finish
from fedgen_jax.algorithms.learning import Learning, Update, metrics_of
from fedgen_jax.algorithms.local import Local, contribution_of, mean_of_steps, weigh
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.gaussians import Gaussians, at_stranger, best_mix, lda, mixed, own
from fedgen_jax.baselines.heads import features_of, head_of
from fedgen_jax.models.roles import frozen_of, roles_of
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.ridge = 1.0  # added to the diagonal of a center's own covariance
    c.em = 3  # rounds of expectation and maximization at an unseen center; 0: the global Gaussians
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    h, is_natural = c.pfedfda, local.prevalence == 'natural'
    if h.ridge <= 0 or h.em < 0:
        raise ValueError(f'pfedfda.ridge={h.ridge}, pfedfda.em={h.em}: above 0, and at least 0')
    if local.prior:
        raise ValueError("loss.prior=logits: algorithm='pfedfda' has the classes' shares in its "
                         'head: pass --config.loss.prior=none')
    head, task = head_of('pfedfda', local), local.task
    base = fedavg(local, optimizer('server', c.server))
    role_of, frozen = roles_of(local.model), frozen_of(local.model)

    def init(key):
        state = base.init(key)
        mean_KxI = jax.random.uniform(stream(key, 'gaussians'), (head.outputs, head.inputs))
        share_K = jnp.full(head.outputs, 1 / head.outputs)
        first = Gaussians(mean_KxI, jnp.eye(head.inputs), share_K, jnp.full(2, 0.5))
        return with_gaussians(state, first)

    def with_gaussians(state, gaussians):
        theta = head.put(state.shared['theta'], *lda(gaussians))
        return state._replace(shared={**state.shared, 'theta': theta, 'gaussians': gaussians})

    def shares(data):
        share_K = class_shares(task, data)
        return share_K if is_natural else jnp.full_like(share_K, 1 / head.outputs)

    def estimated(variables, data, gaussians, key):
        """A labelled center's Gaussians, mixed with the global ones; these, without a label."""
        z_NxI = features_of(local.model, variables, data.image)
        label_N = jnp.where(data.weight > 0, task.stratum(data.target), -1)
        gaussians = gaussians._replace(share=shares(data))
        mix = best_mix(z_NxI, label_N, gaussians, h.ridge, stream(key, 'folds'))
        chance_NxK = jax.nn.one_hot(label_N, head.outputs)
        return mixed(own(z_NxI, chance_NxK, gaussians, h.ridge), gaussians, mix)

    def begin(shared, private, data, key):
        gaussians = shared['gaussians']._replace(share=shares(data))
        old = head.put(shared['theta'], *lda(gaussians))

        def end(done):
            sent = contribution_of(
                local, data, {'theta': done.params}, {'theta': old}, done.aux_T
            )
            statistics = mean_of_steps(done.aux_T)
            variables = finish(local, done.params, data, None, key, statistics)
            found = estimated(variables, data, shared['gaussians'], key)
            change = jax.tree.map(jnp.subtract, found, shared['gaussians'])
            sent['gaussians'] = weigh(sent['weight'], change)
            return sent, private, metrics_of(loss=done.loss)

        def stays(path):
            return role_of(path) == 'head' or frozen(path)

        return Learning(local, old, local.schedule(shared['round']), stays=stays), end

    def server_update(state: State, total):
        weight = jnp.maximum(total['weight'], 1e-9)
        gaussians = jax.tree.map(
            lambda x, change: x + change / weight, state.shared['gaussians'], total['gaussians']
        )
        state = base.server_update(state, {k: v for k, v in total.items() if k != 'gaussians'})
        return with_gaussians(state, gaussians)

    def personalize(shared, private, unlabelled, labelled, key, m_E=None):
        gaussians, statistics = shared['gaussians'], shared.get('statistics')
        variables = finish(local, shared['theta'], unlabelled, None, key, statistics)
        if private is not None or labelled is not None:
            own_data = unlabelled if labelled is None else labelled
            gaussians = estimated(variables, own_data, gaussians, key)
        else:
            z_NxI = features_of(local.model, variables, unlabelled.image)
            gaussians = at_stranger(z_NxI, unlabelled.weight, gaussians, h.ridge, h.em)
        return {**variables, 'params': head.put(variables['params'], *lda(gaussians))}

    return base._replace(
        features=True,
        init=init, client_update=Update(begin), server_update=server_update,
        personalize=personalize, title='pFedFDA', unseen='Gaussians of its images',
        sizes={'base': 'theta', 'gaussians': 'gaussians'},
    )
