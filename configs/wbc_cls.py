"""White blood cells of five laboratories: classification, leave one center out.

Data:      a center folder of 1,751 cell images, five classes, five sources (`data.root`).
Command:   python -m launch.train --config=configs/wbc_cls.py --config.data.root=FOLDER \\
               --config.data.held_out=cellavision --workdir=RUN
Table:     python -m launch.sweep --config=configs/wbc_cls.py --sweep=main \\
               --config.data.root=FOLDER --workdir=runs/wbc_cls
Expected:  2.5 minutes a run on a CPU core, 3 hours for the table on two; scores in RESULTS.md.
"""

from configs import common
from configs.common import METHODS
from fedgen_jax.sweep import grid, inner

CENTERS = ('bccd', 'cellavision', 'jtsc-jiangxi', 'pbc-barcelona', 'raabin-iran')
SEEDS = (0, 1, 2)


def get_config():
    c = common.first_form()
    c.rounds = 150
    c.model.norm = 'batch'
    c.client.lr = 0.1
    return c


MILDER = {'shifts.acquisition': 0.5, 'shifts.zoom': 1.6}
STRONGER = {'shifts.acquisition': 1.0}

# What the choice was made among, beside the methods themselves.
TRIALS = {
    **METHODS,
    'fedgen, with head': {'fedgen.modes': ('input', 'film', 'lowrank', 'head')},
    'fedgen, input alone': {'fedgen.modes': ('input',)},
    'fedgen, milder shifts': MILDER,
    'fedgen, stronger shifts': STRONGER,
    'fedavg + milder shifts': {'algorithm': 'fedavg', **MILDER},
    'fedavg + stronger shifts': {'algorithm': 'fedavg', **STRONGER},
    'fedavg + shifts, twice the rate': {'algorithm': 'fedavg', 'client.lr': 0.2},
}


def sweep_main():
    """The table: every method on every unseen center, three seeds."""
    return grid(METHODS, CENTERS, SEEDS)


def sweep_inner():
    ring = ('bccd', 'raabin-iran', 'cellavision', 'pbc-barcelona', 'jtsc-jiangxi')
    return inner(TRIALS, ring)
