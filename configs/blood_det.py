"""Blood smears of four laboratories: detection of white and red cells and platelets.

Data:      a center folder of 1,260 images with 18,143 boxes, its authors' split (`data.root`).
Command:   python -m launch.train --config=configs/blood_det.py --config.data.root=FOLDER \\
               --config.data.held_out=bcdd --workdir=RUN
Table:     python -m launch.sweep --config=configs/blood_det.py --sweep=main \\
               --config.data.root=FOLDER --workdir=runs/blood_det
Large:     the same with --sweep=large: one detector at 256 pixels, half an hour on a CPU core.
Expected:  2.2 minutes a run on a CPU core, 2.3 hours for the table on two;
           scores in docs/results/first-form.md.
"""

from configs import common
from configs.common import METHODS, trials
from fedgen_jax.sweep import grid, inner

CENTERS = ('bccd', 'bcdd', 'pbc', 'raabin-wbc')
SEEDS = (0, 1, 2)


def get_config():
    c = common.first_form()
    c.task = 'detection'
    c.client.lr = 0.1
    c.rounds = 60
    c.local_steps = 8
    c.batch_size = 16
    c.data.image_size = 96
    c.model.name = 'detector'
    c.model.widths = (16, 32, 64, 96)
    c.model.depth = 1
    c.shifts.zoom = 1.6
    c.fedgen.support = 16
    return c


# What the choice was made among.
TRIALS = trials({
    'half the rate': {'client.lr': 0.05},
    'milder shifts': {'shifts.acquisition': 0.5, 'shifts.zoom': 1.3},
})


def sweep_main():
    """The table: every method on every unseen center, three seeds."""
    return grid(METHODS, CENTERS, SEEDS)


def sweep_inner():
    return inner(TRIALS, CENTERS)


def sweep_large():
    """One run at the images' own size, all centers seen; a fifth level to see whole white cells."""
    large = {
        'method': 'fedgen, 256 pixels', 'data.image_size': 256, 'rounds': 80, 'batch_size': 8,
        'model.widths': (16, 32, 64, 96, 128), 'model.depth': 2, 'eval_every': 20,
    }
    return [large]
