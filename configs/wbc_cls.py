"""White blood cells of five laboratories: classification, leave one center out.

Data:      a center folder of 1,751 cell images, five classes, five sources (`data.root`).
Command:   python -m launch.train --config=configs/wbc_cls.py --config.data.root=FOLDER \\
               --config.data.held_out=cellavision --workdir=RUN
Table:     python -m launch.sweep --config=configs/wbc_cls.py --sweep=main \\
               --config.data.root=FOLDER --workdir=results/wbc_cls
Expected:  RESULTS.md.
"""

from configs import common
from fedgen_jax.sweep import grid

CENTERS = ('bccd', 'cellavision', 'jtsc-jiangxi', 'pbc-barcelona', 'raabin-iran')
SEEDS = (0, 1, 2)


def get_config():
    c = common.base()
    c.rounds = 100
    c.model.norm = 'batch'
    c.client.lr = 0.1
    c.client.schedule = 'cosine'
    c.shifts.acquisition = 0.5
    c.shifts.zoom = 1.6
    c.shifts.probability = 0.8
    c.hypernet.support = 32
    c.hypernet.jitter = 0.3
    c.hypernet.fade = 0.5
    c.finetune.steps = 50
    return c


NO_SHIFTS = {'shifts.acquisition': 0.0, 'shifts.zoom': 1.0}

METHODS = {
    'fedgen': {},
    'fedgen, constant': {'hypernet.descriptor': 'constant'},
    'fedgen, one-hot': {'hypernet.descriptor': 'onehot'},
    'fedgen, no shifts': NO_SHIFTS,
    'fedgen weights': {'local': 'weights'},
    'fedgen weights, no shifts': {'local': 'weights', **NO_SHIFTS},
    'fedavg': {'algorithm': 'fedavg', **NO_SHIFTS},
    'fedavg + shifts': {'algorithm': 'fedavg'},
    'local-only': {'algorithm': 'local', **NO_SHIFTS},
    'local-only + shifts': {'algorithm': 'local'},
}


def sweep_main():
    """The table: every method on every unseen center, three seeds."""
    return grid(METHODS, CENTERS, SEEDS)


def sweep_inner():
    """Development: two centers held out at a time, scored on their validation images alone.

    A run serves both outer folds: with X and Y held out, Y plays the unseen center for the outer
    fold of X, and X for that of Y.
    """
    pairs = [f'{a},{b}' for i, a in enumerate(CENTERS) for b in CENTERS[i + 1 :]]
    methods = {name: {'score_on': 'val', **overrides} for name, overrides in METHODS.items()}
    return grid(methods, pairs, (0,))
