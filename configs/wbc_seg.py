"""White blood cells of three laboratories: segmentation, leave one center out.

Data:      a center folder of 767 cell images with masks of cytoplasm and nucleus (`data.root`).
Command:   python -m launch.train --config=configs/wbc_seg.py --config.data.root=FOLDER \\
               --config.data.held_out=cellavision --workdir=RUN
Table:     python -m launch.sweep --config=configs/wbc_seg.py --sweep=main \\
               --config.data.root=FOLDER --workdir=runs/wbc_seg
Expected:  2.5 minutes a run on a CPU core, 2 hours for the table on two;
           scores in docs/results/first-form.md.
"""

from configs import common
from configs.common import METHODS, trials
from fedgen_jax.sweep import grid, inner

CENTERS = ('bccd', 'cellavision', 'jtsc')
SEEDS = (0, 1, 2)


def get_config():
    c = common.first_form()
    c.task = 'segmentation'
    c.rounds = 40
    c.client.lr = 0.1
    c.local_steps = 8
    c.batch_size = 16
    c.data.image_size = 64
    c.model.name = 'unet'
    c.model.widths = (8, 16, 32, 64)
    c.model.depth = 2
    return c


# What the choice was made among.
TRIALS = trials({
    'half the rate': {'client.lr': 0.05},
    'milder shifts': {'shifts.acquisition': 0.5, 'shifts.zoom': 1.5},
})


def sweep_main():
    """The table: every method on every unseen center, three seeds."""
    return grid(METHODS, CENTERS, SEEDS)


def sweep_inner():
    return inner(TRIALS, CENTERS)
