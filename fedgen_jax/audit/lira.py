"""Was an image in the training?  The likelihood ratio attack (LiRA), with fixed variances.

The auditor has all images of the seen centers, and trains shadows, each on a random half of them.
For each image the confidences of shadows that learned from it, and of those that did not, are two
normal distributions; the run's model is more like the one or the other.  An attacker outside of the
centers has no such images, and is weaker.

References:
    Carlini et al. 2022, Membership inference attacks from first principles (section V; fixed
    variance, because few shadows tell no image's own).
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.audit import shadows
from fedgen_jax.audit.base import Curve, Finding, Subject, told
from fedgen_jax.audit.rates import area, roc, scores, tpr_at
from fedgen_jax.data.examples import SPLITS, Examples, of_split, take
from fedgen_jax.evaluate import canonical, model_of
from fedgen_jax.program import num_bytes

SHADOWS, IMAGES, OVERTRAINED = 16, 1200, 100
RECIPE = shadows.Recipe()
LONG = shadows.Recipe(steps=600, augment=False)  # on `OVERTRAINED` images: the control
LARGEST = 4 * 200_000  # bytes of weights: shadows of more take too long on a CPU
RATES = (0.01, 0.001)  # of false alarms


class Pool(NamedTuple):
    """Images of the seen centers, on canonical input; center_N: whose each is.

    member_N: whether the run trained on it.  target_N: the run's confidences.
    """

    data: Examples
    center_N: np.ndarray
    member_N: np.ndarray
    target_N: np.ndarray


def pool_of(subject: Subject, limit: int = IMAGES) -> Pool:
    """As many labelled images of each seen center as fit, and what the run says of them.

    A center's model is the refined one, which its labels have not touched: it is what leaves.
    """
    run, trained = subject.run, subject.trained
    most, flips, parts = limit // len(run.seen), run.config.shifts.flips, []
    for i, center in enumerate(run.seen):
        train = of_split(center, 'train')
        known = np.flatnonzero(np.asarray(center.examples.target['label']) >= 0)
        use = np.sort(np.random.default_rng(i).permutation(known)[:most])
        examples = take(center.examples, use)
        label = {'label': np.asarray(examples.target['label'])}
        variables = model_of(trained, train, i)
        told = [
            shadows.confidence(run.program.predict(variables, x)['probability'], label['label'])
            for x in shadows.views(np.asarray(examples.image), flips)
        ]
        moved = canonical(trained, train, examples._replace(target=label))
        member = center.split[use] == SPLITS.index('train')
        parts.append(Pool(moved, np.full(len(use), i), member, np.mean(told, 0)))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def on_pool(subject: Subject, pool: Pool, weights_S: dict) -> np.ndarray:
    """Models' confidences [S, N], each center's images by themselves."""
    found = [
        shadows.confidences(
            subject.local, weights_S, take(pool.data, pool.center_N == i),
            subject.run.config.shifts.flips,
        ) for i in range(len(subject.run.seen))
    ]
    return np.concatenate(found, 1)


def why_not(subject: Subject) -> str:
    """Why the attack cannot be, a line; '' if it can."""
    program = subject.run.program
    if program.task.target != 'label':
        return f'the attack is on labels, and the task learns from {program.task.target}'
    if not program.algorithm.server_model:
        return 'the centers share no model, so nobody else has one to attack'
    if num_bytes(subject.trained.shared['theta']) > LARGEST:
        return 'the network is too large to train shadows of it in minutes on a CPU'
    return ''


def audit(
    subject: Subject, count: int = SHADOWS, recipe: shadows.Recipe = RECIPE,
    long: shadows.Recipe = LONG,
) -> Finding:
    """Of the run's models, and of one that was made to be attackable."""
    finding = functools.partial(
        Finding, 'Who was in the training (LiRA)',
        'Can it be told from the model whether an image was trained on?',
    )
    if reason := why_not(subject):
        return finding(missing=reason)
    pool, rng = pool_of(subject), np.random.default_rng(3)
    size = len(pool.member_N)
    member_SxN = shadows.members(rng, count, size)
    trained_S = shadows.train(subject.local, pool.data, member_SxN, recipe, 1)
    shadow_SxN = on_pool(subject, pool, trained_S)
    few_N = np.isin(np.arange(size), rng.permutation(size)[: min(OVERTRAINED, size // 2)])
    over = shadows.train(subject.local, pool.data, few_N[None], long, 2)
    targets = {
        "the run's": (pool.target_N, pool.member_N),
        f'overtrained on {few_N.sum()} images (control)': (on_pool(subject, pool, over)[0], few_N),
    }
    rows, numbers, curves = [], {}, []
    for name, (target_N, member_N) in targets.items():
        score_N = scores(target_N, shadow_SxN, member_SxN)
        inside, outside = score_N[member_N], score_N[~member_N]
        rates = [tpr_at(rate, inside, outside) for rate in RATES]
        rows.append([name, f'{len(inside)}', f'{len(outside)}', told(area(inside, outside)),
                     *map(told, rates)])
        numbers[name] = {
            'members': len(inside), 'others': len(outside), 'area': area(inside, outside),
            'tpr_at_1_percent': rates[0], 'tpr_at_0.1_percent': rates[1],
        }
        curves.append(Curve(name, *roc(inside, outside)))
    own, control = numbers.values()
    chance = min(control['tpr_at_1_percent'], 1)
    return finding(
        answer=f'At one false alarm in a hundred the attack finds {own["tpr_at_1_percent"]:.1%} of '
        f'the images that were trained on (guessing: 1%), with {count} shadows; area under the '
        f'curve {own["area"]:.3f} (guessing: .5).',
        control=f'Of a model overtrained on {few_N.sum()} images it finds {chance:.1%}: the attack '
        'works where there is something to find.',
        holds=control['tpr_at_1_percent'] > 0.05,
        head=('model', 'trained on', 'others', 'area', 'found at 1% false alarms', 'at .1%'),
        rows=rows,
        numbers={'shadows': count, **numbers},
        curves=curves,
        missing=f'.1% of {len(pool.member_N) - pool.member_N.sum()} images is less than one: that '
        'column allows no false alarm at all' if (~pool.member_N).sum() < 1000 else '',
    )
