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
from fedgen_jax.audit.rates import area, one_sided, roc, scores, tpr_at
from fedgen_jax.data.examples import SPLITS, Examples, of_split, take
from fedgen_jax.evaluate import canonical, model_of
from fedgen_jax.program import num_bytes

SHADOWS, IMAGES, OVERTRAINED = 16, 1200, 100
RECIPE = shadows.Recipe()
LONG = shadows.Recipe(steps=1500, augment=False)  # on `OVERTRAINED` images: the control
LARGEST = 4 * 200_000  # bytes of weights: shadows of more take too long on a CPU
RATES = (0.01, 0.001)  # of false alarms
ATTACKS = {'two-sided': scores, 'one-sided': one_sided}


class Pool(NamedTuple):
    """Images of the seen centers, on canonical input.

    member_N: whether the run trained on it.  target_N: the run's confidences.
    """

    data: Examples
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
        moved = canonical(trained, train, examples._replace(target=label), center.name)
        member = center.split[use] == SPLITS.index('train')
        parts.append(Pool(moved, member, np.mean(told, 0)))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def on_pool(subject: Subject, pool: Pool, weights_S: dict) -> np.ndarray:
    """Models' confidences [S, N]."""
    flips = subject.run.config.shifts.flips
    return shadows.confidences(subject.local, weights_S, pool.data, flips)


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
    for model, (target_N, member_N) in targets.items():
        found = {}
        for side, attack in ATTACKS.items():
            score_N = attack(target_N, shadow_SxN, member_SxN)
            inside, outside = score_N[member_N], score_N[~member_N]
            found[side] = [area(inside, outside), *(tpr_at(r, inside, outside) for r in RATES)]
            rows.append([f'{model}, {side}', f'{len(inside)}', f'{len(outside)}',
                         *map(told, found[side])])
            curves.append(Curve(f'{model}, {side}', *roc(inside, outside)))
        best = [max(x) for x in zip(*found.values())]
        numbers[model] = {
            'members': int(member_N.sum()), 'others': int((~member_N).sum()), 'area': best[0],
            'tpr_at_1_percent': best[1], 'tpr_at_0.1_percent': best[2], 'attacks': found,
        }
    own, control = numbers.values()
    works = control['area'] > 0.65 and control['tpr_at_1_percent'] > 0.02
    return finding(
        answer=f'At one false alarm in a hundred the attack finds {own["tpr_at_1_percent"]:.1%} of '
        f'the images that were trained on (guessing: 1%), with {count} shadows; area under the '
        f'curve {own["area"]:.3f} (guessing: .5). Each is that of the better of two attacks.',
        control=f'Of a model overtrained on {few_N.sum()} images it finds '
        f'{control["tpr_at_1_percent"]:.1%} at that rate, area {control["area"]:.3f}: the attack '
        + ('works where there is something to find.' if works else 'is too weak to tell anything.'),
        holds=works,
        head=('model', 'trained on', 'others', 'area', 'found at 1% false alarms', 'at .1%'),
        rows=rows,
        numbers={'shadows': count, **numbers},
        curves=curves,
        missing=f'.1% of {len(pool.member_N) - pool.member_N.sum()} images is less than one: that '
        'column allows no false alarm at all' if (~pool.member_N).sum() < 1000 else '',
    )
