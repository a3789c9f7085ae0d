"""Drawn federations: how the score at unseen centers grows with the number of centers.

Data:      drawn smears of 2 to 200 hospitals (`data.spread` 2), of whom at most 8 train in a round,
           and of 8 more that are unseen.
Command:   python -m launch.sweep --config=configs/drawn.py --sweep=centers \\
               --workdir=runs/drawn_centers
Methods:   python -m launch.sweep --config=configs/drawn.py --sweep=methods \\
               --workdir=runs/drawn_methods
Expected:  5 to 15 minutes a run on a CPU core; scores in RESULTS.md.

Settings are those of configs/demo.py, which were chosen on six drawn hospitals of the seeds 1 to 4.
"""

from configs import demo
from configs.common import ADAPTED
from configs.demo import RUNS

UNSEEN = 8
CENTERS = (6, 40, 200, 2, 20, 100)  # those that matter most first, here and below
SEEDS = (10, 11, 12)
MORE_SEEDS = (13, 14)


def get_config():
    c = demo.get_config('classification')
    c.data.update(of(6))
    c.finetune.choose, c.finetune.steps = (), 0  # what labels add is another question
    return c


def of(centers: int) -> dict:
    """The fields of `data` with so many seen centers."""
    names = (f'synthetic-{centers + i}' for i in range(UNSEEN))
    return {'centers': centers + UNSEEN, 'held_out': ','.join(names)}


def sized(centers: int) -> dict:
    """Overrides for so many seen centers, of whom at most 8 train in a round."""
    cohort = 8 if centers > 8 else 0
    return {'cohort': cohort, **{f'data.{k}': v for k, v in of(centers).items()}}


def sweep_centers():
    """FedGen, and its base with it, on federations that grow."""
    return [
        {'method': f'fedgen, {n} centers', 'seed': seed, **sized(n)}
        for n in CENTERS for seed in SEEDS + MORE_SEEDS
    ]


def sweep_main():
    """Every method of the demo on federations of 6, 40 and 200 centers."""
    return [
        {**overrides, 'method': f'{name}, {n} centers', 'seed': seed, **sized(n)}
        for seed in SEEDS for n in (6, 40, 200) for name, overrides in RUNS.items()
    ]


METHODS = (
    'fedgen', 'fedavg', 'fedbn', 'tent', 'pfedfda', 'atp', 'arm', 'odpfl', 'flowdup', 'pfedhn',
    't3a', 'shot', 'mixstyle', 'ditto', 'local_only', 'ga', 'fedrep', 'fedfa', 'dsu', 'fedsr',
    'hyperfedzero', 'pefll', 'knnper', 'ifca', 'elcfs', 'fedprox', 'scaffold', 'fedsam', 'apfl',
    'pfedme', 'silobn', 'hyperfedzero, constant', 'fedavgm', 'fedadam', 'pooled',
)
NEEDS = {
    'silobn': {'statistics': 'running'},
    # Whole weights are generated: at .2 they become infinite.
    'odpfl': {'client.lr': 0.05}, 'pefll': {'client.lr': 0.05},
    'hyperfedzero, constant': {'algorithm': 'hyperfedzero', 'hyperfedzero.constant': True},
    # As far in the long run as FedAvg's step of 1; and a rate of Reddi et al. 2021.
    'fedavgm': {'algorithm': 'fedavg', 'server.momentum': 0.9, 'server.lr': 0.1},
    'fedadam': {'algorithm': 'fedavg', 'server.optimizer': 'fedadam', 'server.lr': 0.01},
}
GATHERED = ('odpfl', 'pfedhn', 'ga', 'pefll', 'elcfs', 'pooled')  # methods without cohorts
# The demo's rate is chosen by FedAvg's scores of the seeds 1 and 2 (docs/results/drawn_methods.md).
SLOW = 0.05


def sweep_methods():
    """Every method with all add-ons, on six hospitals."""
    return methods_on(6)


def sweep_methods_slow():
    """The same at a rate at which 80 rounds end before FedAvg has learned."""
    slow = {'client.lr': SLOW, 'fedgen.client_rates': (1.0, 1.0)}
    return [{**run, **slow} for run in methods_on(6)]


def sweep_methods_40():
    """Every method on 40 hospitals; all train in each round of those that need every message."""
    return [
        {**run, **({'cohort': 0} if run['method'] in GATHERED else {})} for run in methods_on(40)
    ]


def methods_on(centers: int) -> list[dict]:
    return [
        {'method': name, 'algorithm': name, 'seed': seed, **sized(centers),
         **({} if name in ADAPTED else {'adapt.steps': 0}), **NEEDS.get(name, {})}
        for seed in SEEDS for name in METHODS
    ]
