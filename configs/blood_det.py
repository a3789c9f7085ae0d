"""Blood smears of four laboratories: detection of white and red cells and platelets.

Data:      a center folder of 1,260 images with 18,143 boxes, its authors' split (`data.root`).
Command:   python -m launch.train --config=configs/blood_det.py --config.data.root=FOLDER \\
               --config.data.held_out=bcdd --workdir=RUN
Table:     --sweep=inner, kept as results/blood_det_trials.jsonl, then
           python -m launch.sweep --config=configs/blood_det.py --sweep=main \\
               --config.data.root=FOLDER --workdir=runs/blood_det
Large:     the same with --sweep=large: one detector at 256 pixels, half an hour on a CPU core.
Expected:  12 to 15 minutes a run of FedGen on a core of a busy CPU; scores in RESULTS.md.
"""

import pathlib

from configs import common
from configs.common import NO_DRAWN, NO_OWN_STEPS
from fedgen_jax.report.summaries import read_summaries
from fedgen_jax.sweep import flat, grid, inner, nested

CENTERS = ('bccd', 'bcdd', 'pbc', 'raabin-wbc')
SEEDS = (0, 1, 2)


def get_config():
    """The settings of the demo's detection, which were chosen on drawn hospitals, with mild shifts,
    colors in canonical form, and drawn centers beside the real ones.
    """
    c = common.tuned()
    c.task = 'detection'
    c.rounds = c.eval_every = c.checkpoint_every = 60
    c.client.lr = 0.1
    c.local_steps = 8
    c.batch_size = 16
    c.data.image_size = 96
    c.data.virtual, c.data.virtual_examples, c.data.virtual_share = 24, 60, 0.25
    c.model.name = 'detector'
    c.model.widths = (16, 32, 64, 96)
    c.model.depth = 1
    c.model.norm = 'batch'
    c.input.zoom = (1.0, 1.0)  # colors alone: what magnification takes out of sight is lost
    c.fedgen.modes = ('film',)
    c.fedgen.bound = 0.2
    c.fedgen.support = 16
    c.fedgen.client_rates = (0.25, 0.25)
    c.finetune.lr = 0.1
    return c


# Without what FedGen adds, with the shifts that the first form's inner runs chose.  Group
# normalization needs no statistics of a center's own.
PUBLISHED = {
    'input.canonical': 'none', 'model.norm': 'group', 'shifts.acquisition': 0.75,
    'shifts.zoom': 1.6, **NO_DRAWN,
}
METHODS = common.with_parts(PUBLISHED)


# What FedGen's choice is made among, center by center; `PUBLISHED` has what others chose.
STRONG = {'shifts.acquisition': 0.75, 'shifts.zoom': 1.6}
TRIALS = {
    'fedgen': {
        'mild shifts': {},
        'strong shifts': STRONG,
        'strong shifts, no canonical input': {**STRONG, 'input.canonical': 'none'},
    },
}


def sweep_inner():
    # Steps on labels are no part of the choice.
    return inner({name: {**x, **NO_OWN_STEPS} for name, x in flat(TRIALS).items()}, CENTERS)


INNER = pathlib.Path(__file__).parents[1] / 'results' / 'blood_det_trials.jsonl'
BASELINES = ('fedavg', 'local-only')  # what begins so is as `PUBLISHED`


def sweep_main():
    """The table: every method on every unseen center, three seeds; the first seed first.

    FedGen, and with it each of its parts' rows, has the trial that inner runs chose for the center.
    """
    inner_runs = read_summaries([INNER])

    def runs_of(name, seed):
        if name.startswith(BASELINES):
            return grid({name: METHODS[name]}, CENTERS, (seed,))
        chosen = nested(TRIALS, inner_runs, CENTERS, (seed,))
        return [{**run, **METHODS[name], 'method': name} for run in chosen]

    return [run for seed in SEEDS for name in METHODS for run in runs_of(name, seed)]


def sweep_large():
    """One run at the images' own size, all centers seen; a fifth level to see whole white cells."""
    large = {
        'method': 'fedgen, 256 pixels', 'data.image_size': 256, 'rounds': 80, 'batch_size': 8,
        'model.widths': (16, 32, 64, 96, 128), 'model.depth': 2, 'eval_every': 20,
    }
    return [large]
