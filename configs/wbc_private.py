"""White blood cells of five laboratories under differential privacy: accuracy against epsilon.

Data:      the center folder of configs/wbc_cls.py (`data.root`).  No source names its patients, so
           the unit is an image.
Needs:     the extras `pretrained` and `privacy`.
First:     python -m launch.train --config=configs/wbc_private.py:public \\
               --config.data.root=FOLDER --workdir=runs/wbc_private/public
Then:      python -m launch.sweep --config=configs/wbc_private.py --sweep=main \\
               --config.data.root=FOLDER --config.start.weights=runs/wbc_private/public \\
               --workdir=runs/wbc_private/main
One run:   python -m launch.train --config=configs/wbc_private.py --config.data.root=FOLDER \\
               --config.start.weights=runs/wbc_private/public --config.privacy.epsilon=4 \\
               --config.algorithm=fedavg --workdir=RUN

The first run trains on drawn smears alone: a linear head on a frozen network that was trained on
ImageNet, and FedGen's generator.  All others start there and move the head alone, by ten private
steps of all images.  What normalizes features is a constant, of drawn smears; what images are
moved by, and what the generator reads, each center releases once.

Settings were chosen on training and validation images of two held-out centers at a time, on heads
on stored features.
"""

from ml_collections import ConfigDict

from configs import common
from configs.wbc_cls import CENTERS, SEEDS
from fedgen_jax.public import public_config
from fedgen_jax.sweep import grid, inner

RATES = {8: 0.035, 4: 0.017, 2: 0.012, 1: 0.006}  # of a step; the noise is the larger, so it falls


def get_config(phase='private'):
    """phase: 'private', or 'public' for the run that all private ones start from."""
    c = common.tuned()
    c.rounds, c.eval_every, c.checkpoint_every = 10, 10, 10
    c.local_steps, c.batch_size = 1, 16
    c.model = ConfigDict({
        'name': 'efficientnet_lite0', 'trained': 'head', 'norm': 'batch', 'source_norms': True,
        'last': 'center', 'standardize': 'none',
    })
    c.statistics = 'drawn+own'
    c.input.reference = 'drawn'
    c.weighting = 'uniform'
    c.data.image_size = 96
    c.data.virtual_examples = 60
    c.shifts.acquisition, c.shifts.zoom = 0.0, 1.0  # ten steps have no time for them
    c.client.lr, c.client.momentum, c.client.clip, c.client.decay = RATES[8], 0.0, 0.0, 0.05
    c.client.schedule = 'constant'
    c.fedgen.modes = ('features',)
    c.fedgen.centered = True
    c.fedgen.jitter = 0.0
    c.finetune.steps, c.finetune.choose = 0, ()
    c.privacy.update({
        'unit': 'image', 'epsilon': 8.0, 'delta': 1e-4, 'rate': 1.0, 'clip': 20.0,
        'trainable': 'head', 'public_centers': 48, 'public_rounds': 200,
    })
    if phase == 'private':
        c.fedgen.theta = 'joint'  # the head learns under the generated change; one kind of step
        return c
    c.start.weights = 'fedgen_jax.models.pretrained:efficientnet_lite0'
    c.start.keep = ('params/head', 'params/last_features', 'batch_stats/last_features')
    return public_config(c)


# The same start, steps and rate, of as many images; no clip of gradients, no noise, exact moments.
NOT_PRIVATE = {'batch_size': 256, 'start.generator': True}

# Scored without any step of a center.
PUBLIC_ONLY = {
    'algorithm': 'fedavg', 'privacy.unit': '', 'client.lr': 0.0, 'client.decay': 0.0, 'rounds': 1,
    'eval_every': 1, 'checkpoint_every': 1, 'batch_size': 1,
}


def methods():
    return common.at_epsilons(
        ('fedgen', 'fedavg', 'local_only'), PUBLIC_ONLY, NOT_PRIVATE, 'client.lr', RATES
    )


def sweep_main():
    """Every method on every unseen center, three seeds; the first seed first."""
    return [run for seed in SEEDS for run in grid(methods(), CENTERS, (seed,))]


def sweep_inner():
    ring = ('bccd', 'raabin-iran', 'cellavision', 'pbc-barcelona', 'jtsc-jiangxi')
    return inner(methods(), ring)
