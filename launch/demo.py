"""The method in minutes: python -m launch.demo --task=classification --workdir=RUN.

Trains FedGen, FedAvg and local-only models on synthetic centers, takes in an unseen center from
unlabelled images, replaces one center's scanner, and writes it all to RUN/report.html.
"""

import pathlib
import time

import jax
from absl import flags
from ml_collections import ConfigDict

from configs import demo
from fedgen_jax.data.examples import Center, of_split
from fedgen_jax.data.source import draw
from fedgen_jax.evaluate import model_of, score, seen_statistics, statistic_of
from fedgen_jax.files import write_json
from fedgen_jax.hypernet import descriptor
from fedgen_jax.onboard import recalculate
from fedgen_jax.program import num_bytes
from fedgen_jax.registry import choose
from fedgen_jax.report.gather import cloud_of, finished, read_lines, read_summary, strip_of
from fedgen_jax.report.page import Section, Table, methods_of, write_report
from fedgen_jax.report.words import headline, readable, titled
from fedgen_jax.run import Run, Trained
from fedgen_jax.statistics import Statistics
from fedgen_jax.tasks import TASKS
from fedgen_jax.train import train
from launch import cli

_TASK = flags.DEFINE_string('task', 'classification', f'one of {", ".join(TASKS)}')
_WORKDIR = flags.DEFINE_string('workdir', None, 'where the runs and the report are written')

ALGORITHMS = ('fedgen', 'fedavg', 'local_only')
ANEW, ALIKE = 'FedAvg, normalized anew', 'FedAvg'  # with and without batch normalization
NEW_SCANNER = 1  # of the first seen center; training saw its scanner 0


def main():
    choose('task', _TASK.value, TASKS)
    tell(demo.get_config(_TASK.value), pathlib.Path(_WORKDIR.value))


def tell(config: ConfigDict, workdir: pathlib.Path, progress: bool = True) -> pathlib.Path:
    """The whole story: trains, prints the scores, and returns the report's path."""
    started = time.monotonic()
    summaries = {}
    for algorithm in ALGORITHMS:
        own = config.copy_and_resolve_references()
        own.algorithm = algorithm
        train(own, workdir / algorithm, progress)
        summary = read_summary(workdir / algorithm)
        summaries[summary['title']] = summary

    run, fedgen = finished(workdir / 'fedgen')
    _, fedavg = finished(workdir / 'fedavg')
    center = rescanned(run)
    change = update(fedgen, fedavg, center)
    write_json(workdir / 'update.json', change)

    metric = headline(next(iter(summaries.values())))
    print(f'\n{titled(metric)} on held-back images')
    print_scores(summaries, metric)
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
    """
    old = fedgen.seen[0]
    images, new_images = of_split(old, 'train'), of_split(new, 'train')
    own = seen_statistics(fedgen)
    pooled = descriptor.pool(own.values())
    started = time.monotonic()
    statistic = statistic_of(fedgen, new_images)
    after = recalculate(Statistics(own, pooled), {old.name: statistic})
    refined = model_of(fedgen, new_images, m_E=after.refined_E[old.name])
    center_model = model_of(fedgen, new_images, m_E=after.center_model_E)
    jax.block_until_ready((refined, center_model))
    seconds = time.monotonic() - started

    before = {
        'FedGen, made before': model_of(fedgen, images, 0),
        'Center model, before': model_of(fedgen, images, m_E=descriptor.mean(pooled)),
    }
    after = {
        'FedGen, re-generated': refined,
        'Center model, re-calculated': center_model,
    }
    fedavg_before, fedavg_after = (model_of(fedavg, x, 0) for x in (images, new_images))
    if fedavg_before['batch_stats']:
        before['FedAvg, normalized before'], after[ANEW] = fedavg_before, fedavg_after
    else:
        before[ALIKE] = after[ALIKE] = fedavg_before
    test, new_test = of_split(old, 'test'), of_split(new, 'test')
    pairs = zip(before.items(), after.items())
    models = dict(model for pair in pairs for model in pair)
    return {
        'center': old.name,
        'old_data': {k: score(fedgen, v, test) for k, v in before.items()},
        'new_data': {k: score(fedgen, v, new_test) for k, v in models.items()},
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
    for group, title in (
        ('seen', 'seen centers, mean (worst)'),
        ('unseen', 'unseen center, zero-shot from its unlabelled images'),
    ):
        print(f'\n{title}')
        for method, blocks in methods_of(summaries).items():
            block = blocks[group]
            worst = f'  ({block["worst"][metric]:.3f})' if len(block['centers']) > 1 else ''
            print(f'  {method:<28} {block["mean"][metric]:.3f}{worst}')


def print_update(change: dict, metric: str) -> None:
    """The changed center's models on its new data."""
    print(f'\n{change["center"]} gets a new scanner; on its new images')
    for model, scores in change['new_data'].items():
        print(f'  {model:<28} {scores[metric]:.3f}')
    cost = change['cost']
    print(
        f'  re-calculated in {1e3 * cost["seconds"]:.0f} ms; {cost["bytes_up"]:,} bytes sent; '
        f'{cost["steps"]} steps there, {cost["steps_at_others"]} at others'
    )


