"""Was an image in the training?  The likelihood ratio attack (LiRA), with fixed variances.

The auditor has all images of the seen centers, and trains shadows, each on a random half of them.
For each image the confidences of shadows that learned from it, and of those that did not, are two
normal distributions; the run's model is more like the one or the other.  An attacker outside of the
centers has no such images, and is weaker.

The control are models that learned few images by heart.  Each is attacked with the others as its
shadows, so that attack and target are trained alike, and many guesses stand behind low rates.

References:
    Carlini et al. 2022, Membership inference attacks from first principles (section V; fixed
    variance, because few shadows tell no image's own).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from fedgen_jax.audit import shadows
from fedgen_jax.audit.base import Curve, Finding, Subject, told
from fedgen_jax.audit.rates import area, one_sided, roc, scores, tpr_at, tpr_of_guessing
from fedgen_jax.data.examples import SPLITS, Examples, of_split, take
from fedgen_jax.evaluate import canonical, model_of
from fedgen_jax.program import num_bytes

SHADOWS, IMAGES, LEARNED = 16, 1200, 128
RECIPE = shadows.Recipe()
BY_HEART = shadows.Recipe(batch=16, augment=False)  # on halves of `LEARNED` images: the control
LARGEST = 4 * 200_000  # bytes of weights: shadows of more take too long on a CPU
RATES = (0.01, 0.001)  # of false alarms
Attack = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
ATTACKS: dict[str, Attack] = {'two-sided': scores, 'one-sided': one_sided}


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


def of_target(
    attack: Attack, target_N: np.ndarray, member_N: np.ndarray, shadow_SxN: np.ndarray,
    member_SxN: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model's members and of the other images."""
    score_N = attack(target_N, shadow_SxN, member_SxN)
    return score_N[member_N], score_N[~member_N]


def of_each(
    attack: Attack, shadow_SxN: np.ndarray, member_SxN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same of every shadow, attacked with the others as its shadows, all together."""
    places = np.arange(len(shadow_SxN))
    found = [
        of_target(attack, shadow_SxN[i], member_SxN[i], shadow_SxN[places != i],
                  member_SxN[places != i])
        for i in places
    ]
    inside, outside = (np.concatenate(x) for x in zip(*found))
    return inside, outside


def rated(guesses: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    """How good the attacks on a model are: `numbers`, the best of them and each by itself."""
    each = {
        side: [area(inside, outside), *(tpr_at(r, inside, outside) for r in RATES)]
        for side, (inside, outside) in guesses.items()
    }
    inside, outside = next(iter(guesses.values()))
    best = [max(x) for x in zip(*each.values())]
    return {
        'members': len(inside), 'others': len(outside), 'area': best[0],
        'tpr_at_1_percent': best[1], 'tpr_at_0.1_percent': best[2], 'attacks': each,
    }


def attacked(
    subject: Subject, count: int, recipe: shadows.Recipe, by_heart: shadows.Recipe
) -> tuple[dict, dict]:
    """{attack: scores of members and others} of the run's models, and of the control's."""
    pool, rng = pool_of(subject), np.random.default_rng(3)
    size = len(pool.member_N)

    def learned(data, recipe, seed, flips):
        member_SxN = shadows.members(rng, count, len(data.weight))
        weights_S = shadows.train(subject.local, data, member_SxN, recipe, seed)
        return shadows.confidences(subject.local, weights_S, data, flips), member_SxN

    own = learned(pool.data, recipe, 1, subject.run.config.shifts.flips)
    few = np.sort(rng.permutation(size)[:LEARNED])
    control = learned(take(pool.data, few), by_heart, 2, by_heart.augment)
    return (
        {side: of_target(attack, pool.target_N, pool.member_N, *own)
         for side, attack in ATTACKS.items()},
        {side: of_each(attack, *control) for side, attack in ATTACKS.items()},
    )


def audit(
    subject: Subject, count: int = SHADOWS, recipe: shadows.Recipe = RECIPE,
    by_heart: shadows.Recipe = BY_HEART,
) -> Finding:
    """Of the run's models, and of some that were made to be attackable."""
    finding = functools.partial(
        Finding, 'Who was in the training (LiRA)',
        'Can it be told from the model whether an image was trained on?',
    )
    if reason := why_not(subject):
        return finding(missing=reason)
    names = "the run's", 'learned by heart (control)'
    guesses = dict(zip(names, attacked(subject, count, recipe, by_heart)))
    numbers = {name: rated(of) for name, of in guesses.items()}
    own, control = numbers.values()
    guessed = [tpr_of_guessing(rate, own['others']) for rate in RATES]
    learned, works = control['members'] // count, control['tpr_at_1_percent'] > 0.1
    return finding(
        answer=f'At one false alarm in a hundred the attack finds {own["tpr_at_1_percent"]:.1%} of '
        f'the images that were trained on (one attack that guesses: {guessed[0]:.1%}), with '
        f'{count} shadows; area under the curve {own["area"]:.3f} (guessing: .5). Each is that of '
        'the better of two attacks, so that two which guess have a little more.',
        control=f'Of {count} models that learned {learned} images by heart it finds '
        f'{control["tpr_at_1_percent"]:.1%} at that rate, area {control["area"]:.3f}: the attack '
        + ('works where there is something to find.' if works else 'is too weak to tell anything.'),
        holds=works,
        head=('model', 'trained on', 'others', 'area', 'found at 1% false alarms', 'at .1%'),
        rows=[
            [f'{name}, {side}', f'{n["members"]}', f'{n["others"]}', *map(told, rates)]
            for name, n in numbers.items() for side, rates in n['attacks'].items()
        ],
        numbers={'shadows': count, **numbers},
        curves=[
            Curve(f'{name}, {side}', *roc(*scores))
            for name, of in guesses.items() for side, scores in of.items()
        ],
        missing=', '.join(
            f'{rate:.1%} of {own["others"]} images is less than one: that column allows no false '
            f'alarm at all for the run, and guessing finds {chance:.1%}'
            for rate, chance in zip(RATES, guessed) if rate * own['others'] < 1
        ),
    )
