"""Drawn hospitals under differential privacy: accuracy against epsilon, and clients as units.

Data:      16 drawn centers of 300 training images, each of another patient; one more is unseen.
           With `:clients`, 1,000 drawn clients of 40 images, of whom 16 are scored; with
           `:many`, 10,000.
Needs:     the extra `privacy`.
First:     python -m launch.train --config=configs/drawn_private.py:public \\
               --workdir=runs/drawn_private/public
Then:      python -m launch.sweep --config=configs/drawn_private.py --sweep=main \\
               --config.start.weights=runs/drawn_private/public --workdir=runs/drawn_private/main
Clients:   python -m launch.sweep --config=configs/drawn_private.py:clients --sweep=clients \\
               --config.start.weights=runs/drawn_private/public --workdir=runs/drawn_private/clients
Many:      python -m launch.sweep --config=configs/drawn_private.py:many --sweep=many \\
               --config.start.weights=runs/drawn_private/public --workdir=runs/drawn_private/many
One run:   python -m launch.train --config=configs/drawn_private.py --config.algorithm=fedavg \\
               --config.start.weights=runs/drawn_private/public --config.privacy.epsilon=4 \\
               --workdir=RUN

The public start is drawn from another seed than any federation here, and its scanners differ half
as much: what is public is never quite like what is private.  Clients' local steps and the clip of
their contributions were chosen on a federation of seed 5.
"""

from configs import common
from fedgen_jax.public import public_config
from fedgen_jax.sweep import grid

SEEDS = (0, 1, 2)
PUBLIC_SEED = 1000
UNSEEN = 'synthetic-16'
RATES = {8: 1.5, 4: 1.2, 2: 0.8, 1: 0.5}  # of a step; the noise is the larger, so it falls
CLIENT_RATES = {8: 1.0, 4: 1.0, 2: 0.5, 1: 0.5}  # of the server


def get_config(phase='patients'):
    """phase: 'patients', 'clients', 'many' (of these), or 'public', the run that all start from."""
    c = common.tuned()
    c.rounds, c.eval_every, c.checkpoint_every = 20, 20, 20
    c.local_steps, c.batch_size = 1, 16
    c.data.source, c.data.spread, c.data.image_size = 'synthetic', 2.0, 48
    c.data.centers, c.data.examples, c.data.held_out = 17, 500, UNSEEN
    c.model.widths = (16, 32, 64)
    c.weighting = 'uniform'
    c.input.canonical = 'none'
    c.shifts.acquisition, c.shifts.zoom = 0.0, 1.0  # few steps have no time for them
    c.client.lr, c.client.momentum, c.client.clip = RATES[8], 0.0, 0.0
    c.client.schedule = 'constant'
    c.fedgen.modes = ('input', 'film')
    c.fedgen.jitter = 0.0
    c.finetune.steps, c.finetune.choose = 0, ()
    c.privacy.update({
        'unit': 'image', 'epsilon': 8.0, 'delta': 1e-4, 'rate': 1.0, 'clip': 0.5,
        'trainable': 'base', 'public_centers': 64, 'public_rounds': 500,
    })
    if phase == 'public':
        c.seed = PUBLIC_SEED
        c.data.virtual_examples, c.data.virtual_spread = 64, 1.0
        return public_config(c)
    c.fedgen.theta = 'joint'  # the base learns under the generated change; one kind of step
    if phase in ('clients', 'many'):
        c.local_steps, c.batch_size = 4, 8
        c.client.lr, c.client.momentum, c.client.clip = 0.05, 0.9, 1.0
        c.data.centers, c.data.examples = 17, 100
        c.data.virtual, c.data.virtual_examples = 984, 40
        c.privacy.update({'unit': 'client', 'delta': 1e-5, 'rate': 0.1, 'clip': 0.2, 'public': ''})
    if phase == 'many':  # twice as many in a round, a fiftieth of all
        c.data.virtual, c.privacy.rate = 9984, 0.02
    return c


# Scored without any step of a center.
PUBLIC_ONLY = {
    'algorithm': 'fedavg', 'privacy.unit': '', 'client.lr': 0.0, 'rounds': 1, 'eval_every': 1,
    'checkpoint_every': 1, 'batch_size': 1, 'data.virtual': 0,
}


def sweep_main():
    """Each algorithm at each epsilon, from one public start; three federations."""
    methods = common.at_epsilons(
        ('fedgen', 'fedavg', 'local_only'), PUBLIC_ONLY,
        {'batch_size': 300, 'start.generator': True, 'privacy.clip': 0.0}, 'client.lr', RATES,
    )
    return [run for seed in SEEDS for run in grid(methods, (UNSEEN,), (seed,))]


def sweep_clients():
    """The same with the client as the unit; local-only learning sends nothing to protect."""
    return _clients(cohort=100)


def sweep_many():
    """The same with 10,000 clients."""
    return _clients(cohort=200)


def _clients(cohort):
    methods = common.at_epsilons(
        ('fedgen', 'fedavg'), PUBLIC_ONLY,
        {'cohort': cohort, 'start.generator': True, 'privacy.clip': 0.0}, 'server.lr', CLIENT_RATES,
    )
    return [run for seed in SEEDS for run in grid(methods, (UNSEEN,), (seed,))]
