"""Whether canaries tell a sixth of the stated noise from all of it, at several epsilons.

    python -m benchmarks.canaries                              # of noise multipliers
    python -m benchmarks.canaries results/wbc_private.jsonl    # of the methods of private runs

Private steps without any images (`fedgen_jax.audit.one_run`).  A row is a mechanism: its stated
epsilon, then the largest lower bound over seeds with all of the noise, which must stay below it,
and the smallest with a sixth of it.  Of noise multipliers: a Poisson sample of a tenth, 512 steps,
delta 1e-5.  Of runs: the training of each method's first one, at the center that spent most.
"""

from collections.abc import Iterator, Sequence

import jax
from absl import app, flags

from fedgen_jax.audit.one_run import Mechanism, lower_bound, play, stated
from fedgen_jax.config import base
from fedgen_jax.data import synthetic
from fedgen_jax.program import make_algorithm
from fedgen_jax.report.summaries import read_summaries
from fedgen_jax.report.tables import markdown

SIGMAS = flags.DEFINE_list('sigmas', ['3.0', '2.2', '1.9', '1.5'], 'noise multipliers')
CANARIES = flags.DEFINE_integer('canaries', 2500, 'patients, half of whom take part')
STEPS = flags.DEFINE_integer('steps', 512, 'private steps')
SEEDS = flags.DEFINE_integer('seeds', 3, 'of which the worst counts')
DELTA = 1e-5


def mechanisms_of(files: Sequence[str]) -> Iterator[tuple[str, Mechanism, float]]:
    """(method, its training, delta) of private runs whose unit is not the client."""
    done = set()
    for s in read_summaries(files):
        told = s['privacy']
        if s['method'] in done or told.get('unit', 'client') == 'client':
            continue
        done.add(s['method'])
        for x in told['charges']:
            if x['name'] == 'training':
                rate = told['sampling']['rate'] if 'poisson' in x['kind'] else 1.0
                m = Mechanism(x['sigma'], rate, x['count'], x['sensitivity'])
                yield s['method'], m, told['delta']


def row(local, name: str, m: Mechanism, delta: float, canaries: int, seeds: int) -> list[str]:
    """A row of the table."""

    def bounds(noise):
        return [lower_bound(play(m, local, canaries, s, noise), delta) for s in range(seeds)]

    claim, whole, sixth, none = stated(m, canaries, delta), *map(bounds, (1, 1 / 6, 0))
    told = 'yes' if max(whole) <= claim < min(sixth) else 'no'
    return [name, f'{m.sigma:.3g}', f'{claim:.2f}', f'{max(whole):.2f}', f'{min(sixth):.2f}',
            f'{min(none):.2f}', told]


def main(args):
    local = make_algorithm(base(), 16, synthetic.CLASSES, 1)[1]
    found = list(mechanisms_of(args[1:])) if args[1:] else [
        ('a tenth', Mechanism(float(s), 0.1, STEPS.value), DELTA) for s in SIGMAS.value
    ]
    rows = [row(local, *x, CANARIES.value, SEEDS.value) for x in found]
    print(f'{CANARIES.value} canaries, {SEEDS.value} seeds, {jax.devices()[0].device_kind}\n')
    head = ['', 'sigma', 'stated epsilon', 'bound, all of the noise', 'a sixth', 'none',
            'told apart']
    print(markdown(head, rows))


if __name__ == '__main__':
    app.run(main)
