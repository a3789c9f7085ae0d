"""What a descriptor tells of its center: its mix of classes, and its scanner.

Drawn centers have both on record.  A ridge regression learns them from descriptors of some, and is
scored on others: R^2 against the mean of those that it learned from (0: nothing was learned, below:
worse than that).  Released descriptors have the run's own clip and noise (`privacy.release`).
"""

import functools
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from fedgen_jax.audit.base import Finding, Subject, told
from fedgen_jax.audit.drawn import SCANNER, Drawn, draw, public_mean, usual_images
from fedgen_jax.hypernet import descriptor
from fedgen_jax.privacy.release import release
from fedgen_jax.privacy.units import patient_table

CENTERS = 100
SIGMAS = (2.0, 4.0, 8.0)
FOLDS = 5
OTHERS = "others' (control)"


def r2(x_CxE: np.ndarray, y_CxJ: np.ndarray) -> np.ndarray:
    """R^2 [J] of a ridge regression on centers that it did not learn from, in `FOLDS` parts."""
    wrong, spread = np.zeros(y_CxJ.shape[1]), np.zeros(y_CxJ.shape[1])
    for learn, test in KFold(FOLDS, shuffle=True, random_state=0).split(x_CxE):
        mean, scale = x_CxE[learn].mean(0), x_CxE[learn].std(0).mean() + 1e-9
        model = RidgeCV(np.logspace(-4, 5, 19)).fit((x_CxE[learn] - mean) / scale, y_CxJ[learn])
        found = model.predict((x_CxE[test] - mean) / scale)
        wrong += ((y_CxJ[test] - found.reshape(len(test), -1)) ** 2).sum(0)
        spread += ((y_CxJ[test] - y_CxJ[learn].mean(0)) ** 2).sum(0)
    return 1 - wrong / spread


def released(drawn: Drawn, center_E: np.ndarray, radius: float, sigma: float) -> np.ndarray:
    """Each center's descriptor [C, E] as a private run would release it."""
    images = drawn.vectors.shape[1]
    table = patient_table([f'{i}' for i in range(images)], 1)
    rng = np.random.default_rng(1)
    return np.stack([
        descriptor.mean(release(v, table, center_E, radius, sigma, rng.bytes(32), '', 'image'))
        for v in drawn.vectors
    ])


def audit(
    subject: Subject, centers: int = CENTERS, sigmas: Sequence[float] = SIGMAS
) -> Finding:
    """Of the run's descriptor network."""
    finding = functools.partial(
        Finding, 'What a descriptor tells',
        'Can the mix of diseases, or the scanner, be read from the numbers that describe a center?',
    )
    c, program = subject.run.config, subject.run.program
    if program.describe is None:
        return finding(missing='the run has no learned descriptor, so centers send none')
    images = usual_images(subject)
    drawn = draw(subject, centers, images)
    center_E = public_mean(subject)
    exact_CxE = drawn.vectors.mean(1)
    inputs = {'exact': exact_CxE} | {
        f'noise {sigma:g}': released(drawn, center_E, c.privacy.descriptor_radius, sigma)
        for sigma in sigmas
    }
    inputs[OTHERS] = np.random.default_rng(2).permutation(exact_CxE)
    found = {name: (r2(x, drawn.shares), r2(x, drawn.scanner)) for name, x in inputs.items()}
    top = int(np.argmax(found['exact'][1]))  # of the scanner's numbers, the one that is read best
    scores = {
        name: [float(mix.mean()), float(scanner.mean()), float(scanner[top])]
        for name, (mix, scanner) in found.items()
    }
    first, last = scores['exact'], scores[OTHERS]
    most, share = scores[f'noise {sigmas[-1]:g}'], [f'{max(x, 0):.0%}' for x in first]
    return finding(
        answer=f'From exact descriptors of {images} images a regression explains {share[0]} of '
        f'what sets class mixes apart, {share[1]} of what sets scanners apart, and {share[2]} of '
        f'what it reads best, {SCANNER[top]}; at noise {sigmas[-1]:g} {max(most[0], 0):.0%}, '
        f'{max(most[1], 0):.0%} and {max(most[2], 0):.0%}.',
        control='From the descriptors of other centers it explains '
        f'{max(*last, 0):.0%} at most: nothing must be left.',
        holds=max(last) < 0.1 and first[2] > 0.2,
        head=('descriptor', 'class mix, R²', 'scanner, R²', f'{SCANNER[top]}, R²'),
        rows=[[name, *map(told, x)] for name, x in scores.items()],
        numbers={
            'centers': centers, 'images': images, 'radius': c.privacy.descriptor_radius,
            'read_best': SCANNER[top],
            'r2': {name: dict(zip(('class_mix', 'scanner', 'read_best'), x))
                   for name, x in scores.items()},
        },
        missing='' if c.data.source == 'synthetic' else
        'the centers are drawn smears, for of real ones neither is on record',
    )
