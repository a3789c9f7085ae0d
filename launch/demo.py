"""The method in minutes: python -m launch.demo --task=classification --workdir=RUN.

Trains FedGen, FedAvg and local-only models on synthetic centers, takes in unseen centers from
unlabelled images, replaces one center's scanner, and writes it all to RUN/report.html.
"""

import os
import pathlib
import time

import jax
from absl import flags
from ml_collections import ConfigDict

from configs import demo
from fedgen_jax.answers import finished
from fedgen_jax.data.examples import Center, of_split
from fedgen_jax.data.source import draw
from fedgen_jax.data.synthetic import CLASSES_OF
from fedgen_jax.evaluate import model_of, score, seen_statistics, statistic_of
from fedgen_jax.files import write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import recalculate
from fedgen_jax.program import num_bytes
from fedgen_jax.registry import choose
from fedgen_jax.report.gather import read_summary
from fedgen_jax.report.summaries import base_of
from fedgen_jax.report.words import headline, titled
from fedgen_jax.run import Run, Trained
from fedgen_jax.statistics import Statistics
from fedgen_jax.tasks import TASKS
from fedgen_jax.train import train
from launch import cli
from launch.demo_page import ALONE, BASE, OURS, PUBLISHED, ladder, report

DRAWN = [name for name, make in TASKS.items() if make(()).target in CLASSES_OF]
_TASK = flags.DEFINE_string('task', 'classification', f'one of {", ".join(DRAWN)}')
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the runs and the report are written')

NEW_SCANNER = 1  # of the first seen center; training saw its scanner 0

# A U-Net or detector compiles about as long as it trains here.  These halve that, and cost rounds
# on a CPU a few percent.  XLA ends a process whose flags it does not know: they are one version's.
QUICK, KNOWN_TO = '--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1', (0, 10)


def main():
    choose('task', _TASK.value, DRAWN)
    if _TASK.value != 'classification' and jax.__version_info__[:2] == KNOWN_TO:
        os.environ['XLA_FLAGS'] = f'{QUICK} {os.environ.get("XLA_FLAGS", "")}'  # the user's rule
    tell(demo.get_config(_TASK.value), pathlib.Path(_WORKDIR.value))


def tell(config: ConfigDict, workdir: pathlib.Path, progress: bool = True) -> pathlib.Path:
    """The whole story: trains, prints the scores, and returns the report's path."""
    started = time.monotonic()
    for name, changes in demo.RUNS.items():
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(changes)
        train(own, workdir / name, progress)
    ours, published, alone = (read_summary(workdir / name) for name in demo.RUNS)
    summaries = {OURS: ours, BASE: base_of(ours), PUBLISHED: published, ALONE: alone}

    run, fedgen = finished(workdir / 'fedgen')
    _, fedavg = finished(workdir / 'fedavg')
    center = rescanned(run)
    change = update(fedgen, fedavg, center)
    write_json(workdir / 'update.json', change)

    metric = headline(ours)
    print(f'\n{titled(metric)} on held-back images')
    print_scores(summaries, metric)
    print_ladder(summaries, metric)
    print_update(change, metric)
    path = workdir / 'report.html'
    report(path, summaries, workdir, run, fedgen, fedavg, center, change, metric)
    print(f'\n{time.monotonic() - started:.0f} s; open in a browser: {path}')
    return path


def rescanned(run: Run) -> Center:
    """The first seen center after it changed its scanner: the same cells, another acquisition."""
    d = run.config.data
    made = draw(
        d.centers, d.examples, d.image_size, run.config.seed, d.spread,
        run.program.task.target, NEW_SCANNER, d.cache or None,
    )
    return next(c for c in made.centers if c.name == run.seen[0].name)


def update(fedgen: Trained, fedavg: Trained, new: Center) -> dict:
    """The first seen center's data become `new`: its model and the center model, re-calculated.

    Nobody trains: the center sends the difference of its sums, and each model is one forward pass.
    The models that were made before took canonical input and batch statistics from the old images.
    """
    old = fedgen.seen[0]
    images, new_images = of_split(old, 'train'), of_split(new, 'train')
    own = seen_statistics(fedgen)
    pooled = descriptor.pool(own.values())
    started = time.monotonic()
    statistic = statistic_of(fedgen, new_images)
    after = recalculate(Statistics(own, pooled), {old.name: statistic})
    refined = model_of(fedgen, new_images, m_E=after.refined_E[old.name])
    center_model = model_of(fedgen, new_images, m_E=after.center_model_E, whole=True)
    jax.block_until_ready((refined, center_model))
    seconds = time.monotonic() - started

    base = fedgen._replace(program=fedgen.program.base)
    rows = {
        OURS: (fedgen, model_of(fedgen, images, 0), refined),
        'Center model': (
            fedgen, model_of(fedgen, images, m_E=descriptor.mean(pooled), whole=True), center_model
        ),
        BASE: (base, *(model_of(base, x, 0) for x in (images, new_images))),
        PUBLISHED: (fedavg, *[model_of(fedavg, images, 0)] * 2),
    }
    test, new_test = of_split(old, 'test'), of_split(new, 'test')

    def scores(place, on):
        return {name: score(row[0], row[place], on) for name, row in rows.items()}

    return {
        'center': old.name,
        'old_data': scores(1, test),
        'made_before': scores(1, new_test),
        'made_anew': scores(2, new_test),
        'cost': {
            'seconds': seconds,
            'bytes_up': statistic.total.nbytes + 8,
            'bytes_down': num_bytes(fedgen.shared),
            'steps': 0,
            'steps_at_others': 0,
            'bytes_at_others': 0,
        },
    }


def print_scores(summaries: dict, metric: str) -> None:
    """Seen centers, then the unseen ones, a line a method."""
    steps = summaries[OURS]['config']['adapt']['steps']
    for group, title in (
        ('seen', 'seen centers, mean (worst)'),
        ('unseen', 'unseen center, zero-shot from its unlabelled images, mean (worst)'),
        ('adapted', f'the same after {steps} steps there, without a label'),
    ):
        having = {k: v for k, v in summaries.items() if v.get(group)}
        if having:
            print(f'\n{title}')
        for method, blocks in having.items():
            mean, worst = (blocks[group][level][metric] for level in ('mean', 'worst'))
            print(f'  {method:<28} {mean:.3f}  ({worst:.3f})')


def print_ladder(summaries: dict, metric: str) -> None:
    """What each part adds."""
    print('\nwhat each part adds: seen, unseen')
    for name, seen, unseen in ladder(summaries, metric):
        print(f'  {name:<28} {seen:.3f}  {unseen:.3f}')


def print_update(change: dict, metric: str) -> None:
    """The changed center's models on its new data."""
    print(f'\n{change["center"]} gets a new scanner; on its new images, made before and made anew')
    for name, anew in change['made_anew'].items():
        before = change['made_before'][name]
        print(f'  {name:<28} {before[metric]:.3f}  {anew[metric]:.3f}')
    cost = change['cost']
    print(
        f'  re-calculated in {1e3 * cost["seconds"]:.0f} ms; {cost["bytes_up"]:,} bytes sent; '
        f'{cost["steps"]} steps there, {cost["steps_at_others"]} at others'
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
