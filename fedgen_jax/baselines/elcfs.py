"""FedDG-ELCFS: clients exchange amplitude spectra, and train to do well under another's.

References:
    Liu et al. 2021, FedDG: Federated domain generalization on medical image segmentation via
    episodic learning in continuous frequency space, CVPR (eq. 2 to 5; eq. 8 without its boundary
    loss).

The amplitudes of low frequencies hold how an image was taken, its phases what it shows.  With A and
A' the amplitudes of an image and of one from another client, and M a square of low frequencies,

    A_lambda = A outside M,  (1 - lambda) A + lambda A' in it,    lambda uniform in [0, most]

with the phases of the first is the same image in a style between both.  A step is an episode: the
client's loss L, and beside it the same loss on such images after a step that L alone would make,

    L(x; theta) + meta L(x_lambda; theta - inner_lr grad L(x; theta)),

differentiated through that step.  The paper adds a loss on features at the boundaries of masks,
which is left out: it is of segmentation alone, and here all three tasks are served.

What is shared is no sum: each client's spectra of `spectra` of its images, drawn anew each round,
go to the server by themselves, and from there to all clients, in the next round.  So no secure sum
can serve it (`sum_only`), and a run's folder holds them.  Of a spectrum only M is sent, as nothing
else of it is used.  In the first round there are none yet, and an episode has a client's images as
they are.  With `most` or `meta` 0 there are no episodes: it is FedAvg to the bit.  An unseen center
gets the shared model.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fedgen_jax.algorithms.base import Algorithm, State, Tree
from fedgen_jax.algorithms.draws import draw_indices, images_of
from fedgen_jax.algorithms.fedavg import fedavg
from fedgen_jax.algorithms.learning import Update
from fedgen_jax.algorithms.local import Local, batch_loss, decayed, hold, weigh
from fedgen_jax.algorithms.optimizers import optimizer
from fedgen_jax.models.roles import frozen_of
from fedgen_jax.random import stream


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.most = 1.0  # the largest lambda, another's share of the amplitudes of low frequencies
    c.meta = 1.0  # weight of the loss on such images
    c.inner_lr = 0.001  # of the step before it, as in the paper
    c.band = 0.05  # half the side of the square of low frequencies, as a share of the image's
    c.spectra = 8  # that a client sends a round
    return c


def build(c: ConfigDict, local: Local, num_clients: int) -> Algorithm:
    e = c.elcfs
    if not (0 <= e.most <= 1 and e.meta >= 0 and e.inner_lr >= 0 and e.spectra >= 1):
        raise ValueError(f'elcfs: most={e.most}, meta={e.meta}, inner_lr={e.inner_lr}, spectra='
                         f'{e.spectra}: a share, two numbers of at least 0, and one of at least 1')
    if not 0 <= e.band < 0.5:
        raise ValueError(f'elcfs.band={e.band}: from 0 (the mean alone) to below 0.5')
    if c.privacy.clip:
        raise ValueError(f"algorithm='elcfs' with privacy.clip={c.privacy.clip}: it would shrink "
                         'the spectra that are sent: 0')
    half = int(e.band * local.image_size)
    return elcfs(
        local, optimizer('server', c.server), e.most, e.meta, e.inner_lr, half, e.spectra,
        num_clients,
    )


def amplitudes(x_BxHxWx3: jax.Array, half: int) -> jax.Array:
    """Of the 2 half + 1 lowest frequencies on both axes, [B, 2 half + 1, 2 half + 1, 3]."""
    return jnp.abs(_low(jnp.fft.fftshift(jnp.fft.fft2(x_BxHxWx3, axes=(1, 2)), (1, 2)), half))


def restyled(
    x_BxHxWx3: jax.Array, other_BxSxSx3: jax.Array, lambda_B: jax.Array
) -> jax.Array:
    """The images with amplitudes of low frequencies between their own and others', in [0, 1]."""
    half = other_BxSxSx3.shape[1] // 2
    whole = jnp.fft.fftshift(jnp.fft.fft2(x_BxHxWx3, axes=(1, 2)), (1, 2))
    low = _low(whole, half)
    own, share = jnp.abs(low), lambda_B[:, None, None, None]
    new = (1 - share) * own + share * other_BxSxSx3
    grown = new / jnp.maximum(own, 1e-6)
    real = jnp.where(own > 1e-6, grown * low.real, new)  # without an amplitude the phase is 0
    low = jax.lax.complex(real, grown * low.imag)
    rows, cols = (slice(n // 2 - half, n // 2 + half + 1) for n in whole.shape[1:3])
    whole = jnp.fft.ifftshift(whole.at[:, rows, cols].set(low), (1, 2))
    return jnp.clip(jnp.fft.ifft2(whole, axes=(1, 2)).real, 0, 1)


def _low(whole, half):
    rows, cols = (slice(n // 2 - half, n // 2 + half + 1) for n in whole.shape[1:3])
    return whole[:, rows, cols]


def elcfs(
    local: Local, server: optax.GradientTransformation, most: float, meta: float,
    inner_lr: float, half: int, spectra: int, num_clients: int,
) -> Algorithm:
    """shared['bank'] [clients, spectra, S, S, 3]; shared['filled'] [clients], 1 of who has sent."""
    stays = frozen_of(local.model)
    side = 2 * half + 1

    def of_others(shared, own_id, key):
        """(another client's spectrum for each image [B, S, S, 3], and how much of it [B])."""
        whose, which, much = jax.random.split(key, 3)
        others_N = jnp.where(jnp.arange(num_clients) == own_id, 0, shared['filled'])
        log_N = jnp.where(others_N > 0, 0.0, -jnp.inf)
        log_N = jnp.where(others_N.any(), log_N, 0.0)
        n_B = jax.random.categorical(whose, log_N, shape=(local.batch,))
        s_B = jax.random.randint(which, (local.batch,), 0, spectra)
        lambda_B = most * jax.random.uniform(much, (local.batch,))
        return shared['bank'][n_B, s_B], jnp.where(others_N.any(), lambda_B, 0)

    def episode(shared, own_id):
        def of(params, batch, tau, key):
            other, lambda_B = of_others(shared, own_id, stream(key, 'spectra'))
            moved = batch._replace(image=restyled(batch.image, other, lambda_B))

            def loss(p):
                return batch_loss(local, hold(p, stays), batch)

            def whole(p):
                (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(p)
                ahead = jax.tree.map(lambda x, g: x - inner_lr * g, hold(p, stays), grads)
                return value + meta * batch_loss(local, ahead, moved)[0], aux

            told, grads = jax.value_and_grad(whole, has_aux=True)(params)
            return told, decayed(local, grads, params, stays)

        return of

    base = fedavg(local, server)

    def init(key):
        state = base.init(key)
        bank = {'bank': jnp.zeros((num_clients, spectra, side, side, 3)),
                'filled': jnp.zeros(num_clients)}
        return state._replace(shared={**state.shared, **bank})

    def begin(shared, private, data, key):
        learning, base_end = base.client_update.begin(shared, private, data, key)
        if most and meta:
            learning = learning._replace(gradient=episode(shared, private['id']))

        def end(done):
            contribution, private_new, metrics = base_end(done)
            index = draw_indices(local.task, data, stream(key, 'spectra'), spectra, None)
            sent = {'spectra': amplitudes(images_of(data.image[index]), half),
                    'who': jax.nn.one_hot(private['id'], num_clients)}
            real = (data.weight.sum() > 0).astype(jnp.float32)
            return {**contribution, **weigh(real, sent)}, private_new, metrics

        return learning, end

    def server_update(state: State, sent_C: Tree):
        who_CxN = sent_C['who']
        came_N = who_CxN.sum(0)
        new = jnp.tensordot(who_CxN.T, sent_C['spectra'], 1)
        came = came_N[:, None, None, None, None] > 0
        total = {
            k: jax.tree.map(lambda x_C: x_C.sum(0), sent_C[k])
            for k in ('weight', 'delta', 'statistics') if k in sent_C
        }
        moved = base.server_update(state, total)
        bank = {'bank': jnp.where(came, new, state.shared['bank']),
                'filled': jnp.maximum(state.shared['filled'], came_N)}
        return moved._replace(shared={**moved.shared, **bank})

    return base._replace(
        init=init, client_update=Update(begin), server_update=server_update,
        title='FedDG-ELCFS, without boundaries', keeps=True, sum_only=False,
        sizes={'base': 'theta', 'spectra': 'bank'},
    )
