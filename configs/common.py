"""Every field that a configuration has, with its default; an experiment changes a few of them.

Below them, the methods that a table compares.
"""

from ml_collections import ConfigDict


def base() -> ConfigDict:
    c = ConfigDict()
    c.method = 'fedgen'  # the run's row in a table
    c.task = 'classification'  # classification | segmentation | detection | module:function
    c.algorithm = 'fedgen'  # local | fedavg | fedgen
    c.local = 'meta'  # FedGen's local update: meta | weights
    c.seed = 0  # of the split, the first weights and every draw
    c.rounds = 100
    c.local_steps = 8  # T, a round
    c.batch_size = 32  # B, a step
    c.client_map = 'auto'  # auto | vmap | map | a number of clients at once
    c.devices = 0  # of the mesh; 0: as suits (`engine.rounds.suitable_devices`)
    c.cohort = 0  # clients a round, fetched while the last trains; 0: all, kept on the devices
    c.max_left_out = 0.5  # share of a round's clients with NaN or infinite numbers that ends a run
    c.prevalence = 'natural'  # of classes in a batch (classification): natural | balanced | mixed
    c.weighting = 'examples'  # of clients in the sum: examples | uniform
    c.eval_every = 20  # rounds
    c.checkpoint_every = 50  # rounds
    c.score_on = 'test'  # test | val; val for development: the unseen center too

    c.data = ConfigDict()
    c.data.source = 'folder'  # folder | synthetic
    c.data.root = ''  # the folder with manifest.csv
    c.data.held_out = ''  # unseen centers, comma-separated; empty: none
    c.data.image_size = 48  # pixels, square
    c.data.cache = ''  # where decoded images are kept; empty: the user's cache folder
    c.data.images = 'memory'  # memory | disk: read from the cache as cohorts and scores need them
    c.data.centers = 6  # synthetic only
    c.data.examples = 150  # synthetic only: images a center
    c.data.spread = 1.0  # synthetic only: how far scanners differ
    c.data.virtual = 0  # synthetic only: centers beside these, drawn for their cohort, not scored

    c.model = ConfigDict()
    c.model.name = 'cnn'  # cnn | resnet | unet | detector | module:class
    c.model.widths = (32, 64, 128)  # channels of each stage
    c.model.depth = 1  # layers, or blocks (resnet), a stage
    c.model.norm = 'group'  # group | batch | instance
    c.model.standardize = 'image'  # of the input: none | image | channel

    c.shifts = ConfigDict()
    c.shifts.plain = True  # flips and quarter turns
    c.shifts.acquisition = 1.0  # strength of the virtual centers; 0: off
    c.shifts.probability = 1.0  # share of steps that play a virtual center
    c.shifts.zoom = 1.0  # their largest magnification, beside `acquisition`'s own; 1: off

    c.client = ConfigDict()
    c.client.optimizer = 'sgd'  # sgd | adam
    c.client.lr = 0.05
    c.client.schedule = 'constant'  # of lr over the rounds: constant | cosine
    c.client.momentum = 0.9  # sgd only
    c.client.clip = 1.0  # sgd only: the largest norm of a step's gradient; 0: none

    c.server = ConfigDict()
    c.server.optimizer = 'sgd'  # sgd (FedAvg, FedAvgM) | adam (FedAdam)
    c.server.lr = 1.0
    c.server.momentum = 0.0  # sgd only
    c.server.generator_lr = 1.0  # FedGen: of phi, as a multiple of lr
    c.server.descriptor_lr = 1.0  # FedGen: of psi, as a multiple of lr

    c.hypernet = ConfigDict()
    c.hypernet.descriptor = 'learned'  # learned | constant | onehot (the controls)
    c.hypernet.modes = ('input', 'film', 'lowrank', 'head')  # and full; (): generator off
    c.hypernet.code = 32  # length of the code between descriptor and weights
    c.hypernet.rank = 8  # of lowrank
    c.hypernet.bound = 1.0  # no generated number is larger
    c.hypernet.fade = 4.0  # squared distance beyond which the change shrinks; 0: never
    c.hypernet.support = 16  # S, the most images in a support set
    c.hypernet.support_prevalence = 'same'  # classification: same | natural | balanced | mixed
    c.hypernet.pooled = 0.2  # share of episodes mixed with the pooled descriptor
    c.hypernet.base = 0.1  # share of episodes on the base alone
    c.hypernet.jitter = 0.0  # noise on an episode's descriptor, in standard deviations
    c.hypernet.client_rates = (1.0, 1.0)  # steps of phi and psi on the client, times theta's

    c.finetune = ConfigDict()
    c.finetune.steps = 0  # labelled steps at each seen center after training; 0: none
    c.finetune.lr = 0.01
    return c


def tuned() -> ConfigDict:
    """The same with what was chosen for `configs/wbc_cls.py` (RESULTS.md), where others begin."""
    c = base()
    c.client.schedule = 'cosine'
    c.shifts.acquisition = 0.75
    c.shifts.zoom = 2.0
    c.shifts.probability = 0.8
    c.hypernet.modes = ('input', 'film', 'lowrank')  # a generated head memorizes the client
    c.hypernet.support = 32
    c.hypernet.jitter = 0.3
    c.hypernet.fade = 0.5
    c.finetune.steps = 50
    c.finetune.lr = 0.003
    return c


NO_SHIFTS = {'shifts.acquisition': 0.0, 'shifts.zoom': 1.0}

# theta, phi and psi receive the same change: without small rates of the latter two it overshoots.
WEIGHTS = {'local': 'weights', 'server.generator_lr': 0.03, 'server.descriptor_lr': 0.03}

# What every table compares.
METHODS = {
    'fedgen': {},
    'fedavg + shifts': {'algorithm': 'fedavg'},
    'fedavg': {'algorithm': 'fedavg', **NO_SHIFTS},
    'local-only': {'algorithm': 'local', **NO_SHIFTS},
    'fedgen, constant': {'hypernet.descriptor': 'constant'},
    'fedgen, no shifts': NO_SHIFTS,
    'fedgen weights': WEIGHTS,
    'fedgen, one-hot': {'hypernet.descriptor': 'onehot'},
    'local-only + shifts': {'algorithm': 'local'},
    'fedgen weights, no shifts': {**WEIGHTS, **NO_SHIFTS},
}


def trials(changes: dict[str, dict]) -> dict[str, dict]:
    """Methods that have something to choose, each with each change; of shifts if it has any."""
    return {
        f'{name}{", " if title else ""}{title}': {**METHODS[name], **change}
        for name in ('fedgen', 'fedavg + shifts', 'fedavg', 'local-only')
        for title, change in {'': {}, **changes}.items()
        if not change.keys() & METHODS[name].keys()
    }
