"""White blood cells of three laboratories: segmentation, leave one center out.

Data:      a center folder of 767 cell images with masks of cytoplasm and nucleus (`data.root`).
Command:   python -m launch.train --config=configs/wbc_seg.py --config.data.root=FOLDER \\
               --config.data.held_out=cellavision --workdir=RUN
Table:     python -m launch.sweep --config=configs/wbc_seg.py --sweep=main \\
               --config.data.root=FOLDER --workdir=runs/wbc_seg
Expected:  12 minutes a run of FedGen on a CPU core; scores in RESULTS.md.
"""

from configs import common
from configs.common import NO_DRAWN
from fedgen_jax.sweep import grid

CENTERS = ('bccd', 'cellavision', 'jtsc')
SEEDS = (0, 1, 2)


def get_config():
    """The settings of the demo's segmentation, which were chosen on drawn hospitals, for a U-Net
    of four levels, with drawn centers beside the real ones: nothing was chosen on these images.
    """
    c = common.tuned()
    c.task = 'segmentation'
    c.rounds = c.eval_every = c.checkpoint_every = 40
    c.client.lr = 0.1
    c.local_steps = 8
    c.batch_size = 16
    c.data.image_size = 64
    c.data.virtual, c.data.virtual_examples, c.data.virtual_share = 24, 60, 0.5
    c.model.name = 'unet'
    c.model.widths = (8, 16, 32, 64)
    c.model.depth = 2
    c.model.norm = 'batch'
    c.input.zoom = (1.0, 1.0)  # colors alone: what magnification takes out of sight is lost
    c.fedgen.support = 16
    c.fedgen.client_rates = (0.25, 0.25)
    c.finetune.lr = 0.1
    return c


# Without what FedGen adds, with the shifts that the first form's inner runs chose.  Group
# normalization needs no statistics of a center's own.
PUBLISHED = {
    'input.canonical': 'none', 'model.norm': 'group', 'shifts.acquisition': 0.75,
    'shifts.zoom': 2.0, **NO_DRAWN,
}
METHODS = common.with_parts(PUBLISHED)


def sweep_main():
    """The table: every method on every unseen center, three seeds; the first seed first."""
    return [run for seed in SEEDS for run in grid(METHODS, CENTERS, (seed,))]
