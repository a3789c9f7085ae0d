"""Whether canaries tell a sixth of the stated noise from all of it, at several epsilons.

    python -m benchmarks.canaries

Private steps without any images (`fedgen_jax.audit.one_run`): a Poisson sample of a tenth, 512
steps, delta 1e-5.  A row is a noise multiplier: the stated epsilon, then the largest lower bound
over seeds with all of the noise, which must stay below it, and the smallest with a sixth of it.
"""

import jax
from absl import app, flags

from fedgen_jax.audit.one_run import Mechanism, lower_bound, play, stated
from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm
from fedgen_jax.report.tables import markdown

SIGMAS = flags.DEFINE_list('sigmas', ['3.0', '2.2', '1.9', '1.5'], 'noise multipliers')
CANARIES = flags.DEFINE_integer('canaries', 2500, 'patients, half of whom take part')
STEPS = flags.DEFINE_integer('steps', 512, 'private steps')
SEEDS = flags.DEFINE_integer('seeds', 3, 'of which the worst counts')
DELTA = 1e-5


def row(local, sigma: float, canaries: int, steps: int, seeds: int) -> list[str]:
    """A row of the table."""
    m = Mechanism(sigma, 0.1, steps)

    def bounds(noise):
        return [lower_bound(play(m, local, canaries, s, noise), DELTA) for s in range(seeds)]

    claim, whole, sixth, none = stated(m, canaries, DELTA), *map(bounds, (1, 1 / 6, 0))
    told = 'yes' if max(whole) <= claim < min(sixth) else 'no'
    return [f'{sigma:g}', f'{claim:.2f}', f'{max(whole):.2f}', f'{min(sixth):.2f}',
            f'{min(none):.2f}', told]


def main(_):
    local = make_algorithm(base(), 16, synthetic.CLASSES, 1)[1]
    rows = [
        row(local, float(s), CANARIES.value, STEPS.value, SEEDS.value) for s in SIGMAS.value
    ]
    print(f'{CANARIES.value} canaries, {SEEDS.value} seeds, {jax.devices()[0].device_kind}\n')
    head = ['sigma', 'stated epsilon', 'bound, all of the noise', 'a sixth', 'none', 'told apart']
    print(markdown(head, rows))


if __name__ == '__main__':
    app.run(main)
