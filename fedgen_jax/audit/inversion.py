"""Whether images of a run can be rebuilt from gradients (`pixels`)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedgen_jax.algorithms.local import Batch, Local, apply_model, batch_loss
from fedgen_jax.audit.base import Finding, Picture, Subject, told
from fedgen_jax.audit.pixels import closed_form, dense_gradient, matched, protected, psnr, ssim
from fedgen_jax.data.examples import of_split, take
from fedgen_jax.evaluate import canonical

STEPS, IMAGES = 300, 2
SIGMAS = (0.01, 1.0)


def features_error(local: Local, theta: dict, batch: Batch) -> float | None:
    """How exactly the last layer's gradient gives the features of the one image it is of.

    None: the network has no dense layer of the name `head`.
    """
    found = {}

    def watch(next_function, args, kwargs, context):
        if context.module.name == 'head':
            found['x'] = args[0]
        return next_function(*args, **kwargs)

    with nn.intercept_methods(watch):
        apply_model(local, theta, batch.image)
    if 'x' not in found or found['x'].ndim != 2:
        return None
    head = jax.grad(lambda p: batch_loss(local, p, batch)[0])(theta)['head']
    x = np.asarray(found['x'][0], np.float64)
    sent = closed_form(*(np.asarray(head[k], np.float64) for k in ('kernel', 'bias')))
    return float(np.linalg.norm(sent - x) / np.linalg.norm(x))


def samples(subject: Subject, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Some labelled training images of the first center, as the network sees them, in [0, 1]."""
    own = of_split(subject.run.seen[0], 'train')
    known = np.flatnonzero(np.asarray(own.target['label']) >= 0)[:count]
    moved = canonical(subject.trained, own, own, subject.run.seen[0].name)
    chosen = take(moved, known)
    return np.asarray(chosen.image, np.float32) / 255, np.asarray(chosen.target['label'])


def rebuilt(
    subject: Subject, images: np.ndarray, labels: np.ndarray, steps: int, sigmas: Sequence[float]
) -> dict[str, list[np.ndarray]]:
    """{'the image' or an attack: what it makes of each image [H, W, 3], in [0, 1]}.

    sigmas: noise multipliers of the closed form.
    """
    local = subject.local._replace(private=None, prior=False)
    theta, classes = subject.trained.shared['theta'], len(subject.run.classes)
    clip = subject.run.config.privacy.clip or 1.0

    @functools.partial(jax.jit, static_argnums=2)
    def attack(x, label, match):
        def gradient(x):
            return jax.grad(lambda p: batch_loss(local, p, batch_of(x, label))[0])(theta)

        return matched(gradient, gradient(x), x.shape, steps, match)

    made: dict[str, list[np.ndarray]] = {'the image': list(images)}
    for x, label in zip(images, labels):
        layer = dense_gradient(x, int(label), classes)
        tries = {
            'matching, the run\'s network': attack(x, label, 1.0),
            'the prior alone': attack(x, label, 0.0),
            'its mean color': np.broadcast_to(x.mean((0, 1)), x.shape),
            'dense layer, closed form': _read(layer, x.shape),
            'the same, clipped': _read(protected(layer, clip, 0.0), x.shape),
        } | {
            f'the same, clipped, noise {told(s)}': _read(protected(layer, clip, s), x.shape)
            for s in sigmas
        }
        for name, image in tries.items():
            made.setdefault(name, []).append(np.asarray(image, np.float64))
    return made


def batch_of(x: jax.Array, label: jax.Array | int) -> Batch:
    """A batch of one image."""
    return Batch(x[None], {'label': jnp.asarray(label)[None]}, jnp.ones(1))


def audit(subject: Subject, steps: int = STEPS, count: int = IMAGES) -> Finding:
    """On training images of the run's first center."""
    finding = functools.partial(
        Finding, 'Images from gradients',
        'Can an image be rebuilt from the change of weights that it causes?',
    )
    run, program = subject.run, subject.run.program
    if program.task.target != 'label':
        return finding(missing=f'needs labels, and the task learns from {program.task.target}')
    if not program.algorithm.server_model:
        return finding(missing='no gradient leaves a center that learns alone')
    images, labels = samples(subject, count)
    sigmas = SIGMAS
    if run.guard:
        sigmas = tuple({c.sigma for of in run.guard.ledgers.values() for c in of.account.plan
                        if c.name == 'training'})
    made = rebuilt(subject, images, labels, steps, sigmas)
    quality = {
        name: [float(np.mean([f(y, x) for x, y in zip(images, own)])) for f in (psnr, ssim)]
        for name, own in made.items() if name != 'the image'
    }
    features = features_error(
        subject.local._replace(private=None, prior=False), subject.trained.shared['theta'],
        batch_of(jnp.asarray(images[0]), labels[0]),
    )
    match, prior, flat, dense, clipped, *noisy = (q[0] for q in quality.values())
    worked = match > max(prior, flat)
    return finding(
        answer=f'Matching gradients of the run\'s own network for {steps} steps gave '
        f'{match:.1f} dB, '
        + ('more than' if worked else 'no more than') +
        f' the prior alone ({prior:.1f}) or the mean color ({flat:.1f})'
        + ('.' if worked else ', so it failed; a longer one may not.')
        + ('' if features is None else ' The last layer gives the features of a single image away '
           f'(relative error {told(features)}).'),
        control=f'The attack in closed form on a dense layer, as a malicious server may send it, '
        f'gives {dense:.0f} dB, {clipped:.0f} after clipping alone, and {noisy[-1]:.1f} with noise '
        f'{told(sigmas[-1])}: above 40 an image is as good as the original.',
        holds=min(dense, clipped) > 40 > noisy[-1],
        head=('', 'PSNR, dB', 'SSIM'),
        rows=[[name, f'{a:.1f}', f'{b:.2f}'] for name, (a, b) in quality.items()],
        numbers={
            'steps': steps, 'images': len(images), 'features_error': features, 'sigmas': sigmas,
            'quality': {name: {'psnr': a, 'ssim': b} for name, (a, b) in quality.items()},
        },
        pictures=[
            Picture(np.round(255 * np.clip(x, 0, 1)).astype(np.uint8), name)
            for name, own in made.items() for x in own[:1]
        ],
    )


def _read(gradient, shape):
    return np.clip(closed_form(gradient['kernel'], gradient['bias']).reshape(shape), 0, 1)
