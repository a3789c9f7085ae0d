"""Every field that a configuration has, with its default; an experiment changes a few of them."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fedgen_jax import renamed
from fedgen_jax.algorithms import ALGORITHMS


def base() -> ConfigDict:
    """All fields with their defaults."""
    c = ConfigDict()
    c.method = ''  # the run's row in a table; empty: the algorithm's title
    c.trial = ''  # which trial of the method inner runs chose for the held-out center; empty: none
    c.task = 'classification'  # a name of fedgen_jax.tasks.TASKS | module:function
    c.modality = ''  # a name of modality.MODALITIES, whose fields a command sets | auto, of a plan
    c.algorithm = 'fedgen'  # a name of fedgen_jax.algorithms.ALGORITHMS | module:name
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
    c.tracker = ''  # where scores are shown too: tensorboard | wandb, comma-separated; '': nowhere
    c.score_on = 'test'  # test | val; val for development: the unseen center too
    c.score_size = 'own'  # of masks at the end: own (their files') | model (data.image_size)

    c.data = ConfigDict()
    c.data.source = 'folder'  # folder (what data.root names) | synthetic
    c.data.root = ''  # a folder with manifest.csv, or CENTER/CLASS; .csv, .npz, .parquet, tfds:NAME
    c.data.columns = ''  # which headers stand for our columns: 'label:target,center:hospital'
    c.data.cut = ''  # of one center into several: dirichlet:CENTERS:ALPHA | quantity:CENTERS:ALPHA
    c.data.window = ''  # black and white of deep gray files: LOW:HIGH | center (its percentiles)
    c.data.held_out = ''  # unseen centers, comma-separated (names may hold commas); empty: none
    c.data.image_size = 48  # pixels, square
    c.data.cache = ''  # where decoded images are kept; empty: the user's cache folder
    c.data.features = 'made'  # of frozen layers in steps: made | kept: in the cache, for other runs
    c.data.images = 'memory'  # memory | disk: read from the cache as cohorts and scores need them
    c.data.centers = 6  # synthetic only
    c.data.examples = 150  # synthetic only: images a center
    c.data.spread = 1.0  # synthetic only: how far scanners differ
    c.data.virtual = 0  # drawn centers beside these, which train in their turn and are not scored
    c.data.virtual_share = -1.0  # their part of a round's clients, to 1; below 0: as a cohort comes
    c.data.virtual_examples = 0  # images of each; 0: data.examples
    c.data.virtual_spread = -1.0  # how their scanners differ; below 0: data.spread, of a folder 2
    c.data.virtual_classes = ()  # 'DRAWN=CLASS', where the folder's classes have other names

    c.model = ConfigDict()
    c.model.name = 'cnn'  # a name of fedgen_jax.models.MODELS | module:class
    c.model.widths = (32, 64, 128)  # channels of each stage
    c.model.depth = 1  # layers, or blocks (resnet), a stage
    c.model.norm = 'group'  # group | batch | instance
    c.model.standardize = 'image'  # of the input: none | image | channel
    c.model.last = 'none'  # normalization of the last layer's features: none | batch | center
    c.model.dtype = 'float32'  # of products: float32 | bfloat16; weights and sums: float32

    c.statistics = 'own'  # batch norm's, of finished models: own | running | last | frozen | drawn
    # | drawn+own
    c.statistics_mix = 'natural'  # of predicted classes in own ones: natural | balanced
    c.start = ConfigDict()
    c.start.weights = ''  # .npz | .safetensors | module:function | a run's folder; '': drawn
    c.start.keep = ()  # beginnings of weights' names that are drawn all the same
    c.start.generator = False  # of a run's folder: also its generator, descriptor and normalizer
    c.start.seed = 0  # of those

    c.input = ConfigDict()
    c.input.canonical = 'none'  # a name of canonical.PRESETS | module:name
    c.input.reference = 'seen'  # whose mean images are brought to: seen (centers) | drawn (smears)
    c.input.zoom = (0.5, 2.5)  # the least and largest magnification; (1.0, 1.0): colors alone
    c.input.area = 0.25  # share of the image that nuclei then fill (brightfield); 0: as seen ones
    c.input.size = 0  # pixels of what the network sees, a divisor of data.image_size; 0: that

    c.loss = ConfigDict()
    c.loss.prior = 'none'  # of a client's classes, taken out of what is learned: none | logits

    c.shifts = ConfigDict()
    c.shifts.flips = True  # left to right, drawn for each image: not where left and right differ
    c.shifts.turns = True  # quarter turns, drawn for each image: not where up and down differ
    c.shifts.preset = 'brightfield'  # of acquisition: a name of shifts.PRESETS | module:name
    c.shifts.acquisition = 1.0  # strength of the virtual centers; 0: off
    c.shifts.probability = 1.0  # share of steps that play a virtual center
    c.shifts.zoom = 1.0  # their largest magnification, beside `acquisition`'s own; 1: off

    c.client = ConfigDict()
    c.client.optimizer = 'sgd'  # sgd | adam
    c.client.lr = 0.05
    c.client.schedule = 'constant'  # of lr over the rounds: constant | cosine
    c.client.restarts = ()  # cosine: rounds after which it begins anew, as of a run made longer
    c.client.momentum = 0.9  # sgd only
    c.client.decay = 0.0  # of the model: this times a kernel is added to its gradient
    c.client.clip = 1.0  # sgd only: the largest norm of a step's gradient; 0: none

    c.server = ConfigDict()
    c.server.optimizer = 'sgd'  # sgd (FedAvg, FedAvgM) | adam | fedadam
    c.server.lr = 1.0
    c.server.momentum = 0.0  # sgd only
    c.server.average = 0.0  # share of the last rounds whose states' mean is served; 0: the last's

    c.finetune = ConfigDict()
    c.finetune.steps = 0  # labelled steps at each seen center after training; 0: none
    c.finetune.lr = 0.01  # of the first of them; it falls to zero
    c.finetune.choose = ()  # what a seen center's own model may be: refined, finetuned, local_only

    c.oracle = ConfigDict()
    c.oracle.steps = 0  # labelled steps at unseen centers, scored as a bound; 0: none
    c.oracle.lr = 0.05  # of the first of them; it falls to zero

    c.adapt = ConfigDict()
    c.adapt.steps = 0  # at unseen centers, on their unlabelled images, scored apart; 0: none
    c.adapt.what = 'code'  # what they move: code (without a generator: norms) | norms | features
    c.adapt.reach = 0.1  # length of the first of them; it falls to zero

    c.privacy = ConfigDict()
    c.privacy.unit = ''  # to whom it is promised: '' nobody | patient | image | client
    c.privacy.epsilon = 8.0  # of all that a run releases, at
    c.privacy.delta = 1e-5  # at most 1 / (10 n) for the n units of the largest center
    c.privacy.rate = 0.1  # chance of a patient to be in a step, or of a client to be in a round
    c.privacy.clip = 0.0  # largest norm: a client's whole contribution's; with the unit patient or
    # image, its gradient's.  0: none, and 1 where a unit is set
    c.privacy.adaptive = False  # client: the clip follows the median norm of contributions
    c.privacy.images_per_patient = 4  # the most that are used
    c.privacy.multiplicity = 1  # augmentations of an image in a step, whose gradients are averaged
    c.privacy.discreet = False  # the folder has nothing exact of a center, as where a unit is set
    c.privacy.trainable = 'adapters'  # what learns: adapters (input, norms, head, phi) | base
    # (adapters without phi) | head | all
    c.privacy.public = 'synthetic'  # where public start weights come from, without start.weights
    c.privacy.public_centers = 24  # drawn ones, that they are trained on
    c.privacy.public_rounds = 0  # of that training; 0: `public.ROUNDS`
    c.privacy.public_lr = 2e-3  # of its Adam
    c.privacy.descriptor_radius = 0.1  # to which a descriptor is clipped around the public mean
    c.privacy.descriptor_noise = 1.0  # its noise multiplier, as a multiple of that of training
    c.privacy.moments_radius = 0.25  # to which moments of the canonical input are clipped, and
    c.privacy.moments_noise = 0.5  # their noise multiplier, as a multiple of that of training
    c.privacy.updates = 0  # how often a center may release its descriptor anew (onboard --update)
    c.privacy.secrets = ''  # the centers' folders, each with its secret; '': ~/.fedgen_jax/centers
    c.privacy.seed = 'secret'  # of noise and identities: secret | a number, for simulations

    c.secure = ConfigDict()
    c.secure.on = False  # the server sees masked words and their sum (docs/privacy.md)
    c.secure.bits = 32  # of a number below the point
    c.secure.word = 64  # bits of a number on its way: 32 | 64
    c.secure.threshold = 0.67  # share of a round's centers that must remain; more than half
    c.secure.min_honest = 3  # the fewest centers in a sum, beside the colluding ones
    c.secure.colluding = 0  # centers that may show the server all they see
    c.secure.distributed_noise = False  # privacy.unit=client: centers add the noise, not the server

    c.robust = ConfigDict()
    c.robust.rule = 'none'  # in place of the sum: none | bound | median | trimmed | krum
    c.robust.attackers = 1  # clients of a round that may lie
    c.robust.bound = 1.0  # the longest a part of a message may be, in medians of a round's clients

    # An algorithm's own fields, in a group of its name.
    for name, family in ALGORITHMS.items():
        own = family.defaults()
        if len(own):
            c[name] = own
    return c


def complete(made: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a run that may be older than this code, from its `config.json`.

    Fields go by their present names (`renamed`), and those that the run lacks, being younger, have
    their defaults.  `model` stays as it is, for its fields are those of the model that it names.
    """
    c, made = base(), renamed.config(made)
    for name, value in made.items():
        if name == 'model' or name not in c or not isinstance(c[name], ConfigDict):
            c[name] = ConfigDict(value) if isinstance(value, Mapping) else value
        else:
            c[name].update(value)
    return c
