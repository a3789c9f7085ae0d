"""GA: FedAvg whose clients' weights in the sum follow their generalization gaps.

References:
    Zhang et al. 2023, Federated domain generalization with generalization adjustment, CVPR
    (algorithm 1, eq. 9 and 10).

The gap of a client is its loss under the model that the server sent less that under its own model
at the end of the round before.  Its share a of the sum moves with the gap G,

    a <- a + d_r (G - mean G) / max |G - mean G|,    d_r = step (1 - r / rounds),

is held in [0, 1], and shares are made to sum to 1.  Then the round's models are summed with them.
Shares begin as FedAvg's (`weighting`); the paper's are equal.  Losses are over the same at most 128
training images of a client in all rounds, without augmentation; the authors' code has a validation
set there, divides by max |G|, and multiplies the step by the number of clients.

The server needs the gaps and models one by one: no secure sum can serve it (`sum_only`).  An unseen
center gets the shared model.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.learning import Update
from fedgen_jax.algorithms.local import Local, if_real, task_gradient, weigh
from fedgen_jax.algorithms.losses import loss_on, sample_of
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.baselines.fedsam import sharpness_aware

OF_ROUNDS = True  # the step falls to zero over the rounds


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.step = 0.2  # how far the share of the most different gap moves in the first round
    c.rho = 0.0  # with FedSAM's steps, how far uphill; 0: plain ones
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    if not (0 <= c.ga.step <= 1 and c.ga.rho >= 0):
        raise ValueError(f'ga.step={c.ga.step}, ga.rho={c.ga.rho}: a step from 0 to 1, and at '
                         'least 0')
    if c.privacy.clip:
        raise ValueError(f"algorithm='ga' with privacy.clip={c.privacy.clip}: it would shrink the "
                         'gaps that are compared: 0')
    if not c.get('rounds'):
        raise ValueError("algorithm='ga': its step follows the number of rounds, which a run tells "
                         'an algorithm of that name alone')
    uphill = sharpness_aware(task_gradient(local), c.ga.rho) if c.ga.rho else None
    server = optimizer('server', c.server)
    algorithm = ga(local, server, c.ga.step, c.rounds, num_clients, uphill)
    return algorithm._replace(title='GA + FedSAM' if uphill else 'GA')


def adjusted(share_C: jax.Array, gap_C: jax.Array, known_C: jax.Array, step) -> jax.Array:
    """The shares [C] after a step, summing to 1; a gap that is not known counts as the mean.

    Shares that nothing moves stay as they are, to the bit.
    """
    mean = (known_C * gap_C).sum() / jnp.maximum(known_C.sum(), 1)
    apart_C = known_C * (gap_C - mean)
    largest = jnp.maximum(jnp.abs(apart_C).max(), 1e-12)
    moved_C = jnp.clip(share_C + step * apart_C / largest, 0, 1)
    normal_C = moved_C / jnp.maximum(moved_C.sum(), 1e-12)
    return jnp.where((moved_C == share_C).all(), share_C, normal_C)


def ga(
    local: Local, server: optax.GradientTransformation, step: float, rounds: int,
    num_clients: int, gradient=None,
) -> Algorithm:
    """gradient: of a client's steps; None: the task's."""
    base = fedavg(local, server, gradient and (lambda shared: gradient))
    always = jax.random.key(0)  # the same images in all rounds

    def init(key):
        state = base.init(key)
        return state._replace(optimizer={'step': state.optimizer, 'share': jnp.zeros(num_clients)})

    def init_private(state, client_id):
        return {'id': client_id, 'loss': jnp.float32(0), 'known': jnp.float32(0)}

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)
        sample = sample_of(local, data, always)
        sent_loss = loss_on(local, shared['theta'], sample, data, always)

        def end(done):
            contribution, _, metrics = base_end(done)
            real = (data.weight.sum() > 0).astype(jnp.float32)
            more = {
                'gap': sent_loss - private['loss'], 'known': private['known'],
                'who': jax.nn.one_hot(private['id'], num_clients),
            }
            own = {'loss': loss_on(local, done.params, sample, data, always),
                   'known': jnp.float32(1)}
            return (
                {**contribution, **weigh(real, more)},
                {**private, **if_real(data, own, private)}, metrics,
            )

        return learning, end

    def server_update(state: State, sent_C):
        kept, present_C = state.optimizer, sent_C['who'].sum(1)
        first_C = sent_C['weight'] / jnp.maximum(sent_C['weight'].sum(), 1e-12)
        share_C = jnp.where(kept['share'].sum() > 0, sent_C['who'] @ kept['share'], first_C)
        now = step * (1 - state.shared['round'] / max(rounds, 1))
        share_C = present_C * share_C
        share_C = adjusted(share_C, sent_C['gap'], present_C * sent_C['known'], now)
        # What is sent is weighed as FedAvg's: each is multiplied with its share over FedAvg's.
        factor_C = jnp.where(first_C > 0, share_C / jnp.maximum(first_C, 1e-12), 0)

        def weighed(x_C):
            return (factor_C.reshape(-1, *(1,) * (x_C.ndim - 1)) * x_C).sum(0)

        names = ('weight', 'delta', 'statistics')
        total = jax.tree.map(weighed, {k: sent_C[k] for k in names if k in sent_C})
        state = base.server_update(state._replace(optimizer=kept['step']), total)
        share = share_C @ sent_C['who']
        share = jnp.where(present_C @ sent_C['who'] > 0, share, kept['share'])
        return state._replace(optimizer={'step': state.optimizer, 'share': share})

    return base._replace(
        features=True,
        init=init, init_private=init_private, client_update=Update(begin),
        server_update=server_update, keeps=True, sum_only=False,
    )