NORMALIZED = (
    ' Batch normalization takes the statistics of unlabelled images: the old ones in models made '
    'before, the new ones in those made after. FedAvg normalized anew shows what these statistics '
    'do alone.'
)
LEDE = (
    'FedGen trains one model across centers without moving their images, and generates a refined '
    'model for each from the distribution of its features. Here {seen} synthetic hospitals train, '
    'each with its own stain, microscope, camera and mix of classes; {unseen} joins afterwards, '
    'with unlabelled images only, and {changed} gets a new scanner. FedAvg and local-only learning '
    'had the same images, network, augmentation and number of steps.'
)


def report(path, summaries, workdir, run, fedgen, fedavg, center, change, metric) -> None:
    """Gathers what the page shows, and writes it."""
    clouds = [cloud_of(fedgen, c, 'seen') for c in run.seen]
    clouds += [cloud_of(fedgen, c, 'unseen') for c in run.unseen]
    clouds.append(cloud_of(fedgen, center, 'updated'))

    def strip(c, kind, client=None):
        models = {name: (model, client) for name, model in zip(summaries, (fedgen, fedavg))}
        return strip_of(models, c, kind, 'test')

    strips = [strip(c, 'seen', i) for i, c in enumerate(run.seen)]
    strips.insert(1, strip(center, 'updated'))
    strips += [strip(c, 'unseen') for c in run.unseen]
    unseen = ', '.join(c.name for c in run.unseen)
    write_report(
        path,
        title=f'FedGen on synthetic centers: {run.config.task}',
        lede=LEDE.format(seen=len(run.seen), unseen=unseen, changed=change['center']),
        summaries=summaries,
        lines={name: read_lines(workdir / a) for name, a in zip(summaries, ALGORITHMS)},
        clouds=clouds,
        strips=strips,
        sections=[update_section(change, metric)],
        tiles=tiles(summaries, change, metric),
    )


def tiles(summaries: dict, change: dict, metric: str) -> list[tuple[str, str]]:
    """The three numbers of the story, each beside FedAvg's."""
    (_, fedgen), (other, fedavg), *_ = summaries.items()
    new = change['new_data']

    def mean(summary, group):
        return f'{summary[group]["mean"][metric]:.3f}'

    def on_new(model):
        return f'{new[model][metric]:.3f}'

    name, fedavg_row = readable(metric), ANEW if ANEW in new else ALIKE
    return [
        (mean(fedgen, 'seen'), f'{name} at the seen centers; {other} {mean(fedavg, "seen")}'),
        (
            mean(fedgen, 'unseen'),
            f'at the unseen center, zero-shot; {other} {mean(fedavg, "unseen")}',
        ),
        (
            on_new('FedGen, re-generated'),
            f'at {change["center"]} after its new scanner, with 0 steps; '
            f'{on_new("FedGen, made before")} with the model made before, '
            f'{fedavg_row} {on_new(fedavg_row)}',
        ),
    ]


def update_section(change: dict, metric: str) -> Section:
    """The table of the changed center."""
    old, new, cost = change['old_data'], change['new_data'], change['cost']
    rows = [
        [model, f'{old[model][metric]:.3f}' if model in old else '–', f'{s[metric]:.3f}']
        for model, s in new.items()
    ]
    return Section(
        'A center changes its scanner',
        f'{change["center"]} photographs the same cells with another stain, microscope and camera. '
        f'It sends the difference of its sums ({cost["bytes_up"]:,} bytes), and its model and the '
        f'center model are re-calculated in {1e3 * cost["seconds"]:.0f} ms, without labels: '
        f'{cost["steps"]} training steps there, {cost["steps_at_others"]} steps and '
        f'{cost["bytes_at_others"]} bytes at every other center.',
        Table(
            titled(metric),
            ['', 'old scanner', 'new scanner'],
            rows,
            'Test images, the same cells in both columns.' + (NORMALIZED if ANEW in new else ''),
        ),
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    cli.run(main)
